//! DNS over HTTPS on the controller; the rig answers a message with its reverse.

use super::*;

#[test]
fn messages_are_answered_without_a_secret() {
    run(async {
        let rig = Rig::new(Options {
            doh: Some("/dns-query".into()),
            ..with_secret()
        });
        let exchange = async |method: &str, target: &str, body: &str| {
            let length = body.len();
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
                 Content-Type: application/dns-message\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            let answer = rig.exchange(request.as_bytes()).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let typed = head.contains("application/dns-message");
            (status(head), typed, body.to_owned())
        };
        let good = (200, true, "cba".to_owned());
        assert_eq!(exchange("POST", "/dns-query", "abc").await, good);
        assert_eq!(exchange("GET", "/dns-query?dns=YWJj", "").await, good);
        let bad = |answer: (u16, bool, String)| (answer.0, answer.1);
        assert_eq!(
            bad(exchange("GET", "/dns-query?dns=YW=", "").await),
            (500, false)
        );
        assert_eq!(
            bad(exchange("POST", "/dns-query", "off").await),
            (500, false)
        );
        assert_eq!(
            bad(exchange("PUT", "/dns-query", "abc").await),
            (405, false)
        );
        assert_eq!(bad(exchange("GET", "/dns-query/", "").await), (404, false));
        let large = "x".repeat(70_000);
        assert_eq!(exchange("POST", "/dns-query", &large).await.0, 413);
        // Everything else asks for the secret as before.
        assert_eq!(exchange("GET", "/configs", "").await.0, 401);
    });
}
