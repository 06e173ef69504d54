//! IN-TYPE, IN-NAME and IN-USER: how a flow came in. Each takes a list joined by `/`.

use super::PayloadError;
use super::matcher::{Condition, Known, Matcher, Payload, Truth};
use crate::metadata::InboundType;

/// What a user may write for `IN-TYPE`, and the inbounds it names. Those that headgate does not
/// have are taken and match nothing, so that a list written for mihomo loads.
const INBOUND_TYPES: &[(&str, &[InboundType])] = &[
    ("HTTP", &[InboundType::Http]),
    ("HTTPS", &[InboundType::Https]),
    ("SOCKS", &[InboundType::Socks4, InboundType::Socks5]),
    ("SOCKS4", &[InboundType::Socks4]),
    ("SOCKS5", &[InboundType::Socks5]),
    ("REDIR", &[InboundType::Redir]),
    ("TPROXY", &[InboundType::TProxy]),
    ("INNER", &[InboundType::Inner]),
    ("ANYTLS", &[]),
    ("HYSTERIA2", &[]),
    ("SHADOWSOCKS", &[InboundType::Shadowsocks]),
    ("TROJAN", &[InboundType::Trojan]),
    ("TUIC", &[]),
    ("TUN", &[]),
    ("TUNNEL", &[InboundType::Tunnel]),
    ("VLESS", &[InboundType::Vless]),
    ("VMESS", &[InboundType::Vmess]),
];

/// `IN-TYPE,SOCKS/HTTP`.
#[derive(Debug)]
struct Kind(Box<[InboundType]>);

impl Matcher for Kind {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| self.0.contains(&metadata.inbound_type))
    }
}

/// Reads `IN-TYPE`, in any case.
pub(super) fn kind(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let mut types = Vec::new();
    for part in parts(payload)? {
        let row = INBOUND_TYPES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(part))
            .ok_or_else(|| PayloadError::InboundType(part.into()))?;
        types.extend_from_slice(row.1);
    }
    let shown = payload.text.to_ascii_uppercase();
    Ok(Condition::new("InType", shown, Kind(types.into())))
}

/// `IN-NAME,lan/guest`: the listener's name, exactly.
#[derive(Debug)]
struct Name(Box<[Box<str>]>);

impl Matcher for Name {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| self.0.iter().any(|name| **name == *metadata.inbound))
    }
}

/// Reads `IN-NAME`.
pub(super) fn name(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let names = parts(payload)?.into_iter().map(Box::from).collect();
    Ok(Condition::new("InName", payload.text, Name(names)))
}

/// `IN-USER,mallory/trent`: who logged in at the listener, exactly.
#[derive(Debug)]
struct User(Box<[Box<str>]>);

impl Matcher for User {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| {
            let user = metadata.inbound_user.as_deref();
            user.is_some_and(|user| self.0.iter().any(|name| **name == *user))
        })
    }
}

/// Reads `IN-USER`.
pub(super) fn user(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let names = parts(payload)?.into_iter().map(Box::from).collect();
    Ok(Condition::new("InUser", payload.text, User(names)))
}

fn parts<'a>(payload: &Payload<'a>) -> Result<Vec<&'a str>, PayloadError> {
    let parts: Vec<&str> = payload.text.split('/').map(str::trim).collect();
    if parts.contains(&"") {
        return Err(PayloadError::Empty);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, Metadata, Network};
    use crate::rules::{RuleError, RuleLine};
    use std::sync::Arc;

    fn flow() -> Metadata {
        let mut flow = Metadata::new(
            Network::Tcp,
            InboundType::Socks5,
            &Arc::from("lan"),
            "10.0.0.1:1000".parse().unwrap(),
            Endpoint::parse("a.b:2000").unwrap(),
        );
        flow.inbound_user = Some("Mallory".into());
        flow
    }

    #[track_caller]
    fn check(rule: &str, want: Truth) {
        let line = RuleLine::parse(rule).unwrap();
        assert_eq!(
            line.matcher().truth(&Known::flow(&flow(), true)),
            want,
            "{rule}"
        );
    }

    #[test]
    fn one_of_the_list_is_enough() {
        check("IN-TYPE,http/socks,p", Truth::Yes);
        check("IN-TYPE,SOCKS5,p", Truth::Yes);
        check("IN-TYPE,SOCKS4/TUN,p", Truth::No);
        check("IN-NAME,guest / lan,p", Truth::Yes);
        check("IN-NAME,LAN,p", Truth::No);
        check("IN-USER,trent/Mallory,p", Truth::Yes);
        check("IN-USER,mallory,p", Truth::No);
    }

    #[test]
    fn without_a_login_no_user_matches() {
        let mut flow = flow();
        flow.inbound_user = None;
        let line = RuleLine::parse("IN-USER,Mallory,p").unwrap();
        assert_eq!(line.matcher().truth(&Known::flow(&flow, true)), Truth::No);
    }

    #[test]
    fn empty_parts_and_unknown_types_are_refused() {
        let why = |rule: &str| match RuleLine::parse(rule) {
            Err(RuleError::Payload { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why("IN-NAME,a//b,p"), PayloadError::Empty);
        assert_eq!(why("IN-USER,a/,p"), PayloadError::Empty);
        let unknown = PayloadError::InboundType("FTP".into());
        assert_eq!(why("IN-TYPE,HTTP/FTP,p"), unknown);
    }
}
