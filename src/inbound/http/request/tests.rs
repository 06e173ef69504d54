//! Tests of the requests at a forward proxy.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Request, Malformed> {
    decode(text.as_bytes()).map(|decoded| decoded.expect("a whole head").0)
}

fn forward(text: &str) -> Forward {
    match parse(text).map(|request| request.action) {
        Ok(Action::Forward(forward)) => forward,
        Ok(Action::Tunnel(_)) => panic!("a tunnel"),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn check_forward(text: &str, server: &str, head: &str) {
    let forward = forward(text);
    assert_eq!(forward.server.to_string(), server);
    assert_eq!(String::from_utf8(forward.head).unwrap(), head);
}

#[track_caller]
fn check_refused(text: &str, why: Malformed) {
    assert_eq!(parse(text).map(|_| ()), Err(why), "{text:?}");
}

#[test]
fn absolute_targets_become_origin_form_with_their_own_host() {
    check_forward(
        "GET http://A.org:8080/x?y=http://z HTTP/1.1\r\nHost: other\r\nAccept: */*\r\n\r\n",
        "a.org:8080",
        "GET /x?y=http://z HTTP/1.1\r\nHost: A.org:8080\r\nAccept: */*\r\n\r\n",
    );
    check_forward(
        "GET HTTP://a.org HTTP/1.1\r\nHost: a.org\r\n\r\n",
        "a.org:80",
        "GET / HTTP/1.1\r\nHost: a.org\r\n\r\n",
    );
    check_forward(
        "GET http://[::1]?q HTTP/1.1\r\nHost: a\r\n\r\n",
        "[::1]:80",
        "GET /?q HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    );
    check_forward(
        "OPTIONS http://a.org: HTTP/1.1\r\nHost: a.org\r\n\r\n",
        "a.org:80",
        "OPTIONS * HTTP/1.1\r\nHost: a.org\r\n\r\n",
    );
}

#[test]
fn fields_of_one_connection_are_taken_off() {
    check_forward(
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic YTpi\r\nPROXY-other: x\r\n\
         TE: trailers\r\nUpgrade: h2c\r\nX-Mine: 1\r\nX-Yours: 2\r\n\r\n",
        "a:80",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Yours: 2\r\n\r\n",
    );
}

#[test]
fn connection_cannot_take_off_what_delimits_the_message() {
    check_forward(
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nConnection: content-length, host\r\n\
         Content-Length: 3\r\n\r\n",
        "a:80",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    );
}

#[test]
fn clients_that_close_are_told_apart_from_those_that_stay() {
    let keeps = |text: &str| forward(text).expectation.keep_alive;
    assert!(keeps("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keeps("GET http://a/ HTTP/1.0\r\nHost: a\r\n\r\n"));
    assert!(!keeps(
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"
    ));
    assert!(!keeps(
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n"
    ));
}

#[test]
fn an_upgrade_asks_the_next_hop_too() {
    check_forward(
        "GET http://a/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "a:80",
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
}

#[test]
fn connect_names_host_and_port() {
    let Ok(Action::Tunnel(to)) =
        parse("CONNECT A.org:443 HTTP/1.1\r\n\r\n").map(|request| request.action)
    else {
        panic!("no tunnel");
    };
    assert_eq!(to.to_string(), "a.org:443");
    check_refused("CONNECT a.org HTTP/1.1\r\n\r\n", Malformed::Target);
    check_refused("CONNECT http://a.org/ HTTP/1.1\r\n\r\n", Malformed::Target);
    check_refused(
        "CONNECT a.org:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        Malformed::Framing,
    );
}

#[test]
fn targets_that_are_no_proxys_are_refused() {
    for target in [
        "/",
        "*",
        "https://a.org/",
        "ftp://a.org/",
        "http://",
        "http:///x",
        "http://u:p@a.org/",
        "http://a.org:99999/",
        "http://a b/",
        "http://::1/",
        "a.org:80",
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(parse(&text).is_err(), "{target}");
    }
}

#[test]
fn doubtful_bodies_are_refused() {
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
    ] {
        let text = format!("POST http://a/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        check_refused(&text, Malformed::Framing);
    }
    check_refused(
        "POST http://a/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        Malformed::Framing,
    );
}

#[test]
fn lax_grammar_is_refused() {
    for text in [
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET  http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
    ] {
        assert_eq!(
            decode(text.as_bytes()).map(|_| ()),
            Err(Malformed::Syntax),
            "{text:?}"
        );
    }
    check_refused("GET http://a/ HTTP/1.1\r\n\r\n", Malformed::Host);
    assert!(parse("GET http://a/ HTTP/1.0\r\n\r\n").is_ok());
    check_refused(
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        Malformed::Host,
    );
}

#[test]
fn basic_credentials_are_read() {
    let login = |value: &str| {
        let text = format!("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: {value}\r\n\r\n");
        parse(&text).map(|request| request.login).unwrap()
    };
    let given = login("basic dXNlcjpwYTpzcw==").unwrap();
    assert_eq!(
        (&*given.username, &*given.password),
        (&b"user"[..], &b"pa:ss"[..])
    );
    for value in ["Basic", "Basic !!!", "Basic dXNlcg==", "Bearer dXNlcjpw"] {
        assert!(login(value).is_none(), "{value}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes).is_ok();
    }

    #[test]
    fn a_rewritten_request_ends_where_it_did_and_has_one_host(
        path in "[a-z/?=]{0,8}",
        fields in "((X-[a-z]{1,3}|TE|Upgrade|Connection|Content-Length|Transfer-Encoding): ([a-z]{1,6}|chunked|[0-9]{1,3}|close, x-a)\r\n){0,5}",
        cut in 0usize..80,
    ) {
        let text = format!("POST http://a.org/{path} HTTP/1.1\r\nHost: b\r\n{fields}\r\nBODY");
        let early = text.get(..cut).unwrap_or_default();
        if let Ok(Some((whole, length))) = decode(text.as_bytes()) {
            prop_assert_eq!(length, text.len() - 4);
            prop_assert!(matches!(decode(early.as_bytes()), Ok(None)) || early.len() >= length);
            let Action::Forward(forward) = whole.action else {
                return Err(TestCaseError::fail("a tunnel"));
            };
            let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
            let mut again = httparse::Request::new(&mut fields);
            prop_assert!(again.parse(&forward.head).unwrap().is_complete());
            let fields = Fields(again.headers);
            prop_assert_eq!(fields.framing().unwrap().unwrap_or(Framing::Length(0)), forward.framing);
            prop_assert_eq!(fields.values("host").count(), 1);
        }
    }
}
