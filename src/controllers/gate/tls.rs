//! `external-controller-tls`: the same API behind rustls.
//!
//! The certificate is read once, when the listener opens. A client's handshake happens in its own
//! task, in the seat that it will keep, within [`HANDSHAKE_TIMEOUT`]. No message tells the content of
//! a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Dialects, Seat, client};
use crate::controllers::Cause;
use crate::controllers::http::access::Door;
use crate::controllers::options::Tls;
use crate::outbound::tls::crypto_provider;

/// For a whole handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a certificate chain or a key.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// What is wrong with the certificate or its key.
#[derive(Debug)]
enum TlsFileError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// No certificate in what `tls.certificate` names.
    NoCertificate,
    /// No private key in what `tls.private-key` names.
    NoKey,
}

impl fmt::Display for TlsFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoCertificate => f.write_str("tls.certificate: no PEM certificate"),
            Self::NoKey => f.write_str("tls.private-key: no PEM private key"),
        }
    }
}

impl std::error::Error for TlsFileError {}

/// The server's side of TLS as `options` say; files lie relative to `directory`.
pub(super) fn acceptor(options: &Tls, directory: &Path) -> Result<TlsAcceptor, Cause> {
    let pem = read_pem(&options.certificate, directory)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| TlsFileError::NoCertificate)?;
    if chain.is_empty() {
        return Err(TlsFileError::NoCertificate.into());
    }
    let pem = read_pem(&options.private_key, directory)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsFileError::NoKey)?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(crypto_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// PEM text as it stands, or the content of the file that is named.
fn read_pem(text: &str, directory: &Path) -> Result<Vec<u8>, TlsFileError> {
    if text.contains("-----BEGIN") {
        return Ok(text.as_bytes().to_vec());
    }
    let path = directory.join(text);
    let failed = |error| TlsFileError::Unreadable(path.clone(), error);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).map_err(failed)?;
    io::Read::read_to_end(&mut io::Read::take(file, PEM_BYTES_MAX), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Serves a connection that begins with a handshake.
pub(super) async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    door: Door,
    dialects: Dialects,
    seat: Seat,
) {
    let handshake = Box::pin(timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)));
    if let Ok(Ok(stream)) = handshake.await {
        client::serve(Box::new(stream), door, dialects, seat).await;
    }
}
