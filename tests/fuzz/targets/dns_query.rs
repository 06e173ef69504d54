//! Queries as clients send them, and every kind of answer that is built from one.
#![no_main]

use headgate::dns::message::build::{self, Extras, Transport};
use headgate::dns::message::record::Answer;
use headgate::dns::message::{Name, Query, Rejected, TextBuffer};
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let [kind, code, count] = input.array();
    let alias = input.chunk();
    let bytes = input.rest();
    let mut out = Vec::new();
    let query = match Query::parse(bytes) {
        Ok(query) => query,
        Err(Rejected::Silently) => return,
        Err(Rejected::With(code)) => return build::reject(bytes, code, &mut out),
        Err(Rejected::BadVersion) => return build::reject_version(bytes, &mut out),
    };
    let mut buffer: TextBuffer = [0; 255];
    if let Some(text) = query.question.name.text(&mut buffer) {
        assert_eq!(Name::from_text(text).as_ref(), Some(&query.question.name));
    }
    build::start(&query, code, &mut out);
    let alias = std::str::from_utf8(alias).ok().and_then(Name::from_text);
    let owner = alias.and_then(|alias| build::push_cname(&mut out, &alias, 9));
    for n in 0..count {
        let v6 = std::net::Ipv6Addr::from(u128::from(n));
        let address = if kind & 1 == 0 {
            [n; 4].into()
        } else {
            v6.into()
        };
        build::push_address(&mut out, owner, address, u32::from(n));
    }
    let transport = if kind & 2 == 0 {
        Transport::Udp
    } else {
        Transport::Tcp
    };
    build::finish(&query, transport, &mut out);
    if transport == Transport::Udp {
        assert!(out.len() <= query.udp_limit());
    }
    check(&out, bytes, &query);

    // The same question from a store, for which its spelling is not this client's.
    let mut stored = build::constant_answer(&query.question, code);
    build::adopt(&query, &mut stored);
    check(&stored, bytes, &query);

    let extras = Extras {
        checking_disabled: kind & 4 == 0,
        dnssec_ok: query.dnssec_ok(),
        subnet: None,
        padded: kind & 8 == 0,
    };
    let asked = build::upstream_query(&query.question, 7, extras);
    let again = Query::parse(&asked).unwrap();
    assert_eq!(again.question, query.question);
    assert_eq!(again.dnssec_ok(), query.dnssec_ok());
});

fn check(out: &[u8], bytes: &[u8], query: &Query<'_>) {
    let answer = Answer::parse(out).unwrap();
    assert_eq!(answer.question, query.question);
    assert_eq!(out[..2], bytes[..2]);
    let question = 12..answer.question_end();
    assert_eq!(out[question.clone()], bytes[question]);
}
