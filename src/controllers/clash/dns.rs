//! `GET /dns/query`.

use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::controllers::{Context, DnsQueryError, DnsRecord};

/// The mnemonics that a client may ask for (IANA, DNS parameters).
const TYPES: [(&str, u16); 20] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("LOC", 29),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DS", 43),
    ("SSHFP", 44),
    ("RRSIG", 46),
    ("DNSKEY", 48),
    ("TLSA", 52),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("CAA", 257),
];

/// The Internet class.
const CLASS_IN: u16 = 1;

/// Asks the main resolver.
pub(super) fn query(context: &Context, request: &Request<'_>) -> Response {
    let name = request.query.get("name").unwrap_or_default();
    let kind = request.query.get("type").filter(|kind| !kind.is_empty());
    let kind = kind.as_deref().unwrap_or("A");
    let Some((_, kind)) = TYPES.iter().copied().find(|(known, _)| *known == kind) else {
        return Response::error(400, "invalid query type");
    };
    let answer = match context.control.dns_query(&name, kind) {
        Ok(answer) => answer,
        Err(DnsQueryError::Disabled) => return Response::error(500, "DNS section is disabled"),
        Err(DnsQueryError::Failed(cause)) => return Response::error(500, &cause.to_string()),
    };
    let mut json = Json::new();
    json.open_object().key("Status").plain(answer.status);
    json.key("Question").open_array().open_object();
    json.key("Name").string(&dotted(&name));
    json.key("Qtype").plain(kind).key("Qclass").plain(CLASS_IN);
    json.close_object().close_array();
    json.key("TC").plain(answer.truncated);
    json.key("RD").plain(answer.recursion_desired);
    json.key("RA").plain(answer.recursion_available);
    json.key("AD").plain(answer.authentic);
    json.key("CD").plain(answer.checking_disabled);
    write_section(&mut json, "Answer", &answer.answer);
    write_section(&mut json, "Authority", &answer.authority);
    write_section(&mut json, "Additional", &answer.additional);
    json.close_object();
    Response::json(json)
}

fn write_section(json: &mut Json, section: &str, records: &[DnsRecord]) {
    if records.is_empty() {
        return;
    }
    json.key(section).open_array();
    for record in records {
        json.open_object().key("name").string(&dotted(&record.name));
        json.key("type")
            .plain(record.kind)
            .key("TTL")
            .plain(record.ttl);
        json.key("data").string(&record.data).close_object();
    }
    json.close_array();
}

fn dotted(name: &str) -> String {
    format!("{}.", name.strip_suffix('.').unwrap_or(name))
}
