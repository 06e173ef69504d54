//! What a proxy provider's source holds: YAML with `proxies` (a whole Clash configuration, of which
//! nothing else is looked at), or share links, one a line, plain or in base64 (clash-api.md 3.10).
//!
//! A provider may bring nodes and nothing else (users.md S14, S17): what a node says of interfaces,
//! marks, other proxies and unchecked certificates counts only where the configuration itself says so
//! in `override`. An entry that is no node that we speak is passed over.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use regex_lite::Regex;

use super::decode::Cursor;
use super::error::{ConfigError, Reason, Warnings};
use super::proxies;
use super::yaml::Tree;
use crate::outbound::IpVersion;
use crate::outbound::link;
use crate::outbound::name_filter::NameFilter;
use crate::outbound::options::{DialOptions, ProxyOptions};
use crate::provider::proxy::{NoNodes, Parsed, ReadNodes};

/// Nodes of one provider; further ones are passed over.
const NODES_MAX: usize = 2048;

/// Characters of a node's name.
const NAME_MAX: usize = 200;

/// `override`.
#[derive(Default)]
pub(super) struct Overrides {
    pub(super) udp: Option<bool>,
    pub(super) fast_open: Option<bool>,
    pub(super) skip_verify: Option<bool>,
    pub(super) dialer_proxy: Option<Box<str>>,
    pub(super) interface: Option<Box<str>>,
    pub(super) mark: Option<u32>,
    pub(super) ip_version: Option<IpVersion>,
    pub(super) prefix: Box<str>,
    pub(super) suffix: Box<str>,
    /// `proxy-name`: what matches, and what stands in its place.
    pub(super) names: Vec<(Regex, Box<str>)>,
}

/// How a provider's source is read.
#[derive(Default)]
pub(super) struct Subscription {
    pub(super) filter: Vec<NameFilter>,
    pub(super) exclude: Vec<NameFilter>,
    /// `exclude-type`: as the configuration names types, in lower case.
    pub(super) exclude_types: Vec<Box<str>>,
    pub(super) overrides: Overrides,
}

impl ReadNodes for Subscription {
    fn read(&self, text: &str) -> Result<Parsed, NoNodes> {
        let mut parsed = match self.clash(text) {
            Err(NoNodes::NotAList) => self.links(&decoded(text))?,
            read => read?,
        };
        self.choose(&mut parsed.nodes);
        if parsed.nodes.is_empty() {
            return Err(NoNodes::Empty);
        }
        Ok(parsed)
    }
}

/// The entries that were read so far.
#[derive(Default)]
struct Reading {
    parsed: Parsed,
    names: HashSet<Box<str>>,
}

impl Reading {
    fn push(&mut self, entry: Result<ProxyOptions, String>) {
        let entry = entry.and_then(|node| {
            let fits = node.name.chars().count() <= NAME_MAX
                && self.parsed.nodes.len() < NODES_MAX
                && self.names.insert(node.name.clone());
            fits.then_some(node)
                .ok_or_else(|| "its name is long or taken, or there are too many".to_owned())
        });
        match entry {
            Ok(node) => self.parsed.nodes.push(node),
            Err(why) => {
                self.parsed.skipped += 1;
                self.parsed.first_skipped.get_or_insert(why);
            }
        }
    }
}

impl Subscription {
    /// The nodes of a Clash configuration, none of a name that was there before.
    fn clash(&self, text: &str) -> Result<Parsed, NoNodes> {
        let tree = Tree::parse(text).map_err(|_| NoNodes::NotAList)?;
        let root = Cursor::root(&tree).weak();
        let mut section = root.section().map_err(|_| NoNodes::NotAList)?;
        let list = section.take("proxies").ok_or(NoNodes::NotAList)?;
        let mut reading = Reading::default();
        for item in list.items().map_err(|_| NoNodes::NotAList)? {
            reading.push(self.node(&item));
        }
        Ok(reading.parsed)
    }

    /// The nodes of a list of links; lines that are none are no entries.
    fn links(&self, text: &str) -> Result<Parsed, NoNodes> {
        let (mut reading, mut any) = (Reading::default(), false);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let Some((scheme, _)) = line.split_once("://") else {
                continue;
            };
            any = true;
            reading.push(match link::parse(line) {
                _ if self.excludes(scheme) => Err("its type is excluded".to_owned()),
                Ok(node) => Ok(restrained(node)),
                Err(why) => Err(format!("line {}: {why}", number + 1)),
            });
        }
        if any {
            Ok(reading.parsed)
        } else {
            Err(NoNodes::NotAList)
        }
    }

    fn excludes(&self, kind: &str) -> bool {
        let mut excluded = self.exclude_types.iter();
        excluded.any(|known| known.eq_ignore_ascii_case(kind))
    }

    fn node(&self, item: &Cursor<'_>) -> Result<ProxyOptions, String> {
        // What has no effect in a subscription is nobody's to mend.
        let mut warnings = Warnings::default();
        let weak = item.weak();
        let mut section = weak.section().map_err(told)?;
        let kind = section.text("type").map_err(told)?.unwrap_or_default();
        if self.excludes(&kind) {
            return Err("its type is excluded".to_owned());
        }
        let node = proxies::decode(item, &mut warnings).map_err(told)?;
        Ok(restrained(node))
    }

    /// Leaves out what the filters leave out, in the order that they give, and applies `override`.
    pub(super) fn choose(&self, nodes: &mut Vec<ProxyOptions>) {
        nodes.retain(|node| !self.exclude.iter().any(|filter| filter.matches(&node.name)));
        if !self.filter.is_empty() {
            let mut left: Vec<Option<ProxyOptions>> = nodes.drain(..).map(Some).collect();
            for filter in &self.filter {
                for place in &mut left {
                    if place
                        .as_ref()
                        .is_some_and(|node| filter.matches(&node.name))
                    {
                        nodes.extend(place.take());
                    }
                }
            }
        }
        let mut names = HashSet::new();
        nodes.retain_mut(|node| {
            self.overrides.apply(node);
            names.insert(node.name.clone())
        });
    }
}

/// The node without what only the owner of the router may say.
fn restrained(mut node: ProxyOptions) -> ProxyOptions {
    let dial = std::mem::take(&mut node.dial);
    node.dial = DialOptions {
        ip_version: dial.ip_version,
        fast_open: dial.fast_open,
        ..DialOptions::default()
    };
    if let Some(tls) = node.protocol.tls_mut() {
        // A pinned certificate is checked, by its pin.
        tls.skip_verify = false;
    }
    node
}

/// What a text in base64 holds, with or without padding and line breaks; any other as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    let mut bytes: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    while bytes.last() == Some(&b'=') {
        bytes.pop();
    }
    let plain = BASE64_NOPAD.decode(&bytes);
    let plain = plain.or_else(|_| BASE64URL_NOPAD.decode(&bytes));
    match plain {
        Ok(plain) if !plain.is_empty() => Cow::Owned(String::from_utf8_lossy(&plain).into_owned()),
        _ => Cow::Borrowed(text),
    }
}

/// The place and the kind of a mistake; most values are the subscription's secrets.
fn told(error: ConfigError) -> String {
    let ConfigError { path, reason, .. } = error;
    match reason {
        Reason::Value { expected, .. } | Reason::Kind { expected, .. } => {
            format!("{path}: expected {expected}")
        }
        Reason::Unknown(..) | Reason::NotImplemented(_) | Reason::Missing => {
            format!("{path}: {reason}")
        }
        _ => format!("{path}: not what it should be"),
    }
}

impl Overrides {
    fn apply(&self, node: &mut ProxyOptions) {
        node.udp = self.udp.unwrap_or(node.udp);
        let dial = &mut node.dial;
        dial.fast_open = self.fast_open.unwrap_or(dial.fast_open);
        dial.mark = self.mark.unwrap_or(dial.mark);
        dial.ip_version = self.ip_version.unwrap_or(dial.ip_version);
        dial.interface.clone_from(&self.interface);
        dial.dialer_proxy.clone_from(&self.dialer_proxy);
        if let (Some(skip), Some(tls)) = (self.skip_verify, node.protocol.tls_mut()) {
            tls.skip_verify = skip;
        }
        let mut name = format!("{}{}{}", self.prefix, node.name, self.suffix);
        for (pattern, target) in &self.names {
            name = pattern.replace_all(&name, &**target).into_owned();
        }
        node.name = name.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASH: &str = "
mixed-port: 1
external-controller: 0.0.0.0:9090
proxies:
  - {name: HK 1, type: ss, server: a.example, port: 1, cipher: aes-128-gcm, password: p, interface-name: eth9, routing-mark: 7}
  - {name: JP 1, type: trojan, server: b.example, port: '443', password: p, skip-cert-verify: true, dialer-proxy: HK 1}
  - {name: new, type: hysteria9, server: c.example, port: 1}
  - {name: HK 1, type: socks5, server: d.example, port: 1}
  - {name: broken, type: socks5, server: d.example, port: 99999}
  - {name: HK 2, type: http, server: e.example, port: 1}
rules: [nonsense]
";

    fn names(parsed: &Parsed) -> Vec<&str> {
        parsed.nodes.iter().map(|node| &*node.name).collect()
    }

    #[test]
    fn a_clash_configuration_brings_its_nodes_and_nothing_else() {
        let parsed = Subscription::default().read(CLASH).unwrap();
        assert_eq!(names(&parsed), ["HK 1", "JP 1", "HK 2"]);
        assert_eq!(parsed.skipped, 3);
        let why = parsed.first_skipped.as_deref().unwrap();
        assert!(why.starts_with("proxies[2].type: "), "{why}");
        for node in &parsed.nodes {
            assert_eq!((node.dial.mark, &node.dial.interface), (0, &None));
            assert_eq!(node.dial.dialer_proxy, None);
        }
        let mut trojan = parsed.nodes[1].clone();
        assert!(!trojan.protocol.tls_mut().unwrap().skip_verify);
    }

    #[test]
    fn filters_order_and_overrides_rename() {
        let list = |text| NameFilter::parse_list(text).unwrap();
        let subscription = Subscription {
            filter: list("JP`HK"),
            exclude: list("2$"),
            exclude_types: vec!["http".into()],
            overrides: Overrides {
                skip_verify: Some(true),
                udp: Some(true),
                mark: Some(9),
                dialer_proxy: Some("via".into()),
                prefix: "<".into(),
                suffix: ">".into(),
                names: vec![(Regex::new("([A-Z]+) 1").unwrap(), "$1-one".into())],
                ..Overrides::default()
            },
        };
        let parsed = subscription.read(CLASH).unwrap();
        assert_eq!(names(&parsed), ["<JP-one>", "<HK-one>"]);
        let mut trojan = parsed.nodes[0].clone();
        assert!(trojan.udp && trojan.protocol.tls_mut().unwrap().skip_verify);
        assert_eq!(trojan.dial.dialer_proxy.as_deref(), Some("via"));
        assert_eq!(trojan.dial.mark, 9);
    }

    #[test]
    fn links_come_plain_and_in_base64() {
        let links = "\u{feff}# mine\r\nss://YWVzLTEyOC1nY206cA@a.example:1#HK%201\r\n\
            trojan://p@b.example:443?allowInsecure=1#JP\nteleport://x\nss://YWVz#bad\n";
        let base64 = crate::encoding::BASE64.encode(links.as_bytes());
        let wrapped: String = base64
            .as_bytes()
            .chunks(20)
            .map(|line| format!("{}\n", std::str::from_utf8(line).unwrap()))
            .collect();
        let bare = base64
            .trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_");
        for text in [links, &*base64, &*wrapped, &*bare] {
            let mut parsed = Subscription::default().read(text).unwrap();
            assert_eq!(names(&parsed), ["HK 1", "JP"]);
            assert_eq!(parsed.skipped, 2);
            let trojan = &mut parsed.nodes[1];
            assert!(!trojan.protocol.tls_mut().unwrap().skip_verify);
        }
    }

    #[test]
    fn what_has_no_nodes_is_refused_without_telling_its_content() {
        for (text, want) in [
            ("", NoNodes::NotAList),
            ("<html>secret</html>", NoNodes::NotAList),
            ("proxies: 1", NoNodes::Empty),
            ("proxies: []", NoNodes::Empty),
            ("proxies: [{name: a, type: nonsense}]", NoNodes::Empty),
            ("rules: [a]", NoNodes::NotAList),
        ] {
            let got = Subscription::default().read(text);
            assert_eq!(got.err(), Some(want), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Subscription::default().read(&text);
            let _ = Subscription::default().read(&format!("proxies:\n - {text}"));
        }
    }
}
