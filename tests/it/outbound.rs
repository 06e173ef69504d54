//! Outbounds against real servers on 127.0.0.1: shadowsocks-libev, dante, tinyproxy.
//!
//! A server that is not installed is named on stderr and its test passes, except where `CI` is
//! set: there it fails. `SSSERVER` names a server of the 2022 edition (shadowsocks-rust).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking"
)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use headgate::metadata::{Endpoint, InboundType, Metadata, Network};
use headgate::outbound::dial::Environment;
use headgate::outbound::options::{
    Credentials, DialOptions, HttpOptions, Protocol, ProxyOptions, ServerAddress,
    ShadowsocksOptions, Socks5Options, TlsOptions,
};
use headgate::outbound::registry::Registry;
use headgate::outbound::{BoxFuture, IpVersion, Outbound, Purpose, Resolve, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// Names of this test: `both.test` has an IPv6 address at which nobody listens, then 127.0.0.1.
struct Names;

impl Resolve for Names {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        _version: IpVersion,
        _purpose: Purpose,
    ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let found = match name {
            "local.test" => Ok(vec!["127.0.0.1".parse().unwrap()]),
            "both.test" => Ok(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        Box::pin(std::future::ready(found))
    }
}

/// A server process that ends with the test.
struct Peer(Child);

impl Peer {
    /// Starts `program` and waits for `port`. `None`: it is not installed.
    fn start(program: &str, arguments: &[&str], port: u16) -> Option<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{program}: {error}");
                eprintln!("SKIPPED: {program}: {error}");
                return None;
            }
        };
        let peer = Self(child);
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(peer);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{program} does not listen on {port}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _dead = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Servers of ours that the proxies are asked to reach.
struct Targets {
    /// Sends back what it gets, until the end of the stream.
    echo: u16,
    /// Says hello without being asked, and closes.
    greeter: u16,
    /// Sends datagrams back.
    udp_echo: u16,
}

impl Targets {
    fn start() -> Self {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let greeter = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let targets = Self {
            echo: echo.local_addr().unwrap().port(),
            greeter: greeter.local_addr().unwrap().port(),
            udp_echo: udp.local_addr().unwrap().port(),
        };
        std::thread::spawn(move || {
            for stream in echo.incoming().map_while(Result::ok) {
                std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        std::thread::spawn(move || {
            for mut stream in greeter.incoming().map_while(Result::ok) {
                let _sent = stream.write_all(b"220 hello\r\n");
            }
        });
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok((n, from)) = udp.recv_from(&mut bytes) {
                let _sent = udp.send_to(&bytes[..n], from);
            }
        });
        targets
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn proxy(name: &str, protocol: Protocol) -> ProxyOptions {
    ProxyOptions {
        name: name.into(),
        protocol,
        udp: true,
        dial: DialOptions::default(),
        mux: None,
    }
}

fn server(host: &str, port: u16) -> ServerAddress {
    ServerAddress {
        host: host.into(),
        port,
    }
}

fn shadowsocks(port: u16, cipher: &str, password: &str) -> Protocol {
    Protocol::Shadowsocks(ShadowsocksOptions {
        server: server("local.test", port),
        cipher: cipher.into(),
        password: password.into(),
        plugin: None,
    })
}

fn registry(proxies: &[ProxyOptions]) -> Registry {
    let environment = Environment {
        resolver: Arc::new(Names),
        own_mark: 0,
        routing_mark: 0,
        interface: None,
        ipv6: true,
        reach: Arc::default(),
    };
    Registry::build(proxies, &[], &[], &environment, &HashMap::new(), None).unwrap()
}

fn to(network: Network, destination: &str) -> Metadata {
    let client = SocketAddr::from(([127, 0, 0, 1], 1));
    let destination = Endpoint::parse(destination).unwrap();
    Metadata::new(
        network,
        InboundType::Inner,
        &Arc::from("TEST"),
        client,
        destination,
    )
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

async fn connect(outbound: &Arc<dyn Outbound>, destination: &str) -> Box<dyn Both> {
    let metadata = to(Network::Tcp, destination);
    match outbound.connect(&metadata).await.unwrap() {
        Stream::Tcp(stream) => Box::new(stream),
        Stream::Boxed(stream) => Box::new(stream),
        Stream::Shedding(stream) => Box::new(stream),
        Stream::Closed | Stream::Silent => panic!("rejected"),
    }
}

/// Bytes there and back, the client's end carried across and answered, and a server that speaks first.
async fn check_tcp(outbound: &Arc<dyn Outbound>, host: &str, targets: &Targets) {
    let text: Vec<u8> = (0..500_000u32).map(|i| (i % 253) as u8).collect();
    let stream = connect(outbound, &format!("{host}:{}", targets.echo)).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = text.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.flush().await.unwrap();
        writer
    });
    let mut received = vec![0; text.len()];
    let reading = reader.read_exact(&mut received);
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert!(received == text);
    // Not before all is back: these servers drop what is under way when one side ends.
    let mut writer = writing.await.unwrap();
    writer.shutdown().await.unwrap();
    let end = timeout(PATIENCE, reader.read(&mut received));
    assert_eq!(end.await.unwrap().unwrap(), 0);

    let mut stream = connect(outbound, &format!("{host}:{}", targets.greeter)).await;
    let mut hello = [0; 11];
    timeout(PATIENCE, stream.read_exact(&mut hello))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&hello, b"220 hello\r\n");
}

/// Datagrams there and back; shadowsocks-libev drops what exceeds 1397 bytes.
async fn check_udp(outbound: &Arc<dyn Outbound>, host: &str, targets: &Targets) {
    let destination = format!("{host}:{}", targets.udp_echo);
    let metadata = to(Network::Udp, &destination);
    let datagrams = outbound.associate(&metadata).await.unwrap();
    let endpoint = Endpoint::parse(&destination).unwrap();
    for size in [1, 512, 1300] {
        let payload = vec![size as u8; size];
        datagrams.send_to(&payload, &endpoint).await.unwrap();
        let mut bytes = vec![0; 65536];
        let mut buffer = ReadBuf::new(&mut bytes);
        let receiving = std::future::poll_fn(|cx| datagrams.poll_recv_from(cx, &mut buffer));
        let sender = timeout(PATIENCE, receiving).await.unwrap().unwrap();
        assert_eq!(sender.port(), targets.udp_echo);
        assert_eq!(buffer.filled(), payload);
    }
}

#[tokio::test]
async fn direct_reaches_names_addresses_and_the_family_that_answers() {
    let targets = Targets::start();
    let registry = registry(&[]);
    let direct = registry.get("DIRECT").unwrap();
    for host in ["127.0.0.1", "local.test", "both.test"] {
        check_tcp(direct, host, &targets).await;
    }
    check_udp(direct, "127.0.0.1", &targets).await;
    check_udp(direct, "local.test", &targets).await;
    let unknown = to(Network::Tcp, "unknown.test:80");
    let error = direct.connect(&unknown).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn aead_ciphers_agree_with_shadowsocks_libev() {
    let targets = Targets::start();
    for cipher in ["aes-128-gcm", "aes-256-gcm", "chacha20-ietf-poly1305"] {
        let port = free_port();
        let number = port.to_string();
        let listen = [
            "-s",
            "127.0.0.1",
            "-p",
            &number,
            "-k",
            "secret",
            "-m",
            cipher,
            "-u",
        ];
        let Some(_peer) = Peer::start("ss-server", &listen, port) else {
            return;
        };
        let registry = registry(&[
            proxy("ss", shadowsocks(port, cipher, "secret")),
            proxy("wrong", shadowsocks(port, cipher, "other")),
        ]);
        let outbound = registry.get("ss").unwrap();
        check_tcp(outbound, "127.0.0.1", &targets).await;
        check_udp(outbound, "127.0.0.1", &targets).await;

        let wrong = registry.get("wrong").unwrap();
        let mut stream = connect(wrong, &format!("127.0.0.1:{}", targets.echo)).await;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _closed = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn ciphers_of_2022_agree_with_shadowsocks_rust() {
    let Some(program) = std::env::var_os("SSSERVER") else {
        eprintln!("SKIPPED: SSSERVER is not set");
        return;
    };
    let program = program.into_string().unwrap();
    let targets = Targets::start();
    let (key16, key32) = (
        "AAECAwQFBgcICQoLDA0ODw==",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    );
    let user16 = "QEFCQ0RFRkdISUpLTE1OTw==";
    for (cipher, key, user) in [
        ("2022-blake3-aes-128-gcm", key16, None),
        ("2022-blake3-aes-256-gcm", key32, None),
        ("2022-blake3-chacha20-poly1305", key32, None),
        ("2022-blake3-aes-128-gcm", key16, Some(user16)),
    ] {
        let port = free_port();
        let users = user.map_or(String::new(), |user| {
            format!(r#","users":[{{"name":"u","password":"{user}"}}]"#)
        });
        let text = format!(
            r#"{{"servers":[{{"server":"127.0.0.1","server_port":{port},"method":"{cipher}","password":"{key}","mode":"tcp_and_udp"{users}}}]}}"#
        );
        let file = temporary(&format!("ssserver-{port}.json"), &text);
        let Some(_peer) = Peer::start(&program, &["-c", file.to_str().unwrap()], port) else {
            return;
        };
        let password = user.map_or(key.to_owned(), |user| format!("{key}:{user}"));
        let registry = registry(&[proxy("ss", shadowsocks(port, cipher, &password))]);
        let outbound = registry.get("ss").unwrap();
        check_tcp(outbound, "127.0.0.1", &targets).await;
        check_udp(outbound, "127.0.0.1", &targets).await;
        let _removed = std::fs::remove_file(file);
    }
}

fn temporary(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("headgate-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

fn dante(port: u16) -> Option<Peer> {
    let text = format!(
        "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\n\
         clientmethod: none\nsocksmethod: none\n\
         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n"
    );
    let file = temporary(&format!("danted-{port}.conf"), &text);
    let peer = Peer::start("danted", &["-f", file.to_str().unwrap()], port);
    let _removed = std::fs::remove_file(file);
    peer
}

fn socks5(port: u16) -> Protocol {
    Protocol::Socks5(Socks5Options {
        server: server("127.0.0.1", port),
        credentials: None,
        tls: None,
    })
}

#[tokio::test]
async fn socks5_agrees_with_dante_and_carries_shadowsocks() {
    let targets = Targets::start();
    let port = free_port();
    let Some(_dante) = dante(port) else {
        return;
    };
    let ss_port = free_port();
    let number = ss_port.to_string();
    let cipher = "chacha20-ietf-poly1305";
    let listen = [
        "-s",
        "127.0.0.1",
        "-p",
        &number,
        "-k",
        "secret",
        "-m",
        cipher,
        "-u",
    ];
    let Some(_ss) = Peer::start("ss-server", &listen, ss_port) else {
        return;
    };
    let mut behind = proxy("behind", shadowsocks(ss_port, cipher, "secret"));
    behind.dial.dialer_proxy = Some("socks".into());
    let Protocol::Shadowsocks(options) = &mut behind.protocol else {
        return;
    };
    options.server.host = "127.0.0.1".into();
    let registry = registry(&[behind, proxy("socks", socks5(port))]);
    for name in ["socks", "behind"] {
        let outbound = registry.get(name).unwrap();
        check_tcp(outbound, "127.0.0.1", &targets).await;
        check_udp(outbound, "127.0.0.1", &targets).await;
    }
}

#[tokio::test]
async fn http_agrees_with_tinyproxy() {
    let targets = Targets::start();
    let port = free_port();
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\nBasicAuth user secret\n"
    );
    let file = temporary(&format!("tinyproxy-{port}.conf"), &text);
    let Some(_peer) = Peer::start("tinyproxy", &["-d", "-c", file.to_str().unwrap()], port) else {
        return;
    };
    let _removed = std::fs::remove_file(file);
    let http = |password: &str| {
        Protocol::Http(HttpOptions {
            server: server("127.0.0.1", port),
            credentials: Some(Credentials {
                username: "user".into(),
                password: password.into(),
                ..Credentials::default()
            }),
            tls: None,
            headers: vec![("X-Test".into(), "1".into())],
        })
    };
    let registry = registry(&[proxy("http", http("secret")), proxy("wrong", http("guess"))]);
    check_tcp(registry.get("http").unwrap(), "127.0.0.1", &targets).await;
    let wrong = registry.get("wrong").unwrap();
    let error = wrong
        .connect(&to(Network::Tcp, "127.0.0.1:9"))
        .await
        .err()
        .unwrap();
    assert!(matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ConnectionRefused
    ));
}

/// A TLS server that grants CONNECT and then sends back what it gets.
const TLS_PROXY: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def serve(client):
    try:
        stream = context.wrap_socket(client, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(4096)
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello ")
        while data := stream.recv(4096):
            stream.sendall(data)
    except OSError:
        pass
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"#;

#[tokio::test]
async fn tls_takes_the_pinned_certificate_and_refuses_a_strange_one() {
    let Some((key, certificate, pin)) = self_signed() else {
        return;
    };
    let port = free_port();
    let number = port.to_string();
    let files = [&certificate, &key].map(|path| path.to_str().unwrap());
    let arguments = ["-c", TLS_PROXY, &number, files[0], files[1]];
    let Some(_peer) = Peer::start("python3", &arguments, port) else {
        return;
    };
    let http = |tls: TlsOptions| {
        Protocol::Http(HttpOptions {
            server: server("127.0.0.1", port),
            credentials: None,
            tls: Some(tls),
            headers: Vec::new(),
        })
    };
    let pinned = |pin| TlsOptions {
        fingerprint: Some(pin),
        ..TlsOptions::default()
    };
    let skip = TlsOptions {
        skip_verify: true,
        server_name: Some("proxy.test".into()),
        ..TlsOptions::default()
    };
    let registry = registry(&[
        proxy("pin", http(pinned(pin))),
        proxy("skip", http(skip)),
        proxy("strange", http(TlsOptions::default())),
        proxy("other", http(pinned([0; 32]))),
    ]);
    for name in ["pin", "skip"] {
        let mut stream = connect(registry.get(name).unwrap(), "a.test:1").await;
        stream.write_all(b"world").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 11];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello world");
    }
    for name in ["strange", "other"] {
        let metadata = to(Network::Tcp, "a.test:1");
        let refused = registry.get(name).unwrap().connect(&metadata).await;
        let error = refused.err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    for file in [key, certificate] {
        let _removed = std::fs::remove_file(file);
    }
}

/// Files with a new key and its certificate, and the certificate's SHA-256.
fn self_signed() -> Option<(PathBuf, PathBuf, [u8; 32])> {
    let key = temporary("key.pem", "");
    let certificate = temporary("certificate.pem", "");
    let der = temporary("certificate.der", "");
    let (key_path, path) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let made = openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=proxy.test",
        "-keyout",
        key_path,
        "-out",
        path,
    ]);
    if !made
        || !openssl(&[
            "x509",
            "-in",
            path,
            "-outform",
            "DER",
            "-out",
            der.to_str().unwrap(),
        ])
    {
        return None;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, &std::fs::read(&der).unwrap());
    let _removed = std::fs::remove_file(der);
    Some((key, certificate, digest.as_ref().try_into().unwrap()))
}

fn openssl(arguments: &[&str]) -> bool {
    match Command::new("openssl")
        .args(arguments)
        .stderr(Stdio::null())
        .status()
    {
        Ok(status) => status.success(),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "openssl: {error}");
            eprintln!("SKIPPED: openssl: {error}");
            false
        }
    }
}

#[tokio::test]
async fn dialers_that_lead_back_are_refused() {
    let mut a = proxy("a", socks5(1));
    a.dial.dialer_proxy = Some("GLOBAL".into());
    let registry = registry(&[a]);
    assert!(registry.get("GLOBAL").unwrap().select("a"));
    let outbound = registry.get("a").unwrap();
    let error = outbound
        .connect(&to(Network::Tcp, "127.0.0.1:9"))
        .await
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "dialer-proxy loop");
}

/// The bytes that a connection to a listening port receives, for peers that are ours.
#[tokio::test]
async fn the_first_bytes_travel_with_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let registry = registry(&[proxy("ss", shadowsocks(port, "aes-128-gcm", "secret"))]);
    let mut stream = connect(registry.get("ss").unwrap(), "192.0.2.1:80").await;
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let mut bytes = [0; 1024];
    // Salt, one chunk of seven bytes of address and five of payload.
    assert_eq!(peer.read(&mut bytes).unwrap(), 16 + 2 + 16 + 7 + 5 + 16);
}
