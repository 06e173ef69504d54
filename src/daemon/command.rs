//! The command line of the contract, parsed and carried out.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::client::{self, Request};
use super::geodata;
use crate::config::Config;
use crate::provider::convert::convert;
use crate::provider::options::Format;
use crate::rules::set::Behavior;

/// Printed after a usage error.
pub const USAGE: &str = "usage: headgate [run] [-d DIR] [-f FILE]   run in the foreground
       headgate check [-d DIR] [-f FILE]   validate a configuration (also -t)
       headgate cleanup                    remove what a dead instance left in the kernel
       headgate ruleset [-d DIR] [-f FILE] print the nftables ruleset, apply nothing
       headgate api [-d DIR] [-f FILE] [-w SECONDS] METHOD PATH [JSON]   ask the running daemon's controller
       headgate explain [-d DIR] [-f FILE] HOST[:PORT] [ip=IP] [network=udp] [src=IP]
                                           tell which rule decides, and why
       headgate app [-d DIR] add ID | remove ID | list
                                           applications of the management API; add prints the secret
       headgate convert-ruleset domain|ipcidr yaml|text|mrs SOURCE TARGET
                                           turn a rule set into mrs, or mrs into text
       headgate version                    (also -v)";

/// One byte more than the parser takes.
const CONFIG_BYTES_MAX: u64 = 2 * 1024 * 1024 + 1;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Run until told to stop.
    Run,
    /// Validate the configuration.
    Check,
    /// Remove kernel leftovers.
    Cleanup,
    /// Print the ruleset.
    Ruleset,
    /// Ask the running daemon's controller.
    Api,
    /// Tell which rule decides.
    Explain,
    /// Convert a rule set.
    ConvertRuleset,
    /// Add, list and remove applications of the management API.
    App,
    /// Print the version.
    Version,
    /// Print how to call it.
    Help,
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is to be done.
    pub task: Task,
    /// `-d`.
    pub directory: Option<PathBuf>,
    /// `-f`.
    pub file: Option<PathBuf>,
    /// What `api` asks.
    pub request: Request,
    /// What else was said, to the commands that take it.
    pub words: Vec<String>,
}

/// Why a command line is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Command {
    /// Parses the process's arguments, its own name first.
    ///
    /// # Errors
    /// [`Usage`] with what was wrong.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, Usage> {
        use lexopt::prelude::{Long, Short, Value};
        let usage = |error: lexopt::Error| Usage(error.to_string());
        let mut command = Self {
            task: Task::Run,
            directory: None,
            file: None,
            request: Request::default(),
            words: Vec::new(),
        };
        let mut task = None;
        let mut words = Vec::new();
        let mut seconds = 0;
        let mut parser = lexopt::Parser::from_iter(arguments);
        while let Some(argument) = parser.next().map_err(usage)? {
            match argument {
                Short('d') => command.directory = Some(parser.value().map_err(usage)?.into()),
                Short('f') => command.file = Some(parser.value().map_err(usage)?.into()),
                Short('w') if task == Some(Task::Api) => {
                    use lexopt::ValueExt as _;
                    seconds = parser
                        .value()
                        .and_then(|text| text.parse())
                        .map_err(usage)?;
                }
                Short('t') => task = Some(Task::Check),
                Short('v') | Long("version") => task = Some(Task::Version),
                Short('h') | Long("help") => task = Some(Task::Help),
                Value(word) if task.is_none() => {
                    task = Some(match word.to_str() {
                        Some("run") => Task::Run,
                        Some("check") => Task::Check,
                        Some("cleanup") => Task::Cleanup,
                        Some("ruleset") => Task::Ruleset,
                        Some("api") => Task::Api,
                        Some("explain") => Task::Explain,
                        Some("app") => Task::App,
                        Some("convert-ruleset") => Task::ConvertRuleset,
                        Some("version") => Task::Version,
                        Some("help") => Task::Help,
                        _ => {
                            return Err(Usage(format!(
                                "unknown command {}",
                                word.to_string_lossy()
                            )));
                        }
                    });
                }
                Value(word) if task == Some(Task::Api) => words.push(
                    word.into_string()
                        .map_err(|_| Usage("a request is UTF-8".into()))?,
                ),
                Value(word)
                    if matches!(task, Some(Task::App | Task::Explain | Task::ConvertRuleset)) =>
                {
                    command.words.push(word.to_string_lossy().into_owned());
                }
                other => return Err(usage(other.unexpected())),
            }
        }
        command.task = task.unwrap_or(Task::Run);
        if command.task == Task::Api {
            command.request = Request::from_words(words)
                .ok_or_else(|| Usage("api takes METHOD, PATH and perhaps JSON".into()))?;
            command.request.seconds = seconds;
        }
        Ok(command)
    }

    /// The working directory: `-d`, else `/etc/headgate` when it exists, else under the user's state.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        if let Some(directory) = &self.directory {
            return directory.clone();
        }
        let system = Path::new("/etc/headgate");
        if system.is_dir() {
            return system.into();
        }
        let state = std::env::var_os("XDG_STATE_HOME")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let home = || {
            std::env::var_os("HOME")
                .map_or_else(|| PathBuf::from("/"), PathBuf::from)
                .join(".local/state")
        };
        state.unwrap_or_else(home).join("headgate")
    }

    /// The configuration file, and whether it was asked for by name.
    #[must_use]
    pub fn file(&self) -> (PathBuf, bool) {
        match &self.file {
            Some(file) => (file.clone(), true),
            None => (self.directory().join("config.yaml"), false),
        }
    }
}

/// Carries a command out: the process's exit status (0 well, 1 failed).
#[must_use]
pub fn execute(command: &Command) -> ExitCode {
    let done = match command.task {
        Task::Version => {
            say(&format!("headgate {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Task::Help => {
            say(USAGE);
            Ok(())
        }
        Task::Check => load(command).and_then(|loaded| check(command, &loaded)),
        Task::Ruleset => {
            load(command).and_then(|loaded| super::kernel::print_ruleset(&loaded.config))
        }
        Task::Explain => super::explain::run(command),
        Task::App => super::applications::run(command),
        Task::ConvertRuleset => convert_ruleset(&command.words),
        Task::Cleanup => super::kernel::cleanup(),
        Task::Api => load(command).and_then(|loaded| {
            let directory = command.directory();
            let to = &mut io::stdout().lock();
            Ok(client::ask(
                &loaded.config.controller,
                &directory,
                &command.request,
                to,
            )?)
        }),
        Task::Run => super::supervisor::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `convert-ruleset BEHAVIOR FORMAT SOURCE TARGET`, as mihomo has it.
fn convert_ruleset(words: &[String]) -> Result<(), super::Failure> {
    let [behavior, format, source, target] = words else {
        return Err("expected: convert-ruleset BEHAVIOR FORMAT SOURCE TARGET".into());
    };
    let behavior = match behavior.as_str() {
        "domain" => Behavior::Domain,
        "ipcidr" => Behavior::IpCidr,
        _ => return Err("expected behavior domain or ipcidr: only these have an mrs form".into()),
    };
    let format = Format::parse(format).ok_or("expected format yaml, text or mrs")?;
    let read = File::open(source).map_err(|error| format!("{source}: {error}"))?;
    // Beside its place first: a source that is none leaves what is there.
    let part = format!("{target}.new");
    let made = File::create(&part).map_err(|error| format!("{part}: {error}"))?;
    let done = convert(read, made, behavior, format);
    if done.is_err() {
        let _gone = std::fs::remove_file(&part);
    }
    let done = done.map_err(|error| format!("{source}: {error}"))?;
    std::fs::rename(&part, target)?;
    say(&format!(
        "{target}: {} entries, {} passed over",
        done.entries, done.skipped
    ));
    Ok(())
}

/// Says what a valid configuration has wrong nevertheless.
fn check(command: &Command, loaded: &Loaded) -> Result<(), super::Failure> {
    let Loaded { config, origin, .. } = loaded;
    for warning in &loaded.warnings {
        eprintln!("{origin}:{warning}");
    }
    let databases = geodata::databases(config, &command.directory())?;
    for line in geodata::load(&config.geo_uses, &databases) {
        if !config.geodata.fail_soft {
            return Err(format!("{origin}:{line}").into());
        }
        eprintln!("{origin}:{line}");
    }
    say(&format!("{origin}: the configuration is valid"));
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "the commands whose purpose is to print"
)]
pub(super) fn say(text: &str) {
    println!("{text}");
}

/// A configuration and where it came from.
pub struct Loaded {
    /// It.
    pub config: Config,
    /// What was ignored in it.
    pub warnings: Vec<crate::config::Warning>,
    /// The file's path, or `built-in configuration`.
    pub origin: String,
}

/// Why there is no configuration. Displays as the one line of the contract.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It is no valid configuration.
    Invalid(String, crate::config::ConfigError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Invalid(origin, error) => write!(f, "{origin}:{error}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads the configuration that the command names; the built-in one when there is no file and none
/// was asked for.
///
/// # Errors
/// [`LoadError`], a line that names file, place, key and reason.
pub fn load(command: &Command) -> Result<Loaded, super::Failure> {
    let (path, asked) = command.file();
    let text = match read_config(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !asked => {
            return Ok(Loaded {
                config: Config::builtin(),
                warnings: Vec::new(),
                origin: "built-in configuration".into(),
            });
        }
        Err(error) => return Err(LoadError::Unreadable(path, error).into()),
    };
    parse(&text, path.display().to_string())
}

/// A file's text, as far as a configuration may be long: what is longer is refused by the parser,
/// without being read whole. An empty one is refused, as by mihomo: it is one that is just now being written, or
/// a mistake, and would close the gate.
///
/// # Errors
/// What the file system says, and [`io::ErrorKind::InvalidData`] for an empty file.
pub fn read_config(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(CONFIG_BYTES_MAX)
        .read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is empty",
        ));
    }
    Ok(text)
}

/// Parses a configuration's text.
///
/// # Errors
/// [`LoadError::Invalid`].
pub fn parse(text: &str, origin: String) -> Result<Loaded, super::Failure> {
    match Config::parse(text) {
        Ok((config, warnings)) => Ok(Loaded {
            config,
            warnings,
            origin,
        }),
        Err(error) => Err(LoadError::Invalid(origin, error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Command, Usage> {
        Command::parse(["headgate"].iter().chain(words).map(OsString::from))
    }

    #[test]
    fn run_is_the_default_and_test_is_check() {
        assert_eq!(parsed(&[]).unwrap().task, Task::Run);
        let command = parsed(&["-t", "-f", "x.yaml"]).unwrap();
        assert_eq!(
            (command.task, command.file()),
            (Task::Check, ("x.yaml".into(), true))
        );
        assert_eq!(
            parsed(&["-d", "/tmp/d"]).unwrap().file(),
            ("/tmp/d/config.yaml".into(), false)
        );
    }

    #[test]
    fn api_takes_a_request_of_two_or_three_words() {
        let command = parsed(&["api", "PUT", "/x", "-f", "y", "{}"]).unwrap();
        assert_eq!(command.task, Task::Api);
        assert_eq!(command.request.body, "{}");
        assert_eq!(parsed(&["api", "GET", "/x"]).unwrap().request.path, "/x");
        let quick = parsed(&["api", "-w", "2", "GET", "/x"]).unwrap();
        assert_eq!(quick.request.seconds, 2);
        assert!(parsed(&["api", "-w", "soon", "GET", "/x"]).is_err());
        assert!(parsed(&["api", "GET"]).is_err());
        assert!(parsed(&["api", "GET", "/", "{}", "more"]).is_err());
    }

    #[test]
    fn an_empty_file_is_no_configuration() {
        let path = std::env::temp_dir().join(format!("headgate-empty-{}", std::process::id()));
        File::create(&path).unwrap();
        let path = path.to_str().unwrap();
        let refused = load(&parsed(&["check", "-f", path]).unwrap());
        std::fs::remove_file(path).unwrap();
        let said = refused.map(|_| ()).unwrap_err().to_string();
        assert_eq!(said, format!("{path}: the file is empty"));
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error() {
        for words in [
            &["sail"][..],
            &["-x"],
            &["run", "run"],
            &["-d"],
            &["--file=x"],
        ] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }
}
