//! The history on flash: a file a day in `history/`, named by the days since 1970.
//!
//! Today's is a log: every few minutes what has moved is appended as one frame (the framing of the MQTT
//! broker's log, so that a torn write is found), nothing where nothing has. A log that has grown too long is
//! written anew with a point an hour; so is yesterday's; older days keep their sums alone. All files together
//! stay under 256 KB, the one in the making included: 28 × 4 + 24 + 48 + 24 = 208 KB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::state;
use crate::mqtt::store::frame::{self, Frames};
use crate::tunnel::Tunnel;
use crate::tunnel::history::day::Day;
use crate::tunnel::history::{History, Moment};

/// Where the files lie, in the working directory.
const DIRECTORY: &str = "history";

/// What a file begins with: its format and version.
const HEADER: &[u8; 8] = b"HGHIST1\n";

/// Bytes of the log of a day; when it is longer, it is written anew.
const LOG_BYTES_MAX: u64 = 48 * 1024;

/// Bytes of a day with its hours, and without: one page of most flash file systems.
const HOURS_BYTES_MAX: usize = 24 * 1024;
const SUMS_BYTES_MAX: usize = 4096;

/// Bytes around the only frame of such a file.
const OVERHEAD: usize = HEADER.len() + 8;

/// Days that are kept.
pub const DAYS: u32 = 30;

/// The files.
pub struct Keeper {
    directory: PathBuf,
    /// The day whose file the history was last given. Whoever holds the lock alone writes.
    date: Mutex<u32>,
}

impl Keeper {
    /// Of the working directory `place`.
    pub fn new(place: &Path) -> Self {
        Self {
            directory: place.join(DIRECTORY),
            date: Mutex::new(0),
        }
    }

    /// Begins or ends the keeping of a history, as `wanted`.
    pub fn follow(&self, tunnel: &Tunnel, wanted: bool) {
        let connections = tunnel.connections();
        match (wanted, connections.history()) {
            (true, None) => {
                connections.keep_history(Some(Arc::new(History::default())));
                *self.date.lock().unwrap_or_else(PoisonError::into_inner) = 0;
                self.flush(tunnel);
            }
            (false, Some(_)) => {
                self.flush(tunnel);
                connections.keep_history(None);
            }
            _ => {}
        }
    }

    /// Writes what has moved since this was last done. What cannot be written waits for the next time.
    pub fn flush(&self, tunnel: &Tunnel) {
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(history) = tunnel.connections().settle() else {
            return;
        };
        let mut pending = history.take_pending();
        // After the above: no day in it is later than this.
        let at = Moment::now();
        let turned = *date != at.date;
        if turned {
            // The clock may have been wrong when the daemon began: each day is read when it comes.
            history.enter(&self.read(at.date), &at);
            if *date != at.date.saturating_sub(1) {
                history.enter(&self.read(at.date.saturating_sub(1)), &at);
            }
            *date = at.date;
        }
        while let Some(day) = pending.first() {
            if let Err(error) = self.append(day) {
                log::warn!("history: {error}");
                break;
            }
            pending.remove(0);
        }
        if !pending.is_empty() {
            history.put_back(pending);
        }
        if let Err(error) = self.tidy(at.date, turned) {
            log::warn!("history: {error}");
        }
    }

    /// What is kept of the days `from` to `to`, both included, where there is something.
    pub fn days(&self, from: u32, to: u32) -> Vec<Day> {
        let days = (from..=to).rev().take(usize::try_from(DAYS).unwrap_or(0));
        let days = days.map(|date| self.read(date));
        days.filter(|day| !day.is_empty()).collect()
    }

    fn path(&self, date: u32) -> PathBuf {
        self.directory.join(date.to_string())
    }

    /// A day, as much of it as there is.
    fn read(&self, date: u32) -> Day {
        self.read_whole(date).unwrap_or_else(|day| day)
    }

    /// A day; the error is as much of it as there is.
    fn read_whole(&self, date: u32) -> Result<Day, Day> {
        let mut bytes = Vec::new();
        let mut day = Day::new(date);
        let Ok(file) = File::open(self.path(date)) else {
            return Ok(day);
        };
        // A frame may pass the limit of the log, once.
        let read = file.take(2 * LOG_BYTES_MAX).read_to_end(&mut bytes);
        let Some(log) = bytes.strip_prefix(HEADER).filter(|_| read.is_ok()) else {
            return Err(day);
        };
        let mut frames = Frames::new(log);
        let sound = frames.by_ref().all(|frame| day.decode(frame).is_ok());
        match sound && frames.valid == log.len() {
            true => Ok(day),
            false => Err(day),
        }
    }

    fn append(&self, day: &Day) -> io::Result<()> {
        let mut bytes = Vec::new();
        let path = self.path(day.date);
        fs::create_dir_all(&self.directory)?;
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).mode(0o600).open(path)?;
        let before = file.metadata()?.len();
        if before == 0 {
            bytes.extend_from_slice(HEADER);
        }
        frame::append(&mut bytes, &day.encode());
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if written.is_err() {
            // What comes behind half a frame could not be read.
            let _whole = file.set_len(before);
        }
        written
    }

    fn replace(&self, day: &Day, bytes_max: usize) -> io::Result<()> {
        let mut bytes = HEADER.to_vec();
        frame::append(&mut bytes, &day.encode_within(bytes_max - OVERHEAD));
        state::replace(&self.path(day.date), &bytes)
    }

    /// Shortens what may be shorter by now and drops what is too old. Not by the clock alone, which may be
    /// wrong: the newest [`DAYS`] stay.
    fn tidy(&self, today: u32, turned: bool) -> io::Result<()> {
        let long = |date, most| fs::metadata(self.path(date)).is_ok_and(|file| file.len() > most);
        if long(today, LOG_BYTES_MAX) || (turned && self.read_whole(today).is_err()) {
            self.replace(&self.read(today), HOURS_BYTES_MAX)?;
        }
        if !turned {
            return Ok(());
        }
        let mut dates: Vec<u32> = match fs::read_dir(&self.directory) {
            Ok(files) => files
                .filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok())
                .collect(),
            Err(_) => return Ok(()),
        };
        dates.sort_unstable_by(|a, b| b.cmp(a));
        for (age, date) in (0..).zip(dates) {
            if age >= DAYS {
                fs::remove_file(self.path(date))?;
            } else if date.saturating_add(1) == today {
                if long(date, HOURS_BYTES_MAX as u64) {
                    self.replace(&self.read(date), HOURS_BYTES_MAX)?;
                }
            } else if date != today && long(date, SUMS_BYTES_MAX as u64) {
                self.replace(&self.read(date).without_hours(), SUMS_BYTES_MAX)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Place;
    use crate::tunnel::history::day::{Dimension, Moved, plus};

    fn bytes(place: &Place) -> u64 {
        let files = fs::read_dir(place.0.join(DIRECTORY)).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    }

    fn total(day: &Day) -> Moved {
        let rows = day.rows(Dimension::Domain).map(|(_, row)| row.total());
        rows.fold([0; 2], plus)
    }

    /// What a busy house moves in some minutes: long names, many of them.
    fn busy(date: u32, hour: u8, turn: u64) -> Day {
        let mut day = Day::new(date);
        for n in 0..60 {
            let name = format!("{}.cdn-of-somebody.example.net", (turn * 7 + n) % 400);
            day.add(Dimension::Domain, &name, hour, [1 << 22, 1 << 33]);
            day.add(
                Dimension::Device,
                &format!("02:00:00:00:00:{n:02x}"),
                hour,
                [1 << 22, 1 << 33],
            );
            day.add(
                Dimension::Rule,
                &format!("DomainSuffix,site{n}.example"),
                hour,
                [1 << 22, 1 << 33],
            );
            day.add(
                Dimension::Node,
                &format!("node {n}"),
                hour,
                [1 << 22, 1 << 33],
            );
        }
        day
    }

    #[test]
    fn busy_days_stay_within_their_flash_and_their_sums_are_exact() {
        let place = Place::new("history-busy");
        let keeper = Keeper::new(&place.0);
        let mut most = 0;
        for date in 20_000..20_033 {
            for turn in 0..8_u8 {
                keeper.append(&busy(date, turn * 3, turn.into())).unwrap();
                most = most.max(bytes(&place));
                keeper.tidy(date, turn == 0).unwrap();
            }
        }
        let in_the_making = HOURS_BYTES_MAX as u64;
        assert!(most + in_the_making <= 256 * 1024, "{most}");
        let days = keeper.days(0, 20_032);
        assert_eq!(days.len(), 30);
        for day in &days {
            assert_eq!(total(day), [480 << 22, 480 << 33], "{}", day.date);
        }
        let hours = |day: &Day| {
            day.rows(Dimension::Device)
                .map(|(_, row)| row.points().len())
                .max()
        };
        assert_eq!(
            (hours(&days[0]), hours(&days[1]), hours(&days[2])),
            (Some(8), Some(8), Some(1))
        );
    }

    #[test]
    fn a_torn_log_keeps_what_was_whole() {
        let place = Place::new("history-torn");
        let keeper = Keeper::new(&place.0);
        keeper.append(&busy(20_000, 1, 0)).unwrap();
        keeper.append(&busy(20_000, 2, 0)).unwrap();
        let path = keeper.path(20_000);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let want = total(&busy(20_000, 1, 0));
        assert_eq!(total(&keeper.read(20_000)), want);
        keeper.tidy(20_000, true).unwrap();
        keeper.append(&busy(20_000, 3, 0)).unwrap();
        assert_eq!(total(&keeper.read(20_000)), plus(want, want));
        fs::write(&path, b"rubbish").unwrap();
        assert!(keeper.read(20_000).is_empty());
    }
}
