//! SOCKS over real sockets, with a dispatch that connects directly.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::super::options::ListenerKind;
use super::super::testing::{ask, closed_port, port, read_until, server, with_proxy};
use super::*;

/// A SOCKS 5 request for this address.
fn request_5(command: u8, to: SocketAddr) -> Vec<u8> {
    let mut bytes = codec::reply(Reply::Succeeded, to);
    bytes[1] = command;
    bytes
}

fn request_4(to: SocketAddr, rest: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(to) = to else {
        panic!("not IPv4");
    };
    [
        &[4, 1][..],
        &to.port().to_be_bytes(),
        &to.ip().octets(),
        rest,
    ]
    .concat()
}

async fn read(socket: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    socket.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn closed(socket: &mut TcpStream) -> bool {
    socket.read(&mut [0]).await.unwrap_or(0) == 0
}

#[tokio::test]
async fn connect_is_granted_and_relayed_as_a_plain_socket() {
    let (to, received) = server(vec![vec![("ping", "pong")]]).await;
    let flows = with_proxy(port(ListenerKind::Socks), async |proxy| {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_all(&[5, 1, 0]).await.unwrap();
        assert_eq!(read(&mut client, 2).await, [5, 0]);
        client.write_all(&request_5(1, to)).await.unwrap();
        assert_eq!(read(&mut client, 10).await, [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ask(&mut client, b"ping", "pong").await, "pong");
    })
    .await;
    assert_eq!(*received.lock().unwrap(), ["ping"]);
    let (metadata, kind) = &flows[0];
    assert_eq!(*kind, "tcp");
    assert_eq!(metadata.inbound_type, InboundType::Socks5);
    assert_eq!(metadata.destination(), to.into());
    assert_eq!(&*metadata.inbound, "test");
    assert_eq!(metadata.special_proxy.as_deref(), Some("via"));
    assert_ne!(metadata.inbound_address.port(), 0);
}

#[tokio::test]
async fn a_client_that_sends_everything_at_once_loses_nothing() {
    let (to, received) = server(vec![vec![("ping", "pong")]]).await;
    let flows = with_proxy(port(ListenerKind::Mixed), async |proxy| {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        let eager = [&[5, 1, 0][..], &request_5(1, to), b"ping"].concat();
        client.write_all(&eager).await.unwrap();
        read(&mut client, 12).await;
        assert_eq!(read_until(&mut client, "pong").await, "pong");
    })
    .await;
    assert_eq!(*received.lock().unwrap(), ["ping"]);
    assert_eq!(flows[0].1, "boxed");
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let (to, _) = server(vec![vec![("ping", "pong")]]).await;
    with_proxy(closed_port(ListenerKind::Mixed), async |proxy| {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.set_nodelay(true).unwrap();
        for byte in [&[5, 2, 0, 2, 1, 1, b'u', 1, b'p'][..], &request_5(1, to)].concat() {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        read(&mut client, 14).await;
        assert_eq!(ask(&mut client, b"ping", "pong").await, "pong");
    })
    .await;
}

#[tokio::test]
async fn socks_4_and_4a_connect() {
    let (to, _) = server(vec![vec![("ping", "pong")], vec![("ping", "pong")]]).await;
    let by_name = SocketAddr::from(([0, 0, 0, 1], to.port()));
    let flows = with_proxy(port(ListenerKind::Mixed), async |proxy| {
        for request in [
            request_4(to, b"me\0"),
            request_4(by_name, b"\x00127.0.0.1\x00"),
        ] {
            let mut client = TcpStream::connect(proxy).await.unwrap();
            client.write_all(&request).await.unwrap();
            assert_eq!(read(&mut client, 8).await, codec::reply_4(true));
            assert_eq!(ask(&mut client, b"ping", "pong").await, "pong");
        }
    })
    .await;
    assert!(
        flows
            .iter()
            .all(|(flow, _)| flow.inbound_type == InboundType::Socks4)
    );
}

#[tokio::test]
async fn users_log_in_before_they_ask() {
    let (to, _) = server(vec![vec![("ping", "pong")]]).await;
    let flows = with_proxy(closed_port(ListenerKind::Socks), async |proxy| {
        // No login offered.
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_all(&[5, 1, 0]).await.unwrap();
        assert_eq!(read(&mut client, 2).await, [5, 0xff]);
        assert!(closed(&mut client).await);
        // A wrong one.
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_all(&[5, 2, 0, 2]).await.unwrap();
        assert_eq!(read(&mut client, 2).await, [5, 2]);
        client.write_all(&[1, 1, b'u', 1, b'x']).await.unwrap();
        assert_eq!(read(&mut client, 2).await, [1, 1]);
        assert!(closed(&mut client).await);
        // SOCKS 4 has no password to send.
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_all(&request_4(to, b"u\0")).await.unwrap();
        assert_eq!(read(&mut client, 8).await, codec::reply_4(false));
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_all(&request_4(to, b"alone\0")).await.unwrap();
        assert_eq!(read(&mut client, 8).await, codec::reply_4(true));
        assert_eq!(ask(&mut client, b"ping", "pong").await, "pong");
    })
    .await;
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].0.inbound_user.as_deref(), Some("alone"));
}

#[tokio::test]
async fn where_no_login_is_needed_any_will_do() {
    with_proxy(port(ListenerKind::Socks), async |proxy| {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client
            .write_all(&[5, 1, 2, 1, 1, b'x', 1, b'y'])
            .await
            .unwrap();
        assert_eq!(read(&mut client, 4).await, [5, 2, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn bind_and_unknown_addresses_are_refused() {
    let mut no_udp = port(ListenerKind::Socks);
    no_udp.udp = false;
    let to = "192.0.2.1:1".parse().unwrap();
    let flows = with_proxy(no_udp, async |proxy| {
        for (request, code) in [
            (request_5(2, to), 7),
            (request_5(3, to), 7),
            (b"\x05\x01\x00\x09\x00".to_vec(), 8),
            (b"\x05\x01\x00\x03\x01 \x00\x00".to_vec(), 1),
        ] {
            let mut client = TcpStream::connect(proxy).await.unwrap();
            client.write_all(&[5, 1, 0]).await.unwrap();
            client.write_all(&request).await.unwrap();
            assert_eq!(read(&mut client, 12).await[2..4], [5, code]);
            assert!(closed(&mut client).await);
        }
    })
    .await;
    assert!(flows.is_empty());
}

#[tokio::test]
async fn other_protocols_and_strangers_are_closed_without_a_word() {
    let mut port = port(ListenerKind::Socks);
    with_proxy(
        super::super::testing::port(ListenerKind::Socks),
        async |proxy| {
            let mut client = TcpStream::connect(proxy).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert!(closed(&mut client).await);
        },
    )
    .await;
    let access = super::super::access::Access::default();
    port.access = Arc::new(access.restricted(&[], &["127.0.0.0/8".parse().unwrap()]));
    with_proxy(port, async |proxy| {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        assert!(closed(&mut client).await);
    })
    .await;
}

/// Opens an association: the control connection and where datagrams go.
async fn associate(proxy: SocketAddr) -> (TcpStream, SocketAddr) {
    let mut control = TcpStream::connect(proxy).await.unwrap();
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let request = [&[5, 1, 0][..], &request_5(3, nowhere)].concat();
    control.write_all(&request).await.unwrap();
    let answer = read(&mut control, 12).await;
    assert_eq!(answer[..7], [5, 0, 5, 0, 0, 1, 127]);
    let (relay, _) = codec::datagram(&[&[0, 0, 0], &answer[5..]].concat()).unwrap();
    (control, relay.to_string().parse().unwrap())
}

#[tokio::test]
async fn datagrams_go_out_and_come_back_with_their_addresses() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = peer.local_addr().unwrap();
    let flows = with_proxy(port(ListenerKind::Socks), async |proxy| {
        let (_control, relay) = associate(proxy).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut fragment = codec::reply_datagram(&to.into(), b"part");
        fragment[2] = 1;
        client.send_to(&fragment, relay).await.unwrap();
        client.send_to(b"nonsense", relay).await.unwrap();
        let ping = codec::reply_datagram(&to.into(), b"ping");
        client.send_to(&ping, relay).await.unwrap();
        let mut buffer = [0; 64];
        let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"ping");
        peer.send_to(b"pong", from).await.unwrap();
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(from, relay);
        let answer = codec::datagram(&buffer[..length]);
        assert_eq!(answer, Some((to.into(), &b"pong"[..])));
    })
    .await;
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].0.network, Network::Udp);
}

#[tokio::test]
async fn an_association_takes_nobody_elses_datagrams() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = peer.local_addr().unwrap();
    let flows = with_proxy(port(ListenerKind::Socks), async |proxy| {
        let (_control, relay) = associate(proxy).await;
        let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let datagram = |payload| codec::reply_datagram(&to.into(), payload);
        stranger.send_to(&datagram(b"theirs"), relay).await.unwrap();
        client.send_to(&datagram(b"ours"), relay).await.unwrap();
        let mut buffer = [0; 64];
        let length = peer.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"ours");
    })
    .await;
    assert_eq!(flows.len(), 1);
}

#[tokio::test]
async fn an_association_ends_with_its_connection() {
    with_proxy(port(ListenerKind::Socks), async |proxy| {
        let (control, relay) = associate(proxy).await;
        // The port is taken while the connection stands and free soon after.
        assert!(UdpSocket::bind(relay).await.is_err());
        drop(control);
        while UdpSocket::bind(relay).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_ipv4_client_of_a_port_of_both_families_is_ipv4_throughout() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = peer.local_addr().unwrap();
    let mut both = port(ListenerKind::Socks);
    both.address = "[::]:0".parse().unwrap();
    let flows = with_proxy(both, async |proxy| {
        let (_control, relay) = associate(([127, 0, 0, 1], proxy.port()).into()).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let ping = codec::reply_datagram(&to.into(), b"ping");
        client.send_to(&ping, relay).await.unwrap();
        assert_eq!(peer.recv(&mut [0; 64]).await.unwrap(), 4);
    })
    .await;
    assert!(flows[0].0.source.is_ipv4());
}
