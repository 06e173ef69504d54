//! The sink of the `log` facade: short lines on stderr, and copies for whoever listens.
//!
//! A line is `HH:MM:SS level message` in local time; procd adds date and host. Control characters
//! are escaped, so that no name from the network can forge a line or drive a terminal. The level
//! that is printed and the levels that subscribers ask for are independent; the facade's own
//! filter always stands at the most talkative of them, so that a record nobody wants costs a
//! comparison. A subscriber that does not keep up loses lines, never holds up who logs.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use tokio::sync::mpsc;

use super::clock;

/// Bytes of one line; what is longer is cut and marked with an ellipsis.
const LINE_BYTES_MAX: usize = 2048;

/// Lines that wait for one subscriber; when full, new ones are dropped for it.
const QUEUE_LINES_MAX: usize = 256;

/// How much is said, with mihomo's names. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Silent,
    /// Something does not work.
    Error,
    /// Something is not as it should be.
    Warning,
    /// What a user wants to see.
    Info,
    /// What a developer wants to see.
    Debug,
}

impl Level {
    const ALL: [Self; 5] = [
        Self::Silent,
        Self::Error,
        Self::Warning,
        Self::Info,
        Self::Debug,
    ];

    /// As the configuration and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Silent => LevelFilter::Off,
            Self::Error => LevelFilter::Error,
            Self::Warning => LevelFilter::Warn,
            Self::Info => LevelFilter::Info,
            Self::Debug => LevelFilter::Debug,
        }
    }

    fn from_stored(stored: u8) -> Self {
        let stored = usize::from(stored);
        Self::ALL.get(stored).copied().unwrap_or(Self::Info)
    }
}

impl From<log::Level> for Level {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Error,
            log::Level::Warn => Self::Warning,
            log::Level::Info => Self::Info,
            log::Level::Debug | log::Level::Trace => Self::Debug,
        }
    }
}

/// The text names no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLevel;

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown log level: expected silent, error, warning, info or debug")
    }
}

impl std::error::Error for UnknownLevel {}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// In lower case only, as mihomo takes it.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let mut all = Self::ALL.into_iter();
        all.find(|level| level.as_str() == text).ok_or(UnknownLevel)
    }
}

/// One line, shared by those who listen.
#[derive(Debug)]
pub struct Line {
    /// How grave.
    pub level: Level,
    /// When, since 1970.
    pub time: Duration,
    printed: String,
    message_start: usize,
}

impl Line {
    fn new(record: &Record<'_>, time: Duration, offset: i32) -> Self {
        let level = Level::from(record.level());
        let mut printed = String::with_capacity(128);
        let (hour, minute, second) = clock::time_of_day(time, offset);
        // Writing to a String cannot fail; `Escaped` reports the cut, which is no error either.
        let _ = write!(
            printed,
            "{hour:02}:{minute:02}:{second:02} {} ",
            level.as_str()
        );
        let message_start = printed.len();
        if Escaped(&mut printed).write_fmt(*record.args()).is_err() {
            printed.push('…');
        }
        Self {
            level,
            time,
            printed,
            message_start,
        }
    }

    /// What was said, without time and level.
    #[must_use]
    pub fn message(&self) -> &str {
        self.printed.get(self.message_start..).unwrap_or_default()
    }
}

/// Writes text with control characters escaped, until the line is full.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() >= LINE_BYTES_MAX {
                return Err(fmt::Error);
            }
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

struct Subscriber {
    level: Level,
    queue: mpsc::Sender<Arc<Line>>,
}

/// The sink. Table: the subscribers; counter: the two levels.
pub struct Logger {
    printed: AtomicU8,
    wanted: AtomicU8,
    subscribers: Mutex<Vec<Subscriber>>,
}

static LOGGER: Logger = Logger::new();

/// Makes the sink of this module the process's own, printing up to `level`, and returns it. Calling
/// again only sets the level.
pub fn install(level: Level) -> &'static Logger {
    // The second call finds the sink in place: nothing to do.
    let _ = log::set_logger(&LOGGER);
    LOGGER.set_level(level);
    &LOGGER
}

impl Logger {
    const fn new() -> Self {
        Self {
            printed: AtomicU8::new(Level::Silent as u8),
            wanted: AtomicU8::new(Level::Silent as u8),
            subscribers: Mutex::new(Vec::new()),
        }
    }

    /// The level that is printed.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::from_stored(self.printed.load(Ordering::Relaxed))
    }

    /// Prints up to `level` from now on.
    pub fn set_level(&self, level: Level) {
        self.printed.store(level as u8, Ordering::Relaxed);
        self.settle(&self.table());
    }

    /// Listens to lines up to `level`, whatever is printed.
    #[must_use]
    pub fn subscribe(&'static self, level: Level) -> Subscription {
        let (queue, lines) = mpsc::channel(QUEUE_LINES_MAX);
        let mut table = self.table();
        table.push(Subscriber { level, queue });
        self.settle(&table);
        Subscription {
            lines,
            logger: self,
        }
    }

    /// Sets the filters to what is wanted now.
    fn settle(&self, subscribers: &[Subscriber]) {
        let wanted = subscribers.iter().map(|s| s.level).max();
        let wanted = wanted.unwrap_or(Level::Silent);
        self.wanted.store(wanted as u8, Ordering::Relaxed);
        log::set_max_level(wanted.max(self.level()).filter());
    }

    fn table(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        let locked = self.subscribers.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> Level {
        Level::from_stored(self.wanted.load(Ordering::Relaxed))
    }
}

impl Log for Logger {
    /// Libraries are heard from warnings upwards only: what they say at debug level about writing
    /// to a subscriber would come back to it, for ever. tiny_http is never heard: all it has to say
    /// is that its listener was closed, which is how it is stopped.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().starts_with("headgate");
        let heard = own
            || (metadata.level() <= log::Level::Warn
                && !metadata.target().starts_with("tiny_http"));
        heard && Level::from(metadata.level()) <= self.level().max(self.wanted())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let time = clock::unix_time();
        let mut line = Line::new(record, time, clock::local_offset(time));
        if line.level <= self.level() {
            line.printed.push('\n');
            // One write, so that lines of threads do not mix; a closed stderr is nobody's problem.
            let _ = std::io::stderr().write_all(line.printed.as_bytes());
            line.printed.pop();
        }
        if line.level <= self.wanted() {
            let line = Arc::new(line);
            for subscriber in self.table().iter() {
                if line.level <= subscriber.level {
                    // Full or gone: that subscriber misses the line.
                    let _ = subscriber.queue.try_send(Arc::clone(&line));
                }
            }
        }
    }

    fn flush(&self) {}
}

/// The lines that one listener asked for. Dropping it ends the subscription.
pub struct Subscription {
    lines: mpsc::Receiver<Arc<Line>>,
    logger: &'static Logger,
}

impl Subscription {
    /// The next line; safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Arc<Line>> {
        self.lines.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.lines.close();
        let mut table = self.logger.table();
        table.retain(|subscriber| !subscriber.queue.is_closed());
        self.logger.settle(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(logger: &Logger, target: &str, level: log::Level, text: &str) {
        logger.log(
            &Record::builder()
                .target(target)
                .level(level)
                .args(format_args!("{text}"))
                .build(),
        );
    }

    fn heard(subscription: &mut Subscription) -> Vec<String> {
        let mut messages = Vec::new();
        while let Ok(line) = subscription.lines.try_recv() {
            messages.push(line.message().to_owned());
        }
        messages
    }

    #[test]
    fn a_subscriber_hears_its_level_whatever_is_printed() {
        static QUIET: Logger = Logger::new();
        let mut debug = QUIET.subscribe(Level::Debug);
        let mut error = QUIET.subscribe(Level::Error);
        say(&QUIET, "headgate::dns", log::Level::Debug, "one");
        say(&QUIET, "headgate", log::Level::Error, "two");
        assert_eq!(heard(&mut debug), ["one", "two"]);
        assert_eq!(heard(&mut error), ["two"]);
        drop(debug);
        assert_eq!(QUIET.wanted(), Level::Error);
    }

    #[test]
    fn libraries_are_heard_from_warnings_upwards() {
        static QUIET: Logger = Logger::new();
        let mut all = QUIET.subscribe(Level::Debug);
        say(&QUIET, "tungstenite::protocol", log::Level::Info, "noise");
        say(&QUIET, "rustls", log::Level::Warn, "matters");
        say(&QUIET, "tiny_http", log::Level::Error, "closed");
        assert_eq!(heard(&mut all), ["matters"]);
    }

    #[test]
    fn a_subscriber_that_does_not_read_loses_lines_and_holds_nobody_up() {
        static QUIET: Logger = Logger::new();
        let mut slow = QUIET.subscribe(Level::Info);
        for _ in 0..QUEUE_LINES_MAX + 10 {
            say(&QUIET, "headgate", log::Level::Info, "x");
        }
        assert_eq!(heard(&mut slow).len(), QUEUE_LINES_MAX);
    }

    #[test]
    fn names_from_the_network_cannot_forge_a_line() {
        static QUIET: Logger = Logger::new();
        let mut all = QUIET.subscribe(Level::Info);
        say(
            &QUIET,
            "headgate",
            log::Level::Info,
            "a\r\nb\u{1b}[31m\u{85}",
        );
        assert_eq!(heard(&mut all), [r"a\r\nb\u{1b}[31m\u{85}"]);
        say(&QUIET, "headgate", log::Level::Info, &"é".repeat(5000));
        let long = &heard(&mut all)[0];
        assert!(long.len() <= LINE_BYTES_MAX + 4 && long.ends_with('…'));
    }

    #[test]
    fn levels_are_lower_case_words() {
        assert_eq!("warning".parse(), Ok(Level::Warning));
        for bad in ["warn", "Info", "", "trace"] {
            assert_eq!(bad.parse::<Level>(), Err(UnknownLevel), "{bad}");
        }
    }
}
