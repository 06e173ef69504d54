//! Responses at a forward proxy: read from the server, rewritten for the client (RFC 9112
//! sections 4 and 6.3, RFC 9110 section 7.6).
//!
//! Pure. What belongs to the server's connection is taken off; whether the client's goes on is
//! decided here, since a body may end with it.

use super::body::Framing;
use super::fields::{Decoded, FIELDS_MAX, Fields, Malformed, field};
use super::request::Expectation;

/// The longest response head: some sites send policies and cookies of many kilobytes.
pub const RESPONSE_BYTES_MAX: usize = 32 * 1024;

/// A response from an origin server.
#[derive(Debug)]
pub struct Response {
    /// The head to send to the client.
    pub head: Vec<u8>,
    /// What follows it.
    pub follows: Follows,
    /// Whether the client's connection serves further requests.
    pub keep_alive: bool,
    /// Whether the server's connection does.
    pub reusable: bool,
}

/// What follows the head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The body.
    Body(Framing),
    /// Another response: this one was interim.
    Response,
    /// Another protocol.
    Upgrade,
}

/// Reads a server's response to a request of which `expectation` is known.
///
/// # Errors
/// [`Malformed`].
pub fn decode(bytes: &[u8], expectation: Expectation) -> Decoded<Response> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes)? else {
        return Ok(None);
    };
    let (Some(status), Some(version)) = (head.code, head.version) else {
        return Err(Malformed::Syntax);
    };
    let fields = Fields(head.headers);
    let follows = match status {
        101 if expectation.upgrade => Follows::Upgrade,
        0..100 | 101 => return Err(Malformed::Status),
        102..200 | 100 => Follows::Response,
        204 | 304 => Follows::Body(Framing::Length(0)),
        _ if expectation.head_only => Follows::Body(Framing::Length(0)),
        _ => Follows::Body(fields.framing()?.unwrap_or(Framing::UntilClose)),
    };
    let delimited = follows != Follows::Body(Framing::UntilClose);
    let keep_alive = expectation.keep_alive && delimited;
    let mut out = Vec::with_capacity(length + 32);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in fields.end_to_end() {
        field(&mut out, name, value);
    }
    match follows {
        Follows::Upgrade => fields.append_upgrade(&mut out),
        Follows::Body(_) if !keep_alive => field(&mut out, "Connection", b"close"),
        Follows::Body(_) | Follows::Response => {}
    }
    out.extend_from_slice(b"\r\n");
    let response = Response {
        head: out,
        follows,
        keep_alive,
        reusable: version == 1 && delimited && !fields.lists("connection", "close"),
    };
    Ok(Some((response, length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Expectation = Expectation {
        head_only: false,
        upgrade: false,
        keep_alive: true,
    };

    fn respond(text: &str, expectation: Expectation) -> Result<Response, Malformed> {
        decode(text.as_bytes(), expectation).map(|decoded| decoded.expect("a whole head").0)
    }

    #[test]
    fn responses_end_as_the_standard_says() {
        let follows = |text: &str| respond(text, PLAIN).unwrap().follows;
        let length = |n| Follows::Body(Framing::Length(n));
        assert_eq!(
            follows("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
            length(3)
        );
        assert_eq!(
            follows("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Follows::Body(Framing::Chunked)
        );
        assert_eq!(
            follows("HTTP/1.1 200 OK\r\n\r\n"),
            Follows::Body(Framing::UntilClose)
        );
        assert_eq!(follows("HTTP/1.1 204 No\r\n\r\n"), length(0));
        assert_eq!(
            follows("HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n"),
            length(0)
        );
        assert_eq!(follows("HTTP/1.1 100 Continue\r\n\r\n"), Follows::Response);
        let head = Expectation {
            head_only: true,
            ..PLAIN
        };
        let answer = respond("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", head).unwrap();
        assert_eq!(answer.follows, length(0));
        assert!(answer.keep_alive && answer.reusable);
    }

    #[test]
    fn a_body_that_ends_with_the_connection_closes_the_clients_too() {
        let answer = respond(
            "HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nServer: x\r\n\r\n",
            PLAIN,
        )
        .unwrap();
        assert!(!answer.keep_alive && !answer.reusable);
        assert_eq!(
            answer.head,
            b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_server_that_closes_does_not_close_the_client() {
        let text = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let answer = respond(text, PLAIN).unwrap();
        assert!(answer.keep_alive && !answer.reusable);
        assert_eq!(answer.head, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn only_an_asked_for_upgrade_is_let_through() {
        let text = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(respond(text, PLAIN).unwrap_err(), Malformed::Status);
        let asked = Expectation {
            upgrade: true,
            ..PLAIN
        };
        let answer = respond(text, asked).unwrap();
        assert_eq!(answer.follows, Follows::Upgrade);
        let head = String::from_utf8(answer.head).unwrap();
        assert!(head.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    }

    #[test]
    fn doubtful_responses_are_refused() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(respond(text, PLAIN).unwrap_err(), Malformed::Framing);
        assert_eq!(
            respond("HTTP/1.1 099 x\r\n\r\n", PLAIN).unwrap_err(),
            Malformed::Status
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_answers_stay(
            front in "HTTP/1\\.[01] ([1-5]0[0-4]|[0-9]{1,3}) [a-z]{0,3}\r\n",
            fields in "((X|Connection|Content-Length|Transfer-Encoding): ([0-9]{1,3}|chunked|close)\r\n){0,3}\r\n",
            noise in proptest::collection::vec(any::<u8>(), 0..60),
            cut in 0usize..80,
        ) {
            let _ = decode(&noise, PLAIN).is_ok();
            let bytes = [front.as_bytes(), fields.as_bytes(), &noise].concat();
            let early = bytes.get(..cut).unwrap_or_default();
            if let Ok(Some((_, length))) = decode(&bytes, PLAIN) {
                prop_assert_eq!(length, front.len() + fields.len());
                prop_assert!(early.len() >= length || matches!(decode(early, PLAIN), Ok(None)));
            }
        }
    }
}
