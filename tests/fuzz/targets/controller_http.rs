//! Requests to the controllers: where a head ends however it arrives, what it says, who may, where
//! it leads, and its body in chunks.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use headgate::controllers::http::access::{Door, Policy};
use headgate::controllers::http::chunked::Chunked;
use headgate::controllers::http::head::{self, Framing, Head};
use headgate::controllers::http::route::{self, Access, Found};
use headgate::controllers::http::{Query, Request, percent_decode};
use headgate::controllers::options::Options;
use headgate::controllers::{clash, emqx};
use headgate_fuzz::cuts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let end = head::end(data, 0);
    for cut in cuts(data.len(), 0) {
        match head::end(&data[..cut], 0) {
            Some(early) => assert_eq!(Some(early), end),
            None => assert_eq!(head::end(data, cut), end, "searched from {cut}"),
        }
    }
    let (head, body) = data.split_at(end.unwrap_or(data.len()));
    if let Ok(text) = str::from_utf8(body) {
        decoding(text);
    }
    let Ok(head) = Head::parse(head) else {
        return;
    };
    assert!(end.is_some() && head.target.starts_with(head.path));
    let options = Options {
        secret: "secret".into(),
        allow_origins: vec!["https://*.example.com".into()],
        ..Options::default()
    };
    for secret in ["", "secret"] {
        let policy = Policy::new(&Options {
            secret: secret.into(),
            ..options.clone()
        });
        assert_eq!(policy.check_host(&head, Door::Unix), Ok(()));
        let door = Door::Network(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let _ = policy.check_host(&head, door);
        assert!(
            policy
                .check_caller(&head, door, Access::Application)
                .is_err()
        );
        let allowed = policy.check_caller(&head, door, Access::ADMIN).is_ok();
        let proof = ["Bearer secret"].map(Some).contains(&head.authorization);
        assert!(secret.is_empty() || !allowed || proof || head.query.contains("token="));
        let fields = policy.cors_fields(&head);
        let line = |line: &str| !line.contains(['\r', '\n', '\0']);
        assert!(
            fields.strip_suffix("\r\n").unwrap().split("\r\n").all(line),
            "{fields:?}"
        );
    }
    let body = decoded(&head, body);
    let dialects = [&emqx::DIALECT, &clash::DIALECT];
    if let Some((dialect, path)) = route::dialect(&dialects, head.path)
        && let Found::Route(route, parameters) = route::find(dialect.routes, head.method, path)
    {
        assert_eq!(parameters.len(), route.pattern.matches("{}").count());
        let request = Request {
            parameters,
            query: Query(head.query),
            body: &body,
        };
        let _ = request.query.get("level");
        if let Some(object) = request.object() {
            let _ = (object.string("name"), object.boolean("allow-lan"));
            let _ = (object.port("port"), object.strings("proxies"));
        }
    }
});

fn decoded(head: &Head<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    match head.framing {
        Framing::Length(length) => body.extend_from_slice(&bytes[..length.min(bytes.len())]),
        Framing::Chunked => {
            let mut decoder = Chunked::default();
            let whole = decoder.decode(bytes, &mut body);
            assert!(body.len() <= bytes.len());
            for cut in cuts(bytes.len(), 0).filter(|_| whole.is_ok()) {
                let (mut again, mut pieces) = (Chunked::default(), Vec::new());
                let mut taken = again.decode(&bytes[..cut], &mut pieces).unwrap();
                if taken == cut {
                    taken += again.decode(&bytes[cut..], &mut pieces).unwrap();
                }
                assert_eq!(
                    (Ok(taken), &pieces, again.is_done()),
                    (whole, &body, decoder.is_done())
                );
            }
        }
    }
    body
}

fn decoding(text: &str) {
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(percent_decode(&escaped).as_deref(), Some(text));
    if let Some(plain) = percent_decode(text) {
        assert!(plain.len() <= text.len());
    }
    let _ = Query(text).get("token");
}
