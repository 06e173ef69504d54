//! `external-controller-tls`: the same API behind rustls.
//!
//! The certificate is read once, when the listener opens. A client's handshake happens in its own
//! task, in the seat that it will keep, within [`HANDSHAKE_TIMEOUT`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Dialects, Seat, client};
use crate::controllers::http::access::Door;
use crate::controllers::options::Tls;
use crate::outbound::certificate::{self, CertificateError};

/// For a whole handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The server's side of TLS as `options` say; files lie relative to `directory`.
pub(super) fn acceptor(options: &Tls, directory: &Path) -> Result<TlsAcceptor, CertificateError> {
    let (chain, key) =
        certificate::identity(&options.certificate, &options.private_key, directory)?;
    let config = certificate::server()?.with_no_client_auth();
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
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
