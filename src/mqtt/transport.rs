//! What a listener's connections speak beneath MQTT: nothing, TLS, WebSocket, or both.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, crypto};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::options::{ListenerOptions, TlsOptions};
use super::websocket::WebSocket;

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
        Ok(Self {
            tls: options.tls.as_ref().map(acceptor).transpose()?,
            websocket: options.websocket,
        })
    }

    /// Does the handshakes.
    ///
    /// # Errors
    /// What went wrong on the way; the connection is of no use.
    pub async fn open(&self, stream: TcpStream) -> io::Result<Box<dyn Io>> {
        let stream: Box<dyn Io> = match &self.tls {
            Some(tls) => Box::new(tls.accept(stream).await?),
            None => Box::new(stream),
        };
        if self.websocket {
            return Ok(Box::new(WebSocket::accept(stream).await?));
        }
        Ok(stream)
    }
}

fn acceptor(options: &TlsOptions) -> io::Result<TlsAcceptor> {
    let chain = certificates(&options.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&options.private_key).map_err(io::Error::other)?;
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(io::Error::other)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(io::Error::other)?)
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &std::path::Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(io::Error::other)
}
