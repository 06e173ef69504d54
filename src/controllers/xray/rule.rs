//! Xray's routing rules as lines of `rules:` (xray-api.md 2.5 and 5.3).
//!
//! Pure. A condition with several values becomes several lines where it stands alone, which are searched
//! at once, and OR within AND otherwise. What headgate has no rule for is refused: a rule without one of
//! its conditions would match more than was asked for.

use super::protobuf::{Field, Malformed};
use super::status::Status;
use super::typed::{address, ports};

/// A rule in mihomo's words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `rule_tag`, or empty.
    pub tag: String,
    /// The outbound or balancer that it leads to.
    pub target: String,
    /// Whether the target is a balancer.
    pub balanced: bool,
    /// Lines of `rules:`.
    pub lines: Vec<String>,
}

/// A group as `BalancingRule` describes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Balancer {
    /// `tag`.
    pub tag: String,
    /// `outbound_selector`: beginnings of names.
    pub selectors: Vec<String>,
    /// `strategy`.
    pub strategy: String,
    /// `fallback_tag`, or empty.
    pub fallback: String,
}

fn unsupported(what: &str) -> Status {
    Status::unknown(format!("headgate has no rule for {what}"))
}

/// Reads `xray.app.router.RoutingRule`.
///
/// # Errors
/// A condition that cannot be had here, or none at all.
pub fn rule(field: &Field<'_>) -> Result<Rule, Status> {
    let mut rule = Rule::default();
    let mut conditions = Conditions::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 | 12 => {
                rule.target = word(field.text()?)?.to_owned();
                rule.balanced = field.number == 12;
            }
            2 => conditions.push(2, domain(&field)?),
            7 => conditions.push(7, plain("IN-USER", field.text()?)?),
            8 => conditions.push(8, plain("IN-NAME", field.text()?)?),
            9 => return Err(unsupported("protocol")),
            10 => conditions.push(10, ip("IP-CIDR", "GEOIP", &field)?),
            11 => conditions.push(11, ip("SRC-IP-CIDR", "SRC-GEOIP", &field)?),
            13 => networks(&field, &mut conditions)?,
            14 => port_list("DST-PORT", &field, &mut conditions)?,
            15 => return Err(unsupported("attributes")),
            16 => port_list("SRC-PORT", &field, &mut conditions)?,
            17 => return Err(unsupported("localIP")),
            18 => port_list("IN-PORT", &field, &mut conditions)?,
            19 => rule.tag = word(field.text()?)?.to_owned(),
            20 => return Err(unsupported("vlessRoute")),
            21 => conditions.push(21, process(field.text()?)?),
            22 => return Err(unsupported("webhook")),
            23 => return Err(unsupported("localOS")),
            _ => {}
        }
    }
    if rule.target.is_empty() {
        return Err(Status::unknown(
            "a rule needs an outboundTag or a balancerTag",
        ));
    }
    rule.lines = conditions.lines(&rule.target)?;
    Ok(rule)
}

/// Reads `xray.app.router.BalancingRule`.
///
/// # Errors
/// No such message.
pub fn balancer(field: &Field<'_>) -> Result<Balancer, Malformed> {
    let mut balancer = Balancer::default();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => field.text()?.clone_into(&mut balancer.tag),
            2 => balancer.selectors.push(field.text()?.to_owned()),
            3 => balancer.strategy = field.text()?.to_ascii_lowercase(),
            5 => field.text()?.clone_into(&mut balancer.fallback),
            _ => {}
        }
    }
    Ok(balancer)
}

/// A text that can stand in a rule's line without ending its field.
fn word(text: &str) -> Result<&str, Status> {
    let breaks = |c: char| matches!(c, ',' | '(' | ')' | '/') || c.is_control();
    if text.trim() != text || text.contains(breaks) {
        return Err(Status::unknown(format!("{text:?} cannot stand in a rule")));
    }
    Ok(text)
}

fn plain(kind: &str, text: &str) -> Result<String, Status> {
    if text.is_empty() || text.starts_with("regexp:") {
        return Err(unsupported(&format!("{text:?}")));
    }
    Ok(format!("{kind},{}", word(text)?))
}

/// A program: a path, or the name of its file.
fn process(text: &str) -> Result<String, Status> {
    if text.ends_with('/') {
        return Err(unsupported("a folder of programs"));
    }
    let kind = match text.starts_with('/') {
        true => "PROCESS-PATH",
        false => "PROCESS-NAME",
    };
    let breaks = |c: char| matches!(c, ',' | '(' | ')') || c.is_control();
    if text.is_empty() || text.trim() != text || text.contains(breaks) {
        return Err(Status::unknown(format!("{text:?} cannot stand in a rule")));
    }
    Ok(format!("{kind},{text}"))
}

/// The conditions of one rule by their field's number, each with its alternatives.
#[derive(Default)]
struct Conditions(Vec<(u32, Vec<String>)>);

impl Conditions {
    fn push(&mut self, number: u32, alternative: String) {
        match self.0.iter_mut().find(|(known, _)| *known == number) {
            Some((_, alternatives)) => alternatives.push(alternative),
            None => self.0.push((number, vec![alternative])),
        }
    }

    fn lines(&self, target: &str) -> Result<Vec<String>, Status> {
        match self.0.as_slice() {
            [] => Err(Status::unknown("this rule has no effective fields")),
            [(_, alternatives)] => {
                let lines = alternatives.iter().map(|one| format!("{one},{target}"));
                Ok(lines.collect())
            }
            several => {
                let parts = several
                    .iter()
                    .map(|(_, alternatives)| match alternatives.as_slice() {
                        [one] => format!("({one})"),
                        many => {
                            let parts: Vec<_> = many.iter().map(|one| format!("({one})")).collect();
                            format!("(OR,({}))", parts.join(","))
                        }
                    });
                let parts: Vec<_> = parts.collect();
                Ok(vec![format!("AND,({}),{target}", parts.join(","))])
            }
        }
    }
}

/// A `DomainRule`; before 26.4.13 a `Domain` stood there itself.
fn domain(field: &Field<'_>) -> Result<String, Status> {
    let mut nested = None;
    for inner in field.message()? {
        let inner = inner?;
        match inner.number {
            1 if inner.bytes().is_ok() => return geosite(&inner),
            2 if text_of_domain(&inner).is_some() => nested = Some(inner),
            _ => {}
        }
    }
    let (kind, value) = match nested {
        Some(inner) => text_of_domain(&inner),
        None => text_of_domain(field),
    }
    .ok_or_else(|| Status::unknown("a domain condition without a domain"))?;
    let name = match kind {
        0 => "DOMAIN-KEYWORD",
        1 => {
            if value.chars().any(char::is_control) {
                return Err(Status::unknown(format!("{value:?} cannot stand in a rule")));
            }
            return Ok(format!("DOMAIN-REGEX,{value}"));
        }
        2 => "DOMAIN-SUFFIX",
        3 => "DOMAIN",
        other => return Err(unsupported(&format!("domain type {other}"))),
    };
    Ok(format!("{name},{}", word(value)?))
}

/// A `GeoSiteRule`: a list, of which entries with all of some attributes.
fn geosite(field: &Field<'_>) -> Result<String, Status> {
    let (mut code, mut attributes) = ("", "");
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => known_file(field.text()?, "geosite.dat")?,
            2 => code = field.text()?,
            3 => attributes = field.text()?,
            _ => {}
        }
    }
    let mark = if attributes.is_empty() { "" } else { "@" };
    let list = format!("{code}{mark}{attributes}").to_ascii_lowercase();
    plain("GEOSITE", &list)
}

/// A `GeoIPRule`: a country, or all others.
fn geoip(kind: &str, field: &Field<'_>) -> Result<String, Status> {
    let (mut code, mut reverse) = ("", false);
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => known_file(field.text()?, "geoip.dat")?,
            2 => code = field.text()?,
            3 => reverse = field.boolean()?,
            _ => {}
        }
    }
    let line = plain(kind, &code.to_ascii_lowercase())?;
    Ok(if reverse {
        format!("NOT,(({line}))")
    } else {
        line
    })
}

/// Geodata has one file of each kind here.
fn known_file(name: &str, ours: &str) -> Result<(), Status> {
    if name.is_empty() || name.eq_ignore_ascii_case(ours) {
        return Ok(());
    }
    Err(unsupported(&format!("the file {name:?}")))
}

/// Type and value of a `Domain`; `None`: it is none.
fn text_of_domain<'a>(field: &Field<'a>) -> Option<(u64, &'a str)> {
    let (mut kind, mut value) = (0, "");
    for field in field.message().ok()? {
        let field = field.ok()?;
        match field.number {
            1 => kind = field.integer().ok()?,
            2 => value = field.text().ok()?,
            _ => {}
        }
    }
    (!value.is_empty()).then_some((kind, value))
}

/// An `IPRule`: a range, or a country.
fn ip(kind: &str, country: &str, field: &Field<'_>) -> Result<String, Status> {
    let (mut range, mut reverse) = (None, false);
    for field in field.message()? {
        let field = field?;
        if field.number == 1 {
            return geoip(country, &field);
        }
        for field in field.message()? {
            let field = field?;
            match field.number {
                1 => range = Some(cidr(&field)?),
                2 => reverse = field.boolean()?,
                _ => {}
            }
        }
    }
    let range = range.ok_or_else(|| Status::unknown("an address condition without a range"))?;
    Ok(if reverse {
        format!("NOT,(({kind},{range}))")
    } else {
        format!("{kind},{range}")
    })
}

fn cidr(field: &Field<'_>) -> Result<String, Status> {
    let (mut ip, mut prefix) = (None, 0);
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => ip = Some(address(field.bytes()?)?),
            2 => prefix = field.short()?,
            _ => {}
        }
    }
    let ip = ip.ok_or_else(|| Status::unknown("a range without an address"))?;
    Ok(format!("{ip}/{prefix}"))
}

fn networks(field: &Field<'_>, conditions: &mut Conditions) -> Result<(), Status> {
    let mut numbers = Vec::new();
    field.push_shorts(&mut numbers)?;
    for number in numbers {
        let network = match number {
            2 => "tcp",
            3 => "udp",
            _ => return Err(unsupported("this network")),
        };
        conditions.push(13, format!("NETWORK,{network}"));
    }
    Ok(())
}

fn port_list(kind: &str, field: &Field<'_>, conditions: &mut Conditions) -> Result<(), Status> {
    for (from, to) in ports(field)? {
        conditions.push(field.number, format!("{kind},{from}-{to}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::{Fields, Message};
    use crate::rules::RuleLine;

    fn read(rule: &Message) -> Result<Vec<String>, String> {
        let mut outer = Message::default();
        outer.message(1, rule);
        let field = Fields::new(outer.as_bytes()).next().unwrap().unwrap();
        let lines = super::rule(&field).map_err(|status| status.message)?.lines;
        // The engine takes what is made here.
        lines
            .iter()
            .for_each(|line| drop(RuleLine::parse(line).unwrap()));
        Ok(lines)
    }

    fn domain(kind: u64, value: &str) -> Message {
        let (mut domain, mut rule) = (Message::default(), Message::default());
        domain.integer(1, kind).text(2, value);
        rule.message(2, &domain);
        rule
    }

    fn range(number: u32, bytes: &[u8], prefix: u64, reverse: u64) -> Message {
        let (mut cidr, mut custom, mut rule) =
            (Message::default(), Message::default(), Message::default());
        cidr.bytes(1, bytes).integer(2, prefix);
        custom.message(1, &cidr).integer(2, reverse);
        rule.message(number, &custom);
        rule
    }

    #[test]
    fn one_condition_is_a_line_for_each_of_its_values() {
        let mut rule = Message::default();
        rule.text(1, "node");
        for (kind, value) in [(0, "key"), (1, "^a,(b)$"), (2, "example.org"), (3, "a.b")] {
            rule.message(2, &domain(kind, value));
        }
        let want = [
            "DOMAIN-KEYWORD,key,node",
            "DOMAIN-REGEX,^a,(b)$,node",
            "DOMAIN-SUFFIX,example.org,node",
            "DOMAIN,a.b,node",
        ];
        assert_eq!(read(&rule).unwrap(), want);
        // As clients before 26.4.13 sent it.
        let mut older = Message::default();
        let (mut bare, mut text) = (Message::default(), Message::default());
        bare.integer(1, 3).text(2, "a.b");
        text.text(2, "key");
        older.text(1, "node").message(2, &bare).message(2, &text);
        let want = ["DOMAIN,a.b,node", "DOMAIN-KEYWORD,key,node"];
        assert_eq!(read(&older).unwrap(), want);
    }

    #[test]
    fn several_conditions_hold_together() {
        let (mut rule, mut ports, mut port) =
            (Message::default(), Message::default(), Message::default());
        port.integer(1, 80).integer(2, 90);
        ports.message(1, &port);
        rule.text(12, "balanced")
            .text(19, "tag")
            .message(14, &ports)
            .bytes(13, &[2, 3]);
        rule.message(11, &range(2, &[10, 0, 0, 0], 8, 0));
        rule.message(10, &range(2, &[192, 0, 2, 0], 24, 1));
        let want = "AND,((DST-PORT,80-90),(OR,((NETWORK,tcp),(NETWORK,udp))),\
                    (SRC-IP-CIDR,10.0.0.0/8),(NOT,((IP-CIDR,192.0.2.0/24)))),balanced";
        assert_eq!(read(&rule).unwrap(), [want]);
    }

    #[test]
    fn a_value_cannot_become_another_condition() {
        for text in ["x),(DST-PORT,1", "a,b", "a\nb", " a", ""] {
            let mut rule = Message::default();
            rule.text(1, "node").item(8, text.as_bytes());
            assert!(read(&rule).is_err(), "{text}");
        }
        let mut target = Message::default();
        target.text(1, "a,no-resolve").text(8, "in");
        assert!(read(&target).is_err());
    }

    #[test]
    fn what_cannot_be_had_and_what_says_nothing_is_refused() {
        let mut nothing = Message::default();
        nothing.text(1, "node");
        assert_eq!(
            read(&nothing).unwrap_err(),
            "this rule has no effective fields"
        );
        let mut protocol = nothing.clone();
        protocol.text(9, "bittorrent").text(8, "in");
        assert_eq!(
            read(&protocol).unwrap_err(),
            "headgate has no rule for protocol"
        );
        let mut program = nothing.clone();
        program.text(21, "/usr/bin/curl").text(21, "wget");
        let want = ["PROCESS-PATH,/usr/bin/curl,node", "PROCESS-NAME,wget,node"];
        assert_eq!(read(&program).unwrap(), want);
        let mut geo = nothing.clone();
        geo.message(2, &{
            let (mut site, mut rule) = (Message::default(), Message::default());
            site.text(1, "other.dat").text(2, "CN");
            rule.message(1, &site);
            rule
        });
        let want = "headgate has no rule for the file \"other.dat\"";
        assert_eq!(read(&geo).unwrap_err(), want);
    }

    #[test]
    fn lists_and_countries_are_geodatas() {
        let rule = |number: u32, file: &str, code: &str, more: &dyn Fn(&mut Message)| {
            let (mut outer, mut rule, mut geo) =
                (Message::default(), Message::default(), Message::default());
            geo.text(1, file).text(2, code);
            more(&mut geo);
            rule.message(1, &geo);
            outer.text(1, "node").message(number, &rule);
            read(&outer)
        };
        let site = rule(2, "geosite.dat", "CN", &|_| {});
        assert_eq!(site.unwrap(), ["GEOSITE,cn,node"]);
        let ads = rule(2, "", "GOOGLE", &|geo| {
            geo.text(3, "ads");
        });
        assert_eq!(ads.unwrap(), ["GEOSITE,google@ads,node"]);
        let country = rule(10, "geoip.dat", "DE", &|_| {});
        assert_eq!(country.unwrap(), ["GEOIP,de,node"]);
        let others = rule(11, "geoip.dat", "DE", &|geo| {
            geo.integer(3, 1);
        });
        assert_eq!(others.unwrap(), ["NOT,((SRC-GEOIP,de)),node"]);
        assert!(rule(2, "", "a,b", &|_| {}).is_err());
        assert!(rule(10, "", "", &|_| {}).is_err());
    }
}
