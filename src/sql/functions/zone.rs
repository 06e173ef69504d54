//! Calendar and time zones: the proleptic Gregorian calendar, offsets from UTC.

/// A time of the calendar, without zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Times of the years 0 to 9999; others have no four digits.
const SECONDS_MIN: i64 = -62_167_219_200;
const SECONDS_MAX: i64 = 253_402_300_799;

impl Civil {
    /// The calendar's time at `seconds` since 1970; `None` outside the years 0 to 9999.
    pub(super) fn at(seconds: i64) -> Option<Self> {
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            return None;
        }
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years begin in March here, so that the leap day is the last one; eras have 400 of them.
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Some(Self {
            year: year + era * 400 + i64::from(month <= 2),
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        })
    }

    /// Seconds since 1970; `None` when the calendar has no such time.
    pub(super) fn seconds(self) -> Option<i64> {
        let fits = (0..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..60).contains(&self.second);
        if !fits {
            return None;
        }
        let year = self.year - i64::from(self.month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month = (self.month + 9) % 12;
        let of_year = (153 * month + 2) / 5 + self.day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        let seconds = days * DAY + self.hour * 3600 + self.minute * 60 + self.second;
        // A day that its month does not have comes back as another.
        (Self::at(seconds) == Some(self)).then_some(seconds)
    }
}

/// Seconds of an offset: `Z`, `z`, `±HH`, `±HHMM`, `±HH:MM`, `±HH:MM:SS`.
pub(super) fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits: String = match rest.len() {
        4 => rest.to_owned(),
        5 if rest.get(2..3) == Some(":") => rest.replace(':', ""),
        8 if rest.get(2..3) == Some(":") && rest.get(5..6) == Some(":") => rest.replace(':', ""),
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |at: usize| {
        digits
            .get(at..at + 2)
            .map_or(Some(0), |pair| pair.parse::<i64>().ok())
    };
    let (hours, minutes, seconds) = (pair(0)?, pair(2)?, pair(4)?);
    (hours < 24 && minutes < 60 && seconds < 60)
        .then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

/// An offset with `colons` colons: 0 and 1 without seconds.
pub(super) fn print(offset: i64, colons: usize) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    let of = offset.abs();
    let (hours, minutes, seconds) = (of / 3600, of / 60 % 60, of % 60);
    match colons {
        0 => format!("{sign}{hours:02}{minutes:02}"),
        1 => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}
