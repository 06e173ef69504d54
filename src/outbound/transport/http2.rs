//! Streams of HTTP/2 as carriers: gRPC ("gun"), plain bodies (`h2`), and the CONNECTs of sing-mux's h2mux.
//!
//! `h2` owns the frames; here are requests, the streams of both ends, and the client's connection. Many
//! streams share one connection, as mihomo has it: a handshake less for each flow, and what a web page
//! opens at once goes out in one round trip. A connection is asked every [`PING_TIME`] whether it lives;
//! one that is silent or unused for two of them is closed. No task outlives it: its driver ends with it,
//! and it ends when neither its session nor a stream of it is left.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::interval;

use super::gun::{self, Messages};
use super::upgrade::HeadError;
use crate::outbound::carrier::Carrier;
use crate::outbound::sessions::{Counted, Session, Usage};
use crate::outbound::{BoxFuture, ByteStream};

/// What a peer may send of one stream before it is read, and of all streams of a connection.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// As [`STREAM_WINDOW`], of all streams.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What one stream may have waiting to be sent.
pub const SEND_BYTES_MAX: usize = 64 * 1024;

/// All fields of an answer.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;

/// How often a connection is asked whether it lives.
const PING_TIME: Duration = Duration::from_secs(30);

/// Payload of a frame where nothing stands before it.
const PIECE_MAX: usize = 16 * 1024;

/// `content-type` of gRPC.
pub const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What streams ask for.
pub struct Asking {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    gun: bool,
}

/// The path of gRPC's streams of `service`: `/NAME/Tun`, or a whole path when it begins with a slash, of
/// which `|` parts the name of the method that carries several pieces a message.
#[must_use]
pub fn gun_path(service: &str) -> String {
    match service.strip_prefix('/') {
        Some(path) => format!("/{}", path.split('|').next().unwrap_or_default()),
        None => format!("/{service}/Tun"),
    }
}

impl Asking {
    /// A stream of gRPC's `service` at `host`.
    ///
    /// # Errors
    /// [`HeadError`]: they make no address.
    pub fn gun(host: &str, service: &str) -> Result<Self, HeadError> {
        let headers = [
            (http::header::CONTENT_TYPE, GRPC),
            (http::header::TE, HeaderValue::from_static("trailers")),
            // Servers behind a web server's rules expect the library's own.
            (
                http::header::USER_AGENT,
                HeaderValue::from_static("grpc-go/1.36.0"),
            ),
        ];
        Ok(Self {
            method: Method::POST,
            uri: address(host, &gun_path(service))?,
            headers: headers.into_iter().collect(),
            gun: true,
        })
    }

    /// A body at `path` of `host`.
    ///
    /// # Errors
    /// As [`Asking::gun`].
    pub fn body(host: &str, path: &str) -> Result<Self, HeadError> {
        Ok(Self {
            method: Method::PUT,
            uri: address(host, path)?,
            headers: HeaderMap::new(),
            gun: false,
        })
    }

    /// A CONNECT to what `host` stands for.
    #[must_use]
    pub fn connect(host: &'static str) -> Self {
        Self {
            method: Method::CONNECT,
            uri: Uri::from_static(host),
            headers: HeaderMap::new(),
            gun: false,
        }
    }

    fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

fn address(host: &str, path: &str) -> Result<Uri, HeadError> {
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    let built = Uri::builder()
        .scheme("https")
        .authority(host)
        .path_and_query(path)
        .build();
    built.map_err(|_| HeadError::Path)
}

/// A client's connection.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    usage: Arc<Usage>,
    asking: Arc<Asking>,
}

impl Http2 {
    /// Begins a connection on `carrier`; its streams ask for `asking`.
    ///
    /// # Errors
    /// What the carrier says.
    pub async fn begin(carrier: Carrier, asking: Arc<Asking>) -> io::Result<Self> {
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .max_send_buffer_size(SEND_BYTES_MAX)
            .handshake::<_, Bytes>(carrier)
            .await;
        let (sender, connection) = handshake.map_err(broken)?;
        let usage = Arc::<Usage>::default();
        // Ends with the connection: see above.
        tokio::spawn(drive(connection, Arc::clone(&usage)));
        Ok(Self {
            sender,
            usage,
            asking,
        })
    }
}

impl Session for Http2 {
    fn usage(&self) -> &Usage {
        &self.usage
    }

    fn streams_max(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    fn open(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        let counted = self.usage.count();
        let mut sender = self.sender.clone();
        Box::pin(async move {
            let counted = counted.ok_or(io::ErrorKind::BrokenPipe)?;
            std::future::poll_fn(|cx| sender.poll_ready(cx))
                .await
                .map_err(broken)?;
            let request = self.asking.request();
            let (answer, outgoing) = sender.send_request(request, false).map_err(broken)?;
            let incoming = Incoming::Awaited(answer);
            let stream = Http2Stream::new(outgoing, incoming, self.asking.gun, Some(counted));
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}

/// Moves a connection's frames to its end.
async fn drive(mut connection: Connection<Carrier, Bytes>, usage: Arc<Usage>) {
    let mut ping = connection.ping_pong();
    let mut connection = pin!(connection);
    let mut clock = interval(PING_TIME);
    clock.tick().await;
    let (mut unanswered, mut unused) = (0, 0);
    loop {
        tokio::select! {
            _ended = &mut connection => break,
            () = pong(&mut ping), if unanswered > 0 => unanswered = 0,
            _ = clock.tick() => {
                unused = if usage.streams() == 0 { unused + 1 } else { 0 };
                if unanswered >= 2 || unused >= 2 && usage.end_unused() {
                    break;
                }
                if let Some(ping) = &mut ping
                    && (unanswered > 0 || ping.send_ping(Ping::opaque()).is_ok())
                {
                    unanswered += 1;
                }
            }
        }
    }
    usage.end();
}

async fn pong(ping: &mut Option<h2::PingPong>) {
    if let Some(ping) = ping {
        // What fails here fails in the connection too.
        let _answered = std::future::poll_fn(|cx| ping.poll_pong(cx)).await;
    }
}

/// What the peer sends.
pub enum Incoming {
    /// Nothing yet: a client's request is not answered.
    Awaited(ResponseFuture),
    /// A body.
    Body(RecvStream),
}

/// Why a server's answer is no stream.
#[derive(Debug)]
struct Refused(u16);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server answered {} to the request", self.0)
    }
}

impl std::error::Error for Refused {}

/// One stream of either end.
pub struct Http2Stream {
    outgoing: SendStream<Bytes>,
    incoming: Incoming,
    /// gRPC's messages around the bytes.
    messages: Option<Messages>,
    /// Bytes as they came, and those of them that are data.
    frame: Bytes,
    data: Bytes,
    finished: bool,
    /// A client's; a server ends with trailers.
    counted: Option<Counted>,
}

impl Http2Stream {
    /// A stream, with gRPC's messages around its bytes or without. `counted`: the client's end.
    #[must_use]
    pub fn new(
        outgoing: SendStream<Bytes>,
        incoming: Incoming,
        gun: bool,
        counted: Option<Counted>,
    ) -> Self {
        Self {
            outgoing,
            incoming,
            messages: gun.then(Messages::default),
            frame: Bytes::new(),
            data: Bytes::new(),
            finished: false,
            counted,
        }
    }

    /// The next bytes of data; empty: the peer has ended.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(messages) = &mut self.messages {
                let taken = messages.take(&mut self.frame);
                self.data = taken.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            } else {
                self.data = std::mem::take(&mut self.frame);
            }
            if !self.data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let body = match &mut self.incoming {
                Incoming::Body(body) => body,
                Incoming::Awaited(answer) => {
                    let answer = ready!(Pin::new(answer).poll(cx)).map_err(broken)?;
                    let status = answer.status().as_u16();
                    if status != 200 {
                        let refused = Refused(status);
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::ConnectionRefused,
                            refused,
                        )));
                    }
                    self.incoming = Incoming::Body(answer.into_body());
                    continue;
                }
            };
            match ready!(body.poll_data(cx)) {
                Some(Ok(frame)) => {
                    let credit = body.flow_control().release_capacity(frame.len());
                    credit.map_err(broken)?;
                    self.frame = frame;
                }
                // NO_ERROR is how a server ends whose client has not.
                Some(Err(error)) if error.reason() != Some(Reason::NO_ERROR) => {
                    return Poll::Ready(Err(broken(error)));
                }
                _ if self.messages.as_ref().is_none_or(Messages::may_end) => {
                    return Poll::Ready(Ok(()));
                }
                _ => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.data.is_empty() {
            ready!(this.poll_data(cx))?;
        }
        let n = this.data.len().min(buffer.remaining());
        buffer.put_slice(this.data.get(..n).unwrap_or_default());
        this.data.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let head = if this.messages.is_some() {
            gun::HEAD_MAX
        } else {
            0
        };
        let wanted = bytes.len().min(PIECE_MAX - head);
        this.outgoing.reserve_capacity(wanted + head);
        while this.outgoing.capacity() == 0 {
            match ready!(this.outgoing.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        // A head alone would say nothing: what exceeds the window by so little waits in `h2`.
        let most = this.outgoing.capacity().saturating_sub(head).max(1);
        let (frame, taken) = match this.messages {
            Some(_) => gun::message(bytes, most.min(wanted)),
            None => {
                let taken = bytes.get(..most.min(wanted)).unwrap_or(bytes);
                (Bytes::copy_from_slice(taken), taken.len())
            }
        };
        this.outgoing.send_data(frame, false).map_err(broken)?;
        Poll::Ready(Ok(taken))
    }

    /// The driver sends whatever waits.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.finished, true) {
            let ended = match (&this.messages, &this.counted) {
                (Some(_), None) => {
                    let status = (
                        http::HeaderName::from_static("grpc-status"),
                        HeaderValue::from_static("0"),
                    );
                    this.outgoing.send_trailers(HeaderMap::from_iter([status]))
                }
                _ => this.outgoing.send_data(Bytes::new(), true),
            };
            ended.map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// A client's connection to a server that echoes calls of `way` and knows no other.
    async fn pair(asking: Asking, gun: bool) -> Http2 {
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(async move {
            let far = Carrier::Boxed(Box::new(far));
            let mut calls = h2::server::handshake(far).await.unwrap();
            while let Some(Ok((request, mut respond))) = calls.accept().await {
                let mut answer = http::Response::new(());
                if !request.uri().path().starts_with("/way") {
                    *answer.status_mut() = http::StatusCode::NOT_FOUND;
                    respond.send_response(answer, true).unwrap();
                    continue;
                }
                let outgoing = respond.send_response(answer, false).unwrap();
                let incoming = Incoming::Body(request.into_body());
                let stream = Http2Stream::new(outgoing, incoming, gun, None);
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                    writer.shutdown().await.unwrap();
                });
            }
        });
        let near = Carrier::Boxed(Box::new(near));
        Http2::begin(near, Arc::new(asking)).await.unwrap()
    }

    async fn echo(session: &Http2, bytes: usize) {
        let (mut reader, mut writer) = tokio::io::split(session.open().await.unwrap());
        let text: Vec<u8> = (0..251).cycle().take(bytes).collect();
        let sending = async {
            writer.write_all(&text).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let ((), read) = tokio::join!(sending, reader.read_to_end(&mut back));
        read.unwrap();
        assert!(back == text);
    }

    #[tokio::test]
    async fn streams_of_one_connection_pass_both_ways_to_their_ends() {
        for gun in [true, false] {
            let asking = match gun {
                true => Asking::gun("h.test", "way"),
                false => Asking::body("h.test", "/way"),
            };
            let session = pair(asking.unwrap(), gun).await;
            tokio::join!(echo(&session, 2_000_000), echo(&session, 5));
            assert_eq!(session.usage().streams(), 0);
        }
    }

    #[tokio::test]
    async fn a_path_that_the_server_does_not_know_is_an_error() {
        let session = pair(Asking::gun("h.test", "other").unwrap(), true).await;
        let mut stream = session.open().await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), "server answered 404 to the request");
    }

    #[test]
    fn a_service_has_a_name_or_a_path() {
        assert_eq!(gun_path("way"), "/way/Tun");
        assert_eq!(gun_path("/a/b/One|Many"), "/a/b/One");
        assert!(Asking::gun("2001:db8::1", "way").is_ok());
        assert!(Asking::body("a b", "/").is_err());
    }
}
