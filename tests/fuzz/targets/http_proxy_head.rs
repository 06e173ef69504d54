//! Heads that the HTTP inbound forwards: what goes on to the next hop is one head, with the
//! framing that was read and nothing that belongs to one connection.
#![no_main]

use headgate::inbound::http::body::Framing;
use headgate::inbound::http::request::{self, Action, Expectation};
use headgate::inbound::http::response::{self, Follows};
use headgate_fuzz::{Input, cuts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let how = input.byte();
    let bytes = input.rest();
    let expectation = Expectation {
        head_only: how & 1 != 0,
        upgrade: how & 2 != 0,
        keep_alive: how & 4 != 0,
    };
    if let Ok(Some((read, length))) = request::decode(bytes) {
        for cut in cuts(length, how).filter(|cut| *cut < length) {
            assert!(
                matches!(request::decode(&bytes[..cut]), Ok(None)),
                "whole at {cut}"
            );
        }
        if let Action::Forward(forward) = read.action {
            let fields = fields(&forward.head);
            assert_eq!(fields.iter().filter(|field| field.0 == "host").count(), 1);
            assert_ne!(forward.framing, Framing::UntilClose);
            check(&fields, forward.framing, forward.expectation.upgrade);
        }
    }
    if let Ok(Some((read, length))) = response::decode(bytes, expectation) {
        for cut in cuts(length, how).filter(|cut| *cut < length) {
            assert!(
                matches!(response::decode(&bytes[..cut], expectation), Ok(None)),
                "whole at {cut}"
            );
        }
        let fields = fields(&read.head);
        match read.follows {
            Follows::Body(framing) if !expectation.head_only => {
                check(&fields, framing, false);
            }
            Follows::Upgrade => assert!(expectation.upgrade),
            Follows::Body(_) | Follows::Response => {}
        }
        if read.follows == Follows::Body(Framing::UntilClose) {
            assert!(!read.keep_alive && !read.reusable);
        }
    }
});

/// Names in lower case and values, by the plainest reading there is.
fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(head).into_owned();
    let lines = text
        .strip_suffix("\r\n\r\n")
        .expect("a head ends in an empty line");
    let mut lines = lines.split("\r\n");
    let first = lines.next().unwrap();
    assert!(!first.contains(['\r', '\n', '\0']), "{first:?}");
    let field = |line: &str| {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        let (name, value) = line.split_once(": ").expect("a field has a colon");
        assert!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()),
            "{name:?}"
        );
        (name.to_ascii_lowercase(), value.to_owned())
    };
    lines.map(field).collect()
}

fn check(fields: &[(String, String)], framing: Framing, upgrade: bool) {
    let values = |wanted: &str| -> Vec<&str> {
        let found = fields.iter().filter(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match framing {
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1);
            assert!(codings[0].eq_ignore_ascii_case("chunked"));
        }
        // Statuses 204 and 304 have no body, whatever their fields say.
        Framing::Length(0) => {}
        Framing::Length(length) => {
            assert_eq!(
                lengths.iter().map(|l| l.parse()).collect::<Vec<_>>(),
                [Ok(length)]
            );
            assert!(codings.is_empty());
        }
        Framing::UntilClose => assert!(lengths.is_empty() && codings.is_empty()),
    }
    for (name, _) in fields {
        assert!(
            !name.starts_with("proxy-") && name != "te" && name != "keep-alive",
            "{name}"
        );
        assert!(upgrade || name != "upgrade");
    }
    assert!(
        values("connection")
            .iter()
            .all(|v| ["close", "Upgrade"].contains(v))
    );
}
