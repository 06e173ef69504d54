//! The relay between real sockets: every byte, both ends, every kind of stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use headgate::metadata::{Endpoint, InboundType, Metadata, Network};
use headgate::outbound::Stream;
use headgate::platform::clock;
use headgate::tunnel::connections::{Connection, Connections};
use headgate::tunnel::policy::{Level, Policy};
use headgate::tunnel::relay::relay;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn opened(table: &Connections) -> Arc<Connection> {
    let to = Endpoint::parse("192.0.2.1:80").unwrap();
    let from = "192.0.2.2:4000".parse().unwrap();
    let metadata = Metadata::new(Network::Tcp, InboundType::TProxy, &"T".into(), from, to);
    table.open(metadata, vec!["DIRECT".into()], None, Duration::ZERO)
}

/// A relay between `client` and `remote` in a task, and its counts.
fn start(
    client: Stream,
    remote: Stream,
) -> (Arc<Connection>, tokio::task::JoinHandle<io::Result<()>>) {
    let (connection, _, task) = start_by(None, client, remote);
    (connection, task)
}

/// The same by a policy for everybody, with its table.
fn start_by(
    level: Option<Level>,
    client: Stream,
    remote: Stream,
) -> (
    Arc<Connection>,
    Arc<Connections>,
    tokio::task::JoinHandle<io::Result<()>>,
) {
    let table = Arc::new(Connections::default());
    table.follow_policy(level.map(|level| Policy {
        levels: [(0, level)].into(),
        ..Policy::default()
    }));
    let connection = opened(&table);
    let relayed = Arc::clone(&table);
    let flow = Arc::clone(&connection);
    let task = tokio::spawn(async move { relay(client, remote, &flow, &relayed).await });
    (connection, table, task)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Sends `up` and `down` through the relay at once and checks both ends.
async fn check(
    mut client: TcpStream,
    mut server: TcpStream,
    connection: &Connection,
    up: usize,
    down: usize,
) {
    let (want_up, want_down) = (pattern(up), pattern(down));
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
    let (a, b, c, d) = tokio::join!(
        async {
            client_write.write_all(&want_up).await?;
            client_write.shutdown().await
        },
        server_read.read_to_end(&mut got_up),
        async {
            server_write.write_all(&want_down).await?;
            server_write.shutdown().await
        },
        client_read.read_to_end(&mut got_down),
    );
    a.unwrap();
    b.unwrap();
    c.unwrap();
    d.unwrap();
    assert!(got_up == want_up && got_down == want_down);
    assert_eq!(connection.upload.get(), up as u64);
    assert_eq!(connection.download.get(), down as u64);
}

#[tokio::test]
async fn spliced_and_copied_bytes_arrive_whole_and_are_counted() {
    for (up, down) in [(0, 0), (1, 64), (100_000, 7), (3_000_000, 5_000_001)] {
        let ((client, inner), (outer, server)) = (pair().await, pair().await);
        let (connection, task) = start(Stream::Tcp(inner), Stream::Tcp(outer));
        check(client, server, &connection, up, down).await;
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn boxed_streams_are_relayed_alike() {
    for (up, down) in [(1, 64), (3_000_000, 2_000_001)] {
        let ((client, inner), (outer, server)) = (pair().await, pair().await);
        let (connection, task) = start(Stream::Boxed(Box::new(inner)), Stream::Tcp(outer));
        check(client, server, &connection, up, down).await;
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_direction_goes_on_after_the_other_has_ended() {
    let ((mut client, inner), (outer, mut server)) = (pair().await, pair().await);
    let (_connection, task) = start(Stream::Tcp(inner), Stream::Tcp(outer));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    server.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reset_is_carried_across_as_a_reset() {
    let ((mut client, inner), (outer, server)) = (pair().await, pair().await);
    let (_connection, task) = start(Stream::Tcp(inner), Stream::Tcp(outer));
    headgate::platform::socket::reset_on_close(&server);
    drop(server);
    assert!(task.await.unwrap().is_err());
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_closed_connection_ends_at_once() {
    let ((mut client, inner), (outer, _server)) = (pair().await, pair().await);
    let (connection, task) = start(Stream::Tcp(inner), Stream::Tcp(outer));
    connection.close();
    assert!(task.await.unwrap().is_err());
    assert!(client.read_u8().await.is_err());
}

#[tokio::test]
async fn a_reader_that_stalls_loses_nothing() {
    let ((mut client, inner), (outer, mut server)) = (pair().await, pair().await);
    let (_connection, task) = start(Stream::Tcp(inner), Stream::Tcp(outer));
    let want = pattern(8_000_000);
    let sent = want.clone();
    let sender = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    let mut got: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 10_000];
    while let Ok(n @ 1..) = server.read(&mut chunk).await {
        got.extend(&chunk[..n]);
        tokio::task::yield_now().await;
    }
    assert!(got == want);
    drop(server);
    drop(sender.await.unwrap());
    task.await.unwrap().unwrap();
}

fn small_buffer() -> Level {
    Level {
        buffer: 2,
        ..Level::default()
    }
}

#[tokio::test]
async fn a_small_buffer_carries_everything() {
    let ((client, inner), (outer, server)) = (pair().await, pair().await);
    let (inner, outer) = (Stream::Tcp(inner), Stream::Tcp(outer));
    let (connection, _, task) = start_by(Some(small_buffer()), inner, outer);
    check(client, server, &connection, 3_000_000, 2_000_000).await;
    task.await.unwrap().unwrap();
}

/// Ends at once, and notes how much was asked for.
struct Asked(Arc<AtomicUsize>);

impl AsyncRead for Asked {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.store(buffer.remaining(), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Asked {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn no_more_is_read_at_a_time_than_the_buffer_may_hold() {
    // The relay's own buffer is larger, however large it is.
    for (level, want) in [
        (None, 16 * 1024..=usize::MAX),
        (Some(small_buffer()), 2 * 1024..=2 * 1024),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let source = Stream::Boxed(Box::new(Asked(Arc::clone(&asked))));
        let (near, far) = duplex(16);
        drop(far);
        let (_, _, task) = start_by(level, source, Stream::Boxed(Box::new(near)));
        task.await.unwrap().unwrap();
        let asked = asked.load(Ordering::Relaxed);
        assert!(want.contains(&asked), "{asked}");
    }
}

#[tokio::test]
async fn who_waits_for_one_side_alone_waits_less() {
    let ((mut client, inner), (outer, mut server)) = (pair().await, pair().await);
    let (inner, outer) = (Stream::Tcp(inner), Stream::Tcp(outer));
    let (_, table, task) = start_by(Some(Level::default()), inner, outer);
    // More than `downlinkOnly`, less than `connIdle`.
    let cut = || table.cut_silent(clock::coarse() + 100);
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    cut();
    client.write_all(b"y").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'y');
    client.shutdown().await.unwrap();
    assert!(server.read_u8().await.is_err());
    while !task.is_finished() {
        cut();
        tokio::task::yield_now().await;
    }
    let error = task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert!(client.read_u8().await.is_err());
}
