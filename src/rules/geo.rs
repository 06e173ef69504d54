//! GEOSITE, GEOIP and IP-ASN: categories of geodata, and the rules that ask them.
//!
//! A category is a set like those of rule providers, filled from a database that many of them share.
//! It is made when the first rule names it, and only what is named is ever read: [`Geodata`] is
//! the list of these. Which database holds a category, and how it is read, is the provider's.
//!
//! `lan` and `private` are known without a database.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::PayloadError;
use super::ip::Side;
use super::matcher::{Condition, Payload};
use super::rule_set::InSet;
use super::set::{Behavior, NamedSet, RuleSet, RuleSetBuilder, SiteSetBuilder};

/// Bytes of a category's name.
const NAME_MAX: usize = 128;

/// What mihomo calls `lan`: private, loopback, link-local, multicast and unspecified.
const LAN: &[&str] = &[
    "0.0.0.0/32",
    "10.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "::/128",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// Addresses that are not of the public internet (RFC 6890).
const PRIVATE: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/127",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// Names that are not of the public internet (RFC 6761, 6762, 8375, and what routers give out).
const PRIVATE_NAMES: &[&str] = &[
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "test",
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    "254.169.in-addr.arpa",
    "d.f.ip6.arpa",
];

/// What a category is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeoKind {
    /// Names: `GEOSITE`.
    Site,
    /// The addresses of a country: `GEOIP`.
    Country,
    /// The addresses of an autonomous system: `IP-ASN`.
    AutonomousSystem,
}

/// A category that some rule asks for.
pub struct GeoSet {
    /// What it is of.
    pub kind: GeoKind,
    /// The list, the country or the number, in lower case.
    pub name: Box<str>,
    /// Only entries with all of these attributes; of lists alone.
    pub attributes: Box<[Box<str>]>,
    /// What is in it.
    pub set: Arc<NamedSet>,
    /// Whether it is known without a database, which may still know it better.
    pub built_in: bool,
}

/// The categories of one configuration, in the order of their first use. Cheap to clone: all clones
/// are one list.
#[derive(Clone, Default)]
pub struct Geodata(Arc<Mutex<Vec<Arc<GeoSet>>>>);

impl Geodata {
    /// The list `name`, or what of it has the attributes behind `@`.
    #[must_use]
    pub fn site(&self, name: &str) -> Arc<NamedSet> {
        let name = name.to_ascii_lowercase();
        let mut parts = name.split('@');
        let list = parts.next().unwrap_or_default();
        self.get(GeoKind::Site, list, parts.map(Box::from).collect())
    }

    /// The addresses of a country or of another category of that database.
    #[must_use]
    pub fn country(&self, code: &str) -> Arc<NamedSet> {
        let code = code.to_ascii_lowercase();
        self.get(GeoKind::Country, &code, Box::default())
    }

    /// The addresses of an autonomous system.
    #[must_use]
    pub fn autonomous_system(&self, number: u32) -> Arc<NamedSet> {
        let number = number.to_string();
        self.get(GeoKind::AutonomousSystem, &number, Box::default())
    }

    /// Every category in use.
    #[must_use]
    pub fn sets(&self) -> Vec<Arc<GeoSet>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many are in use.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn get(&self, kind: GeoKind, name: &str, attributes: Box<[Box<str>]>) -> Arc<NamedSet> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |set: &&Arc<GeoSet>| {
            set.kind == kind && *set.name == *name && set.attributes == attributes
        };
        if let Some(known) = all.iter().find(same) {
            return Arc::clone(&known.set);
        }
        let (title, behavior) = match kind {
            GeoKind::Site => ("geosite", Behavior::Domain),
            GeoKind::Country => ("geoip", Behavior::IpCidr),
            GeoKind::AutonomousSystem => ("asn", Behavior::IpCidr),
        };
        let mut shown = format!("{title}:{name}");
        for attribute in &attributes {
            shown.push('@');
            shown.push_str(attribute);
        }
        let set = Arc::new(NamedSet::new(&shown, behavior));
        let known = built_in(kind, name).filter(|_| attributes.is_empty());
        let built_in = known.is_some();
        if let Some(known) = known {
            set.replace(Arc::new(known));
        }
        all.push(Arc::new(GeoSet {
            kind,
            name: name.into(),
            attributes,
            set: Arc::clone(&set),
            built_in,
        }));
        set
    }
}

impl fmt::Debug for Geodata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = self.sets();
        f.debug_list()
            .entries(sets.iter().map(|set| set.set.name()))
            .finish()
    }
}

fn built_in(kind: GeoKind, name: &str) -> Option<RuleSet> {
    let prefixes = match (kind, name) {
        (GeoKind::Country, "lan") => LAN,
        (GeoKind::Country, "private") => PRIVATE,
        (GeoKind::Site, "private") => {
            let mut names = SiteSetBuilder::default();
            for name in PRIVATE_NAMES {
                names.push_domain(name).ok()?;
            }
            return Some(names.finish());
        }
        _ => return None,
    };
    let mut addresses = RuleSetBuilder::new(Behavior::IpCidr, &Geodata::default());
    for prefix in prefixes {
        addresses.push(prefix).ok()?;
    }
    Some(addresses.finish())
}

/// Reads `GEOSITE,list`, `GEOSITE,list@attribute`, `GEOSITE,!list`.
pub(super) fn geosite(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let (name, negated) = category(payload.text)?;
    let set = payload.library.geodata().site(name);
    let side = Side::Destination { resolve: false };
    let matcher = InSet::of_category(set, side, negated);
    Ok(Condition::new("GeoSite", payload.text, matcher))
}

/// Reads `GEOIP,code` and `GEOIP,!code`.
pub(super) fn geoip(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let (code, negated) = category(payload.text)?;
    let set = payload.library.geodata().country(code);
    let side = Side::of(payload);
    let kind = match side {
        Side::Destination { .. } => "GeoIP",
        Side::Source => "SrcGeoIP",
    };
    let shown = payload.text.to_ascii_lowercase();
    Ok(Condition::new(
        kind,
        shown,
        InSet::of_category(set, side, negated),
    ))
}

/// Reads `SRC-GEOIP`.
pub(super) fn source_geoip(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    geoip(&Payload {
        source: true,
        ..*payload
    })
}

/// Reads `IP-ASN,number`.
pub(super) fn ip_asn(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let digits = payload.text.bytes().all(|byte| byte.is_ascii_digit());
    let number = payload.text.parse().ok().filter(|_| digits);
    let number = number.ok_or(PayloadError::SystemNumber)?;
    let set = payload.library.geodata().autonomous_system(number);
    let side = Side::of(payload);
    let kind = match side {
        Side::Destination { .. } => "IPASN",
        Side::Source => "SrcIPASN",
    };
    let matcher = InSet::of_category(set, side, false);
    Ok(Condition::new(kind, payload.text, matcher))
}

/// Reads `SRC-IP-ASN`.
pub(super) fn source_ip_asn(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    ip_asn(&Payload {
        source: true,
        ..*payload
    })
}

/// The name of a category, and whether everything else is meant.
fn category(text: &str) -> Result<(&str, bool), PayloadError> {
    let (name, negated) = match text.strip_prefix('!') {
        Some(name) => (name, true),
        None => (text, false),
    };
    let gap = name.split('@').any(str::is_empty);
    if gap || name.len() > NAME_MAX || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PayloadError::Category);
    }
    Ok((name, negated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata, Network};
    use crate::rules::matcher::{Known, Scope, Truth};
    use crate::rules::{Found, Library, RuleError, RuleLine, Rules};

    fn flow(destination: &str) -> Metadata {
        Metadata::new(
            Network::Tcp,
            InboundType::TProxy,
            &Arc::from("in"),
            "192.168.1.2:1000".parse().unwrap(),
            Endpoint::parse(destination).unwrap(),
        )
    }

    #[track_caller]
    fn check(rule: &str, destination: &str, want: Truth) {
        let library = Library::default();
        let line = RuleLine::parse_in(rule, &library).unwrap();
        for geo in library.geodata().sets().iter().filter(|set| !set.built_in) {
            let mut builder = RuleSetBuilder::new(geo.set.behavior(), &Geodata::default());
            let entry = match geo.kind {
                GeoKind::Site => "+.a.org",
                GeoKind::Country => "1.0.0.0/8",
                GeoKind::AutonomousSystem => "2.0.0.0/8",
            };
            builder.push(entry).unwrap();
            geo.set.replace(Arc::new(builder.finish()));
        }
        let flow = flow(destination);
        let truth = line.matcher().truth(&Known::flow(&flow, true));
        assert_eq!(truth, want, "{rule} {destination}");
    }

    #[test]
    fn a_category_is_asked_like_a_set() {
        check("GEOSITE,x,p", "b.a.org:1", Truth::Yes);
        check("GEOSITE,!x,p", "b.a.org:1", Truth::No);
        check("GEOSITE,!x,p", "b.org:1", Truth::Yes);
        check("GEOIP,CN,p", "1.1.1.1:1", Truth::Yes);
        check("GEOIP,!CN,p", "1.1.1.1:1", Truth::No);
        check("GEOIP,!CN,p", "3.1.1.1:1", Truth::Yes);
        check("GEOIP,CN,p", "a.org:1", Truth::Unknown);
        check("GEOIP,!CN,p", "a.org:1", Truth::Unknown);
        check("GEOIP,CN,p,no-resolve", "a.org:1", Truth::No);
        // What has no address is in no country, and not outside one either.
        check("GEOIP,!CN,p,no-resolve", "a.org:1", Truth::No);
        check("IP-ASN,2,p", "2.1.1.1:1", Truth::Yes);
        check("SRC-IP-ASN,2,p", "2.1.1.1:1", Truth::No);
    }

    #[test]
    fn what_is_not_of_the_internet_needs_no_database() {
        check("GEOIP,LAN,p", "192.168.9.9:1", Truth::Yes);
        check("GEOIP,lan,p", "100.64.1.1:1", Truth::No);
        check("GEOIP,lan,p", "a.org:1", Truth::Unknown);
        check("SRC-GEOIP,lan,p", "a.org:1", Truth::Yes);
        check("GEOIP,private,p,src", "a.org:1", Truth::Yes);
        check("GEOIP,private,p", "100.64.1.1:1", Truth::Yes);
        check("GEOIP,private,p", "[fd00::1]:1", Truth::Yes);
        check("GEOSITE,private,p", "printer.lan:1", Truth::Yes);
        check("GEOSITE,private,p", "planet.org:1", Truth::No);
    }

    #[test]
    fn one_category_is_one_set_whoever_asks() {
        let library = Library::default();
        for line in ["GEOIP,CN,p", "GEOIP,cn,q,src", "GEOIP,!cn,p"] {
            RuleLine::parse_in(line, &library).unwrap();
        }
        for line in ["GEOSITE,g,p", "GEOSITE,G@ads,p", "GEOSITE,g@ads@!cn,p"] {
            RuleLine::parse_in(line, &library).unwrap();
        }
        let names: Vec<_> = library.geodata().sets();
        let names: Vec<_> = names.iter().map(|set| set.set.name()).collect();
        let want = [
            "geoip:cn",
            "geosite:g",
            "geosite:g@ads",
            "geosite:g@ads@!cn",
        ];
        assert_eq!(names, want);
    }

    #[test]
    fn a_category_that_is_not_there_matches_nothing_and_leaves_certainty_open() {
        let library = Library::default();
        let lines = ["GEOIP,!cn,P", "GEOSITE,!cn,P", "MATCH,D"];
        let lines = lines.map(|line| RuleLine::parse_in(line, &library).unwrap());
        let rules = Rules::compile(lines);
        assert_eq!(rules.find(&flow("a.org:1"), 0, true), Found::Rule(2));
        assert!(!rules.certainly_direct("a.org", &|i| i == 2));
        let ranges = rules.certainly_direct_ranges(true, true, &|i| i == 2);
        assert!(ranges.is_empty());
    }

    #[test]
    fn all_but_a_country_is_certain_to_be_the_rest() {
        let library = Library::default();
        let line = RuleLine::parse_in("GEOIP,!cn,p", &library).unwrap();
        let mut builder = RuleSetBuilder::new(Behavior::IpCidr, &Geodata::default());
        builder.push("0.0.0.0/1").unwrap();
        let set = library.geodata().country("cn");
        set.replace(Arc::new(builder.finish()));
        let scope = Scope {
            v4: true,
            names_may_appear: true,
        };
        let bounds = line.matcher().bounds(scope);
        let rest = [(0x8000_0000, 0xffff_ffff)];
        assert_eq!(bounds.always.iter().collect::<Vec<_>>(), rest);
        assert_eq!(bounds.possible.iter().collect::<Vec<_>>(), rest);
    }

    #[test]
    fn names_that_no_category_has_are_refused() {
        for line in [
            "GEOSITE,a@,p",
            "GEOSITE,!,p",
            "GEOIP,c n,p",
            "IP-ASN,AS1,p",
            "IP-ASN,-1,p",
        ] {
            assert!(matches!(
                RuleLine::parse(line),
                Err(RuleError::Payload { .. })
            ));
        }
    }
}
