//! What a listener's connections speak beneath MQTT: nothing, TLS, WebSocket, or both.

use std::io::{self, IoSlice, Read, Write};
use std::net::{self, Shutdown};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::options::{ListenerOptions, TlsOptions};
use super::websocket::WebSocket;
use crate::outbound::certificate::{self, CertificateError};

/// The byte stream of a connection.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// How a listener's connections are opened.
pub struct Transport {
    tls: Option<TlsAcceptor>,
    websocket: bool,
}

impl Transport {
    /// Reads certificate and key, where there are some.
    ///
    /// # Errors
    /// Files that cannot be read, or that do not fit together.
    pub fn new(options: &ListenerOptions) -> io::Result<Self> {
        let tls = options.tls.as_ref().map(acceptor);
        Ok(Self {
            tls: tls.transpose().map_err(io::Error::other)?,
            websocket: options.websocket,
        })
    }

    /// Does the handshakes.
    ///
    /// # Errors
    /// What went wrong on the way; the connection is of no use.
    pub async fn open(&self, stream: TcpStream) -> io::Result<Opened> {
        let stream: Box<dyn Io> = match &self.tls {
            Some(tls) => Box::new(tls.accept(stream).await?),
            None if self.websocket => Box::new(stream),
            None => return Ok(Opened::Plain(stream)),
        };
        if self.websocket {
            let socket = WebSocket::accept(stream).await?;
            return Ok(Opened::Layered(Box::new(socket)));
        }
        Ok(Opened::Layered(stream))
    }
}

/// A connection that MQTT may begin on.
pub enum Opened {
    /// TCP and nothing else.
    Plain(TcpStream),
    /// With something between, which wants a task of its own.
    Layered(Box<dyn Io>),
}

impl Opened {
    /// Its bytes.
    pub fn io(&mut self) -> &mut dyn Io {
        match self {
            Self::Plain(stream) => stream,
            Self::Layered(io) => &mut **io,
        }
    }
}

/// A connection that MQTT has begun on.
pub enum Stream {
    /// One that is watched.
    Plain(Plain),
    /// One with a task.
    Layered(Box<dyn Io>),
}

impl Stream {
    /// Its bytes.
    pub fn io(&mut self) -> &mut dyn Io {
        match self {
            Self::Plain(plain) => plain,
            Self::Layered(io) => &mut **io,
        }
    }
}

/// A TCP connection whose readiness is watched by `platform::readiness`: it wakes nobody itself.
pub struct Plain(net::TcpStream);

impl Plain {
    /// Takes a connection from the runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        Ok(Self(stream.into_std()?))
    }

    /// What to watch.
    #[must_use]
    pub fn socket(&self) -> &net::TcpStream {
        &self.0
    }
}

/// Whether a call of a socket went through.
fn poll<T>(mut call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        return match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            done => Poll::Ready(done),
        };
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        poll(|| (&self.0).read(room)).map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll(|| (&self.0).write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll(|| (&self.0).write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}

fn acceptor(options: &TlsOptions) -> Result<TlsAcceptor, CertificateError> {
    let here = Path::new("");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (certificate, key) = (text(&options.certificate), text(&options.private_key));
    let (chain, key) = certificate::identity(&certificate, &key, here)?;
    let builder = certificate::server()?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificate::certificates(&text(path), here)? {
                roots.add(certificate)?;
            }
            let (roots, provider) = (Arc::new(roots), builder.crypto_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
            let verifier = verifier.build().map_err(|error| {
                CertificateError::Rejected(rustls::Error::General(error.to_string()))
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
