//! Points in time as HTTP, JSON and EMQX write them. Pure: the time and the zone are arguments.

use std::fmt::Write as _;
use std::time::Duration;

const DAY_SECONDS: u64 = 86_400;

/// A point in time taken apart, in the proleptic Gregorian calendar.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    /// Days since Thursday, 1970-01-01.
    days: u64,
    /// Seconds since midnight.
    second: u64,
}

impl Civil {
    /// Cuts 400-year eras that begin on 1 March, so that the leap day ends a year.
    fn new(seconds: u64) -> Self {
        let days = seconds / DAY_SECONDS;
        // 719 468 days lie between 0000-03-01 and 1970-01-01; an era has 146 097.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            days,
            second: seconds % DAY_SECONDS,
        }
    }

    /// `2024-01-31T08:15:00`, with `between` for the `T`.
    fn text(&self, between: char) -> String {
        format!(
            "{:04}-{:02}-{:02}{between}{:02}:{:02}:{:02}",
            self.year,
            self.month,
            self.day,
            self.second / 3600,
            self.second / 60 % 60,
            self.second % 60
        )
    }
}

/// `time` (since 1970) by RFC 3339 with as many fractional digits as it has, in a zone that is
/// `offset` seconds ahead of UTC.
#[must_use]
pub fn rfc3339(time: Duration, offset: i32) -> String {
    let civil = Civil::new(time.as_secs().saturating_add_signed(offset.into()));
    let mut text = civil.text('T');
    // Writing to a String cannot fail, here and below.
    if time.subsec_nanos() != 0 {
        let _ = write!(text, ".{:09}", time.subsec_nanos());
        text.truncate(text.trim_end_matches('0').len());
    }
    if offset == 0 {
        text.push('Z');
    } else {
        let sign = if offset < 0 { '-' } else { '+' };
        let minutes = offset.unsigned_abs() / 60;
        let _ = write!(text, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    }
    text
}

/// A day (since 1970) by ISO 8601.
#[must_use]
pub fn date(day: u32) -> String {
    let civil = Civil::new(u64::from(day) * DAY_SECONDS);
    format!("{:04}-{:02}-{:02}", civil.year, civil.month, civil.day)
}

/// The day (since 1970) of an ISO 8601 date; `None`: there is no such day, or it is none of this age.
#[must_use]
pub fn parse_date(text: &str) -> Option<u32> {
    let year: u32 = text.get(..4)?.parse().ok()?;
    if !(1970..2200).contains(&year) {
        return None;
    }
    // Every day of that year is within two of its first by the mean length of years.
    let first = (year - 1970) * 365 + (year - 1970) / 4;
    (first.saturating_sub(2)..first + 368).find(|&day| date(day) == text)
}

/// `milliseconds` since 1970 as EMQX prints them: `2024-01-31 08:15:00` in a zone that is `offset` seconds
/// ahead of UTC, without saying so.
#[must_use]
pub fn local_datetime(milliseconds: u64, offset: i32) -> String {
    Civil::new((milliseconds / 1000).saturating_add_signed(offset.into())).text(' ')
}

/// `time` (since 1970) as the `Date` field has it (RFC 9110 section 5.6.7).
#[must_use]
pub fn http_date(time: Duration) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let civil = Civil::new(time.as_secs());
    let name = |names: &'static [&'static str], index: u64| {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        names.get(index).copied().unwrap_or_default()
    };
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, civil.days % 7),
        civil.day,
        name(&MONTHS, civil.month - 1),
        civil.year,
        civil.second / 3600,
        civil.second / 60 % 60,
        civil.second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_as_many_digits_as_they_need() {
        let check = |seconds, nanos, offset, want: &str| {
            assert_eq!(rfc3339(Duration::new(seconds, nanos), offset), want);
        };
        check(0, 0, 0, "1970-01-01T00:00:00Z");
        check(951_782_400, 0, 0, "2000-02-29T00:00:00Z");
        check(
            1_795_305_599,
            999_999_999,
            0,
            "2026-11-21T23:59:59.999999999Z",
        );
        check(
            1_795_305_599,
            120_000_000,
            8 * 3600,
            "2026-11-22T07:59:59.12+08:00",
        );
        check(
            4_107_542_400,
            1,
            -12_600,
            "2100-02-28T20:30:00.000000001-03:30",
        );
    }

    #[test]
    fn dates_read_back() {
        for day in (0..80_000).step_by(97) {
            assert_eq!(parse_date(&date(day)), Some(day));
        }
        assert_eq!(date(20_778), "2026-11-21");
        for bad in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "26-11-21",
            "2026-11-21x",
            "1969-12-31",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn http_dates_name_the_day() {
        // The example of RFC 9110.
        assert_eq!(
            http_date(Duration::from_secs(784_111_777)),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
    }
}
