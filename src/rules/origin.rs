//! Who connects: PROCESS-NAME, PROCESS-PATH and their forms, UID, SRC-HOST. The tunnel looks these up
//! when [`super::Rules::needs`] says so.
//!
//! Only the machine's own connections have a program; those of LAN devices match no such rule. The
//! name of a device is what it told the DHCP server.

use regex_lite::Regex;

use super::PayloadError;
use super::domain::{expression, wildcard_matches};
use super::matcher::{Condition, Known, Matcher, Needs, Payload, Truth};
use crate::metadata::Process;

/// Parts of a UID's payload, as many as mihomo takes.
const RANGES_MAX: usize = 28;

/// Which text of a program is compared.
#[derive(Clone, Copy, Debug)]
enum Part {
    Name,
    Path,
}

/// How it is compared; never minding the case.
#[derive(Debug)]
enum Pattern {
    Equal(Box<str>),
    Wildcard(Box<str>),
    Expression(Regex),
}

/// `PROCESS-NAME,curl`.
#[derive(Debug)]
struct Program {
    part: Part,
    pattern: Pattern,
}

impl Program {
    fn is(&self, process: &Process) -> bool {
        let text = match self.part {
            Part::Name => process.name(),
            Part::Path => &process.path,
        };
        match &self.pattern {
            Pattern::Equal(wanted) => !text.is_empty() && text.eq_ignore_ascii_case(wanted),
            Pattern::Wildcard(pattern) => {
                wildcard_matches(pattern.as_bytes(), text.to_ascii_lowercase().as_bytes())
            }
            Pattern::Expression(expression) => expression.is_match(text),
        }
    }
}

impl Matcher for Program {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| metadata.process.as_deref().is_some_and(|p| self.is(p)))
    }

    fn needs(&self) -> Needs {
        Needs {
            process: true,
            ..Needs::default()
        }
    }
}

/// Reads `PROCESS-NAME`.
pub(super) fn process_name(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    Ok(equal("ProcessName", payload, Part::Name))
}

/// Reads `PROCESS-PATH`.
pub(super) fn process_path(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    Ok(equal("ProcessPath", payload, Part::Path))
}

/// Reads `PROCESS-NAME-WILDCARD`.
pub(super) fn process_name_wildcard(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    Ok(wildcard("ProcessNameWildcard", payload, Part::Name))
}

/// Reads `PROCESS-PATH-WILDCARD`.
pub(super) fn process_path_wildcard(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    Ok(wildcard("ProcessPathWildcard", payload, Part::Path))
}

/// Reads `PROCESS-NAME-REGEX`.
pub(super) fn process_name_regex(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    found("ProcessNameRegex", payload, Part::Name)
}

/// Reads `PROCESS-PATH-REGEX`.
pub(super) fn process_path_regex(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    found("ProcessPathRegex", payload, Part::Path)
}

fn equal(kind: &'static str, payload: &Payload<'_>, part: Part) -> Condition {
    let pattern = Pattern::Equal(payload.text.into());
    Condition::new(kind, payload.text, Program { part, pattern })
}

fn wildcard(kind: &'static str, payload: &Payload<'_>, part: Part) -> Condition {
    let pattern = Pattern::Wildcard(payload.text.to_ascii_lowercase().into());
    Condition::new(kind, payload.text, Program { part, pattern })
}

fn found(kind: &'static str, payload: &Payload<'_>, part: Part) -> Result<Condition, PayloadError> {
    let pattern = Pattern::Expression(expression(payload.text)?);
    Ok(Condition::new(
        kind,
        payload.text,
        Program { part, pattern },
    ))
}

/// `UID,1000-1999/65534`: whom the socket belongs to. As in mihomo 0 counts as unknown.
#[derive(Debug)]
struct Uid(Box<[(u32, u32)]>);

impl Matcher for Uid {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| {
            let uid = metadata.process.as_deref().map_or(0, |process| process.uid);
            let mut ranges = self.0.iter();
            uid != 0 && ranges.any(|(first, last)| (*first..=*last).contains(&uid))
        })
    }

    fn needs(&self) -> Needs {
        Needs {
            process: true,
            ..Needs::default()
        }
    }
}

/// Reads `UID`.
pub(super) fn uid(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse::<u32>().ok().filter(|_| digits);
        value.ok_or(PayloadError::Uid)
    };
    let parts = payload.text.split('/').map(str::trim);
    let mut ranges = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        ranges.push((first.min(last), first.max(last)));
    }
    if ranges.is_empty() {
        return Err(PayloadError::Uid);
    }
    if ranges.len() > RANGES_MAX {
        return Err(PayloadError::TooManyRanges);
    }
    Ok(Condition::new("Uid", payload.text, Uid(ranges.into())))
}

/// `SRC-HOST,camera/tv`: the name that the device has in the DHCP leases. headgate's own.
#[derive(Debug)]
struct SourceHost(Box<[Box<str>]>);

impl Matcher for SourceHost {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| {
            let host = metadata.source_host.as_deref();
            let is = |host: &str| self.0.iter().any(|name| name.eq_ignore_ascii_case(host));
            host.is_some_and(is)
        })
    }

    fn needs(&self) -> Needs {
        Needs {
            mac: true,
            host: true,
            process: false,
        }
    }
}

/// Reads `SRC-HOST`.
pub(super) fn source_host(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let names: Vec<&str> = payload.text.split('/').map(str::trim).collect();
    if names.contains(&"") {
        return Err(PayloadError::Empty);
    }
    let names = names.into_iter().map(Box::from).collect();
    Ok(Condition::new("SrcHost", payload.text, SourceHost(names)))
}

/// `REMATCH-NAME`: set by an outbound that headgate does not have, so nothing has one.
#[derive(Debug)]
struct Rematch;

impl Matcher for Rematch {
    fn truth(&self, _: &Known<'_>) -> Truth {
        Truth::No
    }
}

/// Reads `REMATCH-NAME`.
pub(super) fn rematch(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    Ok(Condition::new("RematchName", payload.text, Rematch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata, Network};
    use crate::rules::RuleLine;
    use std::sync::Arc;

    #[track_caller]
    fn check(rule: &str, want: bool) {
        let mut flow = Metadata::new(
            Network::Tcp,
            InboundType::Socks5,
            &Arc::from("in"),
            "127.0.0.1:1000".parse().unwrap(),
            Endpoint::parse("a.b:2000").unwrap(),
        );
        let line = RuleLine::parse(&format!("{rule},p")).unwrap();
        let ask = |flow: &Metadata| line.matcher().truth(&Known::flow(flow, true));
        assert_eq!(ask(&flow), Truth::No, "{rule} of nobody");
        flow.source_host = Some("Cam-1".into());
        flow.process = Some(Arc::new(Process {
            uid: 1000,
            path: "/usr/bin/Curl".into(),
        }));
        assert_eq!(ask(&flow), want.into(), "{rule}");
        assert_eq!(
            line.matcher().truth(&Known::host_alone(None)),
            Truth::Unknown
        );
    }

    #[test]
    fn programs_are_told_by_name_and_path() {
        check("PROCESS-NAME,curl", true);
        check("PROCESS-NAME,cur", false);
        check("PROCESS-PATH,/usr/bin/curl", true);
        check("PROCESS-PATH,/bin/curl", false);
        check("PROCESS-NAME-WILDCARD,c?r*", true);
        check("PROCESS-NAME-WILDCARD,c?r", false);
        check("PROCESS-PATH-WILDCARD,/USR/*", true);
        check("PROCESS-NAME-REGEX,^c.{1,2}l$", true);
        check("PROCESS-PATH-REGEX,^/bin/", false);
    }

    #[test]
    fn users_and_devices_are_told_by_lists() {
        check("UID,1-5/1000", true);
        check("UID,2000-900", true);
        check("UID,0-999", false);
        check("SRC-HOST,tv/cam-1", true);
        check("SRC-HOST,cam", false);
        for bad in ["UID,/,p", "UID,-1,p", "UID,4294967296,p", "SRC-HOST,a//b,p"] {
            assert!(RuleLine::parse(bad).is_err(), "{bad}");
        }
        assert!(RuleLine::parse("PROCESS-NAME-REGEX,(,p").is_err());
    }
}
