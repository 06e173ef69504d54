//! Writing messages: our own answers, stored answers made fit for a client, queries to upstreams.

use std::net::IpAddr;

use crate::prefix::Prefix;

use super::record::Answer;
use super::{
    CLASS_IN, HEADER_BYTES, NAME_BYTES_MAX, Name, PAYLOAD_BYTES, Query, Question, flags, rcode,
    types,
};

/// A pointer to the question's name: it stands right behind the header.
const QUESTION_POINTER: u16 = 0xc00c;

/// How an answer travels, which decides how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream with a length before each message.
    Tcp,
}

/// Begins an answer without records: header and the question as the client spelled it.
pub fn start(query: &Query<'_>, code: u8, out: &mut Vec<u8>) {
    out.clear();
    let head = query.bytes.get(..query.question_end).unwrap_or_default();
    out.extend_from_slice(head);
    put_u16(out, 2, reply_flags(query, u16::from(code)));
    for (at, count) in [(4, 1), (6, 0), (8, 0), (10, 0)] {
        put_u16(out, at, count);
    }
}

/// Adds an A or AAAA record. `owner`: pointer from [`push_cname`], or `None` for the question's name.
pub fn push_address(out: &mut Vec<u8>, owner: Option<u16>, address: IpAddr, ttl: u32) {
    match address {
        IpAddr::V4(v4) => push_record(out, owner, types::A, ttl, &v4.octets()),
        IpAddr::V6(v6) => push_record(out, owner, types::AAAA, ttl, &v6.octets()),
    }
}

/// Adds an alias of the question's name; gives the pointer to the alias, for the records that follow.
#[must_use]
pub fn push_cname(out: &mut Vec<u8>, target: &Name, ttl: u32) -> Option<u16> {
    push_record(out, None, types::CNAME, ttl, target.wire());
    let at = out.len() - target.wire().len();
    u16::try_from(at)
        .ok()
        .filter(|at| *at < 0x4000)
        .map(|at| 0xc000 | at)
}

fn push_record(out: &mut Vec<u8>, owner: Option<u16>, rtype: u16, ttl: u32, data: &[u8]) {
    let Ok(length) = u16::try_from(data.len()) else {
        return;
    };
    out.extend_from_slice(&owner.unwrap_or(QUESTION_POINTER).to_be_bytes());
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(data);
    let count = get_u16(out, 6).saturating_add(1);
    put_u16(out, 6, count);
}

/// Changes the response code of an answer.
pub fn set_code(out: &mut [u8], code: u8) {
    let flags = get_u16(out, 2) & !flags::RCODE | u16::from(code) & flags::RCODE;
    put_u16(out, 2, flags);
}

/// Makes a stored answer to the same question (of any spelling) the answer to `query`.
pub fn adopt(query: &Query<'_>, out: &mut [u8]) {
    let stored = get_u16(out, 2);
    let mut reply = reply_flags(query, stored & flags::RCODE);
    // The upstream's word on authenticity is passed on only to those who asked (RFC 6840 §5.8).
    if query.dnssec_ok() || query.flags & flags::AUTHENTIC_DATA != 0 {
        reply |= stored & flags::AUTHENTIC_DATA;
    }
    put_u16(out, 2, reply);
    put_u16(
        out,
        0,
        u16::from_be_bytes(query.bytes.first_chunk().copied().unwrap_or_default()),
    );
    let question = query.bytes.get(HEADER_BYTES..query.question_end);
    let place = out.get_mut(HEADER_BYTES..query.question_end);
    if let (Some(question), Some(place)) = (question, place) {
        place.copy_from_slice(question);
    }
}

/// Ends an answer: cuts it to what the client takes (TC set and no record left: the client asks
/// again over TCP) and adds our OPT when the client sent one.
pub fn finish(query: &Query<'_>, transport: Transport, out: &mut Vec<u8>) {
    let limit = match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let opt_bytes = if query.edns.is_some() { OPT_BYTES } else { 0 };
    if out.len() + opt_bytes > limit {
        out.truncate(query.question_end);
        let flags = get_u16(out, 2) | flags::TRUNCATED;
        put_u16(out, 2, flags);
        for at in [6, 8, 10] {
            put_u16(out, at, 0);
        }
    }
    if query.edns.is_some() {
        push_opt(out, query.dnssec_ok(), 0);
    }
}

/// An answer to a query that could not be read: header only.
pub fn reject(query: &[u8], code: u8, out: &mut Vec<u8>) {
    out.clear();
    let asked = query
        .get(2..4)
        .and_then(|f| f.try_into().ok())
        .map_or(0, u16::from_be_bytes);
    let kept = asked & (flags::OPCODE | flags::RECURSION_DESIRED);
    out.extend_from_slice(query.get(..2).unwrap_or(&[0, 0]));
    let all = kept | flags::RESPONSE | flags::RECURSION_AVAILABLE | u16::from(code) & flags::RCODE;
    out.extend_from_slice(&all.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
}

/// An answer to a query of an EDNS version that we do not speak.
pub fn reject_version(query: &[u8], out: &mut Vec<u8>) {
    reject(query, rcode::NOERROR, out);
    push_opt(out, false, 1);
}

/// What a query says besides its question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// CD: the client checks signatures itself.
    pub checking_disabled: bool,
    /// DO: DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// The client's network that the server may answer for (RFC 7871).
    pub subnet: Option<Prefix>,
    /// Fill up to a multiple of [`PADDING_BLOCK`] bytes, so that its length tells nothing of the name.
    pub padded: bool,
}

/// What queries over encrypted transports are filled up to (RFC 8467 section 4.1).
pub const PADDING_BLOCK: usize = 128;

/// A query for an upstream.
#[must_use]
pub fn upstream_query(question: &Question, id: u16, extras: Extras) -> Vec<u8> {
    let mut out = Vec::with_capacity(PADDING_BLOCK);
    out.extend_from_slice(&id.to_be_bytes());
    let disabled = if extras.checking_disabled {
        flags::CHECKING_DISABLED
    } else {
        0
    };
    out.extend_from_slice(&(flags::RECURSION_DESIRED | disabled).to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    push_question(&mut out, question);
    push_opt(&mut out, extras.dnssec_ok, 0);
    let options = out.len();
    if let Some(subnet) = extras.subnet {
        push_subnet(&mut out, subnet);
    }
    if extras.padded {
        let missing = (out.len() + 4).next_multiple_of(PADDING_BLOCK) - out.len() - 4;
        push_option(
            &mut out,
            OPTION_PADDING,
            ZEROES.get(..missing).unwrap_or_default(),
        );
    }
    let length = u16::try_from(out.len() - options).unwrap_or_default();
    put_u16(&mut out, options - 2, length);
    out
}

/// Spells the name of a query in capitals where `noise` has a bit set: as many bits more that a forged
/// answer must guess (0x20, draft-vixie-dnsext-dns0x20).
pub fn vary_case(query: &mut [u8], question: &Question, noise: &[u8; NAME_BYTES_MAX.div_ceil(8)]) {
    let length = question.name.wire().len();
    let name = query.get_mut(HEADER_BYTES..HEADER_BYTES + length);
    // A length byte is at most 63 and so never a letter.
    for (at, byte) in name.into_iter().flatten().enumerate() {
        let bits = noise.get(at / 8).copied().unwrap_or_default();
        if bits >> (at % 8) & 1 == 1 {
            byte.make_ascii_uppercase();
        }
    }
}

/// Whether an answer that is known to be to `question` spells it as the query did.
#[must_use]
pub fn is_spelled_alike(query: &[u8], answer: &[u8], question: &Question) -> bool {
    let name = HEADER_BYTES..HEADER_BYTES + question.name.wire().len();
    query.get(name.clone()) == answer.get(name)
}

const ZEROES: &[u8] = &[0; PADDING_BLOCK];
/// EDNS option codes.
const OPTION_SUBNET: u16 = 8;
const OPTION_PADDING: u16 = 12;

fn push_option(out: &mut Vec<u8>, code: u16, data: &[u8]) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(data);
}

/// Family, length, scope 0, and no more bytes than the length needs (RFC 7871 section 6).
fn push_subnet(out: &mut Vec<u8>, subnet: Prefix) {
    let mut data = vec![
        0,
        if subnet.address().is_ipv4() { 1 } else { 2 },
        subnet.length(),
        0,
    ];
    let bytes = usize::from(subnet.length()).div_ceil(8);
    match subnet.network() {
        IpAddr::V4(v4) => data.extend(v4.octets().iter().take(bytes)),
        IpAddr::V6(v6) => data.extend(v6.octets().iter().take(bytes)),
    }
    push_option(out, OPTION_SUBNET, &data);
}

/// An answer of our own to a question that came without a query: the constant `rcode://` upstream.
#[must_use]
pub fn constant_answer(question: &Question, code: u8) -> Vec<u8> {
    let mut out = vec![0; 2];
    let all = flags::RESPONSE
        | flags::RECURSION_DESIRED
        | flags::RECURSION_AVAILABLE
        | u16::from(code) & flags::RCODE;
    out.extend_from_slice(&all.to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    push_question(&mut out, question);
    out
}

/// The answer as it is kept and handed on: no id, no OPT (nor what follows it: nothing before can
/// point there), the question in lower case.
#[must_use]
pub fn normalize(answer: &Answer<'_>) -> Vec<u8> {
    let opt = answer.opt_at();
    let end = opt.map_or(answer.bytes().len(), |(at, _)| at);
    let mut out = answer.bytes().get(..end).unwrap_or_default().to_vec();
    put_u16(&mut out, 0, 0);
    if let Some((_, additional)) = opt {
        put_u16(&mut out, 10, additional);
    }
    let name = answer.question.name.wire();
    if let Some(place) = out.get_mut(HEADER_BYTES..HEADER_BYTES + name.len()) {
        place.copy_from_slice(name);
    }
    out
}

/// Length of an OPT record without options.
const OPT_BYTES: usize = 11;

fn push_opt(out: &mut Vec<u8>, dnssec_ok: bool, extended_code: u8) {
    out.push(0);
    out.extend_from_slice(&types::OPT.to_be_bytes());
    out.extend_from_slice(&PAYLOAD_BYTES.to_be_bytes());
    out.extend_from_slice(&[extended_code, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    let count = get_u16(out, 10).saturating_add(1);
    put_u16(out, 10, count);
}

fn push_question(out: &mut Vec<u8>, question: &Question) {
    out.extend_from_slice(question.name.wire());
    out.extend_from_slice(&question.qtype.to_be_bytes());
    out.extend_from_slice(&question.qclass.to_be_bytes());
}

fn reply_flags(query: &Query<'_>, code: u16) -> u16 {
    let kept = query.flags & (flags::RECURSION_DESIRED | flags::CHECKING_DISABLED);
    kept | flags::RESPONSE | flags::RECURSION_AVAILABLE | code & flags::RCODE
}

fn get_u16(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_be_bytes)
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, qtype: u16) -> Vec<u8> {
        upstream_query(&Question::new(name, qtype).unwrap(), 7, Extras::default())
    }

    #[test]
    fn the_case_of_a_name_follows_the_noise_and_nothing_else_changes() {
        let question = Question::new("a-1.example", types::A).unwrap();
        let plain = query("a-1.example", types::A);
        let mut noise = [0; 32];
        let mut varied = plain.clone();
        vary_case(&mut varied, &question, &noise);
        assert_eq!(varied, plain);
        noise = [0xff; 32];
        vary_case(&mut varied, &question, &noise);
        assert_eq!(&varied[12..26], b"\x03A-1\x07EXAMPLE\0\0");
        assert!(varied[..12] == plain[..12] && varied[25..] == plain[25..]);
        assert_eq!(Query::parse(&varied).unwrap().question, question);
        assert!(!is_spelled_alike(&varied, &plain, &question));
        assert!(is_spelled_alike(&varied, &varied, &question));
        noise[1] = 0;
        let mut other = plain.clone();
        vary_case(&mut other, &question, &noise);
        assert_eq!(&other[12..25], b"\x03A-1\x07EXAmple\0");
    }

    #[test]
    fn an_alias_with_its_address_reads_back() {
        let bytes = query("a.example", types::A);
        let query = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        start(&query, rcode::NOERROR, &mut out);
        let owner = push_cname(&mut out, &Name::from_text("b.example").unwrap(), 10);
        push_address(&mut out, owner, "192.0.2.7".parse().unwrap(), 10);
        finish(&query, Transport::Udp, &mut out);
        let answer = Answer::parse(&out).unwrap();
        assert_eq!(answer.addresses(), [("192.0.2.7".parse().unwrap(), 10)]);
        assert_eq!((answer.id(), answer.rcode()), (7, 0));
        assert!(answer.opt_at().is_some());
    }

    #[test]
    fn what_does_not_fit_is_cut_to_the_question_with_tc() {
        let bytes = query("a.example", types::A);
        let query = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        start(&query, rcode::NOERROR, &mut out);
        for _ in 0..80 {
            push_address(&mut out, None, "192.0.2.7".parse().unwrap(), 10);
        }
        let mut tcp = out.clone();
        finish(&query, Transport::Udp, &mut out);
        assert_eq!(out.len(), bytes.len());
        let cut = Answer::parse(&out).unwrap();
        assert!(cut.is_truncated() && cut.addresses().is_empty());
        finish(&query, Transport::Tcp, &mut tcp);
        assert_eq!(Answer::parse(&tcp).unwrap().addresses().len(), 80);
    }

    #[test]
    fn a_stored_answer_takes_the_spelling_and_id_of_the_query() {
        let asked = query("a.example", types::A);
        let question = Question::new("a.example", types::A).unwrap();
        let mut out = constant_answer(&question, rcode::NXDOMAIN);
        let mut spelled = asked.clone();
        spelled[13] = b'A';
        let query = Query::parse(&spelled).unwrap();
        adopt(&query, &mut out);
        finish(&query, Transport::Udp, &mut out);
        assert_eq!(out[..2], [0, 7]);
        assert_eq!(out[13], b'A');
        assert_eq!(Answer::parse(&out).unwrap().rcode(), rcode::NXDOMAIN);
    }

    #[test]
    fn normal_form_has_no_opt_and_no_id() {
        let asked = query("a.example", types::A);
        let parsed = Query::parse(&asked).unwrap();
        let mut out = Vec::new();
        start(&parsed, rcode::NOERROR, &mut out);
        push_address(&mut out, None, "192.0.2.7".parse().unwrap(), 10);
        finish(&parsed, Transport::Udp, &mut out);
        let stored = normalize(&Answer::parse(&out).unwrap());
        let answer = Answer::parse(&stored).unwrap();
        assert_eq!((answer.id(), answer.opt_at()), (0, None));
        assert_eq!(answer.addresses().len(), 1);
    }

    #[test]
    fn padded_queries_tell_no_length_and_the_subnet_is_cut() {
        let extras = Extras {
            subnet: Some("192.0.2.77/20".parse().unwrap()),
            padded: true,
            ..Extras::default()
        };
        for name in ["a.b", "a-rather-long-label.that-goes.on.and.on.example"] {
            let bytes = upstream_query(&Question::new(name, types::A).unwrap(), 7, extras);
            assert_eq!(bytes.len(), PADDING_BLOCK);
            assert!(Query::parse(&bytes).unwrap().edns.is_some());
            let subnet = [0, 8, 0, 7, 0, 1, 20, 0, 192, 0, 0];
            assert!(bytes.windows(subnet.len()).any(|window| window == subnet));
        }
    }

    proptest! {
        #[test]
        fn any_accepted_query_gets_a_readable_answer_within_its_limit(
            bytes in proptest::collection::vec(any::<u8>(), 12..64), edns: bool,
        ) {
            let mut bytes = bytes;
            bytes[2] &= 0x07;
            bytes[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
            if edns { bytes[11] = 1; }
            if let Ok(query) = Query::parse(&bytes) {
                let mut out = Vec::new();
                start(&query, rcode::NOERROR, &mut out);
                push_address(&mut out, None, "::1".parse().unwrap(), 1);
                finish(&query, Transport::Udp, &mut out);
                prop_assert!(out.len() <= query.udp_limit());
                prop_assert!(Answer::parse(&out).is_ok());
            }
            let mut out = Vec::new();
            reject(&bytes, rcode::FORMERR, &mut out);
            prop_assert_eq!(out.len(), HEADER_BYTES);
        }
    }
}
