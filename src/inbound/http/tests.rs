//! The HTTP proxy over real sockets, with a dispatch that connects directly.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::super::options::ListenerKind;
use super::super::testing::{ask, closed_port, port, read_until, server, with_proxy};
use super::*;

const END: &str = "\r\n\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const WORLD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld";

async fn connect(proxy: std::net::SocketAddr) -> TcpStream {
    TcpStream::connect(proxy).await.unwrap()
}

fn get(to: std::net::SocketAddr, path: &str) -> Vec<u8> {
    format!("GET http://{to}{path} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes()
}

async fn closed(client: &mut TcpStream) -> bool {
    client.read(&mut [0]).await.unwrap_or(0) == 0
}

#[tokio::test]
async fn connect_becomes_a_plain_tunnel() {
    let (to, received) = server(vec![vec![("ping", "pong")]]).await;
    let flows = with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let answer = ask(&mut client, request.as_bytes(), END).await;
        assert_eq!(answer.as_bytes(), ESTABLISHED);
        assert_eq!(ask(&mut client, b"ping", "pong").await, "pong");
    })
    .await;
    assert_eq!(*received.lock().unwrap(), ["ping"]);
    assert_eq!(flows[0].1, "tcp");
    assert_eq!(flows[0].0.inbound_type, InboundType::Https);
}

#[tokio::test]
async fn bytes_behind_a_connect_belong_to_the_tunnel() {
    let (to, received) = server(vec![vec![("ping", "pong")]]).await;
    let flows = with_proxy(port(ListenerKind::Mixed), async |proxy| {
        let mut client = connect(proxy).await;
        let request = format!("CONNECT {to} HTTP/1.1\r\n\r\nping");
        ask(&mut client, request.as_bytes(), END).await;
        assert_eq!(read_until(&mut client, "pong").await, "pong");
    })
    .await;
    assert_eq!(*received.lock().unwrap(), ["ping"]);
    assert_eq!(flows[0].1, "boxed");
}

#[tokio::test]
async fn a_kept_connection_asks_one_server_again_over_the_same_flow() {
    let (to, received) = server(vec![vec![(END, HELLO), (END, WORLD)]]).await;
    let flows = with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        assert_eq!(ask(&mut client, &get(to, "/1"), "hello").await, HELLO);
        assert_eq!(ask(&mut client, &get(to, "/2"), "world").await, WORLD);
    })
    .await;
    let requests = ["/1", "/2"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    assert_eq!(*received.lock().unwrap(), requests);
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].0.inbound_type, InboundType::Http);
}

#[tokio::test]
async fn the_host_may_change_with_every_request_and_connect_may_follow() {
    let (one, _) = server(vec![vec![(END, HELLO)]]).await;
    let (two, _) = server(vec![vec![(END, WORLD)], vec![("ping", "pong")]]).await;
    let flows = with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        // Pipelined: both requests in one segment.
        let both = [get(one, "/"), get(two, "/")].concat();
        assert_eq!(ask(&mut client, &both, "hello").await, HELLO);
        assert_eq!(read_until(&mut client, "world").await, WORLD);
        let request = format!("CONNECT {two} HTTP/1.1\r\n\r\n");
        ask(&mut client, request.as_bytes(), END).await;
        assert_eq!(ask(&mut client, b"ping", "pong").await, "pong");
    })
    .await;
    assert_eq!(flows.len(), 3);
    assert_eq!(flows[2].1, "tcp");
}

#[tokio::test]
async fn a_server_that_closed_meanwhile_is_dialled_again() {
    let (to, _) = server(vec![vec![(END, HELLO)], vec![(END, WORLD)]]).await;
    let flows = with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        ask(&mut client, &get(to, "/1"), "hello").await;
        // The second request is asked on a second connection, or, if it met the first one
        // before its end was seen, the client is closed and asks again itself.
        let mut answer = ask(&mut client, &get(to, "/2"), "world").await;
        if answer.is_empty() {
            answer = ask(&mut connect(proxy).await, &get(to, "/2"), "world").await;
        }
        assert_eq!(answer, WORLD);
    })
    .await;
    assert!(flows.len() >= 2);
}

#[tokio::test]
async fn bodies_pass_both_ways_chunked_and_counted() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n";
    let (to, received) = server(vec![vec![("0\r\n\r\n", CHUNKED), ("tail", HELLO)]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let head = |fields| format!("POST http://{to}/ HTTP/1.1\r\nHost: {to}\r\n{fields}\r\n\r\n");
        let chunked = head("Transfer-Encoding: chunked") + "4\r\nbody\r\n0\r\n\r\n";
        let answer = ask(&mut client, chunked.as_bytes(), "T: u\r\n\r\n").await;
        assert_eq!(answer, CHUNKED);
        let counted = head("Content-Length: 4") + "tail";
        assert_eq!(ask(&mut client, counted.as_bytes(), "hello").await, HELLO);
    })
    .await;
    let received = received.lock().unwrap();
    assert!(received[0].ends_with("Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"));
    assert!(received[1].ends_with("Content-Length: 4\r\n\r\ntail"));
}

#[tokio::test]
async fn a_large_body_flows_through_small_buffers() {
    let length = 300_000;
    let (to, received) = server(vec![vec![("END", HELLO)]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let mut request =
            format!("PUT http://{to}/ HTTP/1.1\r\nHost: {to}\r\nContent-Length: {length}\r\n\r\n");
        request += &"x".repeat(length - 3);
        request += "END";
        assert_eq!(ask(&mut client, request.as_bytes(), "hello").await, HELLO);
    })
    .await;
    assert!(received.lock().unwrap()[0].len() > length);
}

#[tokio::test]
async fn interim_responses_go_before_the_final_one() {
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let (to, _) = server(vec![vec![(END, go_on), ("body", HELLO)]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let request = format!(
            "PUT http://{to}/ HTTP/1.1\r\nHost: {to}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        );
        assert_eq!(ask(&mut client, request.as_bytes(), END).await, go_on);
        assert_eq!(ask(&mut client, b"body", "hello").await, HELLO);
    })
    .await;
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_still_sends() {
    let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno";
    let (to, _) = server(vec![vec![(END, refusal)]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let request = format!(
            "PUT http://{to}/ HTTP/1.1\r\nHost: {to}\r\nContent-Length: 1000\r\n\r\nbody begins"
        );
        assert_eq!(ask(&mut client, request.as_bytes(), "no").await, refusal);
        assert!(closed(&mut client).await);
    })
    .await;
}

#[tokio::test]
async fn responses_without_a_body_do_not_wait_for_one() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n";
    const SAME: &str = "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n";
    let (to, _) = server(vec![vec![(END, HEAD), (END, SAME), (END, HELLO)]]).await;
    let flows = with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let request = String::from_utf8(get(to, "/"))
            .unwrap()
            .replace("GET", "HEAD");
        assert_eq!(ask(&mut client, request.as_bytes(), END).await, HEAD);
        assert_eq!(ask(&mut client, &get(to, "/"), END).await, SAME);
        assert_eq!(ask(&mut client, &get(to, "/"), "hello").await, HELLO);
    })
    .await;
    assert_eq!(flows.len(), 1);
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_ends_the_clients_too() {
    let (to, _) = server(vec![vec![(END, "HTTP/1.0 200 OK\r\n\r\nall there is")]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let answer = ask(&mut client, &get(to, "/"), "never").await;
        assert_eq!(
            answer,
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is"
        );
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nHEY";
    let (to, received) = server(vec![vec![(END, switch), ("ping", "pong")]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let request = format!(
            "GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
        );
        assert_eq!(ask(&mut client, request.as_bytes(), "HEY").await, switch);
        assert_eq!(ask(&mut client, b"ping", "pong").await, "pong");
        assert!(closed(&mut client).await);
    })
    .await;
    assert_eq!(received.lock().unwrap()[1], "ping");
}

#[tokio::test]
async fn servers_that_do_not_answer_are_bad_gateways() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = unused.local_addr().unwrap();
    drop(unused);
    let (silent, _) = server(vec![vec![(END, "")]]).await;
    let (mad, _) = server(vec![vec![(END, "220 ready\r\n")]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        for to in [dead, silent, mad] {
            let mut client = connect(proxy).await;
            let answer = ask(&mut client, &get(to, "/"), "never").await;
            assert_eq!(answer.as_bytes(), BAD_GATEWAY);
        }
    })
    .await;
}

#[tokio::test]
async fn bad_requests_are_answered_and_closed() {
    let flows = with_proxy(port(ListenerKind::Mixed), async |proxy| {
        let long = format!(
            "GET http://a/ HTTP/1.1\r\nX: {}",
            "y".repeat(REQUEST_BYTES_MAX)
        );
        for (request, answer) in [
            ("\x16\x03\x01 not http\r\n\r\n", BAD_REQUEST),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST),
            (
                "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
                BAD_REQUEST,
            ),
            (&*long, HEAD_TOO_LARGE),
        ] {
            let mut client = connect(proxy).await;
            let got = ask(&mut client, request.as_bytes(), "never").await;
            assert_eq!(got.as_bytes(), answer, "{request:?}");
        }
    })
    .await;
    assert!(flows.is_empty());
}

#[tokio::test]
async fn broken_chunks_of_a_client_are_answered_and_closed() {
    let (to, _) = server(vec![vec![("never", "")]]).await;
    with_proxy(port(ListenerKind::Http), async |proxy| {
        let mut client = connect(proxy).await;
        let request = format!(
            "PUT http://{to}/ HTTP/1.1\r\nHost: {to}\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
        );
        let answer = ask(&mut client, request.as_bytes(), "never").await;
        assert_eq!(answer.as_bytes(), BAD_REQUEST);
    })
    .await;
}

#[tokio::test]
async fn users_log_in_with_basic_credentials() {
    let (to, _) = server(vec![vec![(END, HELLO)]]).await;
    let flows = with_proxy(closed_port(ListenerKind::Http), async |proxy| {
        // "u:x" and "u:p".
        for (login, answer) in [
            ("", LOGIN_REQUIRED),
            ("Proxy-Authorization: Basic dTp4\r\n", LOGIN_REQUIRED),
            ("Proxy-Authorization: Basic dTpw\r\n", HELLO.as_bytes()),
        ] {
            let mut client = connect(proxy).await;
            let request = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n{login}\r\n");
            let got = ask(&mut client, request.as_bytes(), "hello").await;
            assert_eq!(got.as_bytes(), answer);
        }
    })
    .await;
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].0.inbound_user.as_deref(), Some("u"));
}
