//! REALITY as a server: whoever has the key gets TLS of ours, everybody else the site itself.
//!
//! What a client sends goes to the site at once, byte for byte, as what the site says goes to him; until a
//! whole ClientHello bears a seal of somebody we know, and the site has answered it with TLS 1.3. Then the
//! site is left, and rustls goes on in its place with the suite that it chose and a certificate of the
//! moment. So a stranger, who replays or guesses, never hears a byte of ours before he has shown
//! the seal. The lengths of our handshake's records are our own, not the site's.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Fuse;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{NamedGroup, ServerConfig, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::CertificateDer;
use subtle::{Choice, ConstantTimeEq};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use x25519_dalek::StaticSecret;

use super::options::RealityServer;
use super::{PARTING_TIME_MAX, join};
use crate::metadata::Metadata;
use crate::outbound::carrier::Carrier;
use crate::outbound::layer::TlsLayer;
use crate::outbound::reality::{AuthKey, Hello, certificate};
use crate::outbound::tls::crypto_provider;
use crate::outbound::{BoxFuture, Stream};
use crate::platform::clock;
use crate::tunnel::flow::Dispatch;
use crate::wire::{Reader, Truncated};

/// How long a client's first bytes are looked at; later the site alone knows what to do with him. Less
/// than a handshake may take altogether.
const JUDGE_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes on the way to the site or from it.
const PIPE_BYTES: usize = 16 * 1024;

/// A record's head, and its longest body in clear (RFC 8446 section 5.1).
const RECORD_HEAD: usize = 5;
const RECORD_BYTES_MAX: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS13: u16 = 0x0304;

/// Who is let in, and which site stands before the door.
pub(super) struct Reality {
    options: RealityServer,
    secret: StaticSecret,
    key: Arc<TemporaryKey>,
}

/// What a client's first bytes are.
pub(super) enum Judged {
    /// Not enough to tell.
    More,
    /// Nobody we know.
    Stranger,
    /// Somebody with the key, and his connection's.
    Client(Box<AuthKey>),
}

/// The site, as one client sees it.
pub(super) struct Site {
    pipe: DuplexStream,
    flow: Fuse<BoxFuture<'static, ()>>,
}

/// A client of the site.
pub(super) struct Visitor {
    socket: TcpStream,
    site: Site,
    /// What the site has said and he has not heard.
    said: Vec<u8>,
}

impl Site {
    /// The site that `metadata` names, reached as `dispatch` reaches any other.
    pub(super) fn reach(dispatch: &Arc<dyn Dispatch>, metadata: Metadata) -> Self {
        let (pipe, far) = duplex(PIPE_BYTES);
        let dispatch = Arc::clone(dispatch);
        let flow: BoxFuture<'static, ()> = Box::pin(async move {
            dispatch
                .stream(metadata, Stream::Boxed(Box::new(far)))
                .await;
        });
        Self {
            pipe,
            flow: flow.fuse(),
        }
    }

    /// What the site says next, behind `said`; `false`: nothing any more.
    async fn listen(&mut self, said: &mut Vec<u8>) -> bool {
        let Self { pipe, flow } = self;
        let read = pipe.read_buf(said);
        matches!(beside(flow, read).await, Ok(1..))
    }
}

/// What `work` gives, while the flow runs.
async fn beside<T>(flow: &mut Fuse<BoxFuture<'static, ()>>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = flow => {}
    }
    work.await
}

impl Visitor {
    /// Joins him to the site until both are done, or until he does not leave when the site is.
    pub(super) async fn stay(mut self) {
        let Site { pipe, flow } = &mut self.site;
        let joined = async {
            self.socket.write_all(&self.said).await?;
            join(&mut self.socket, pipe, PARTING_TIME_MAX).await
        };
        if let Err(error) = beside(flow, Box::pin(joined)).await {
            log::debug!("reality: a visitor's stream ended: {error}");
        }
    }
}

impl Reality {
    /// As `options` say. `None`: the system has no randomness.
    pub(super) fn new(options: &RealityServer) -> Option<Self> {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).ok()?;
        Some(Self {
            options: options.clone(),
            secret: StaticSecret::from(options.private_key),
            key: Arc::new(TemporaryKey(Arc::new(pair))),
        })
    }

    /// The site's options.
    pub(super) fn options(&self) -> &RealityServer {
        &self.options
    }

    /// What `bytes` are that a client sent by `now` (since 1970).
    pub(super) fn judge(&self, bytes: &[u8], now: Duration) -> Judged {
        let message = match record(bytes) {
            Ok(Some(message)) => message,
            Ok(None) => return Judged::More,
            Err(NoRecord) => return Judged::Stranger,
        };
        match self.known(message, now) {
            Some(key) => Judged::Client(Box::new(key)),
            None => Judged::Stranger,
        }
    }

    /// The key of a client whose ClientHello is `message`.
    fn known(&self, message: &[u8], now: Duration) -> Option<AuthKey> {
        let hello = Hello::read(message)?;
        let names = &self.options.server_names;
        if !names.iter().any(|name| **name == *hello.server_name) {
            return None;
        }
        let key = AuthKey::agree(&self.secret, &hello.share, hello.random)?;
        let token = key.open(message)?;
        let ids = self.options.short_ids.iter();
        let listed = ids.fold(Choice::from(0), |any, id| any | id.ct_eq(&token.short_id));
        let skew = now.abs_diff(Duration::from_secs(token.time.into()));
        let skew_max = self.options.time_difference_max;
        let timely = skew_max.is_zero() || skew <= skew_max;
        (bool::from(listed) && timely).then_some(key)
    }

    /// Lets a client in, or leaves him to the site; with `leaves`, to TLS that may be left.
    ///
    /// # Errors
    /// A client we know breaks the handshake off.
    pub(super) async fn accept(
        &self,
        mut socket: TcpStream,
        mut site: Site,
        leaves: bool,
    ) -> io::Result<Result<Carrier, Box<Visitor>>> {
        let (mut read, mut said) = (Vec::new(), Vec::new());
        let until = Instant::now() + JUDGE_TIME_MAX;
        let judging = self.first_words(&mut socket, &mut site, &mut read, &mut said);
        let key = timeout_at(until, judging).await.ok().flatten();
        let chosen = match &key {
            Some(_) => answer(&mut site, &mut said).await,
            None => None,
        };
        let (Some(key), Some(suite)) = (key, chosen) else {
            return Ok(Err(Box::new(Visitor { socket, site, said })));
        };
        drop(site);
        let config = self.config(&key, suite).map_err(io::Error::other)?;
        let carrier = match leaves {
            true => Carrier::Tcp(socket).gated_behind(&read)?,
            false => Carrier::Tcp(socket).preceded(read),
        };
        let tls = TlsAcceptor::from(Arc::new(config)).accept(carrier).await?;
        Ok(Ok(match leaves {
            true => Carrier::Layer(Box::new(TlsLayer::new(tls.into()))),
            false => Carrier::Boxed(Box::new(tls)),
        }))
    }

    /// Passes on what the client says until it is judged; the key of one we know.
    async fn first_words(
        &self,
        socket: &mut TcpStream,
        site: &mut Site,
        read: &mut Vec<u8>,
        said: &mut Vec<u8>,
    ) -> Option<Box<AuthKey>> {
        loop {
            match self.judge(read, clock::unix_time()) {
                Judged::More => {}
                Judged::Stranger => return None,
                Judged::Client(key) => return Some(key),
            }
            let before = read.len();
            read.reserve(1024);
            tokio::select! {
                // Whoever makes the site speak first is none of ours.
                _heard = site.listen(said) => return None,
                got = socket.read_buf(read) => {
                    if !matches!(got, Ok(1..)) {
                        return None;
                    }
                }
            }
            let new = read.get(before..).unwrap_or_default();
            let Site { pipe, flow } = site;
            beside(flow, pipe.write_all(new)).await.ok()?;
        }
    }

    /// TLS 1.3 with that suite, and a certificate that proves `key`.
    fn config(&self, key: &AuthKey, suite: u16) -> Result<ServerConfig, rustls::Error> {
        let mut provider = crypto_provider();
        provider
            .cipher_suites
            .retain(|known| u16::from(known.suite()) == suite);
        provider
            .kx_groups
            .retain(|group| group.name() == NamedGroup::X25519);
        let public = self.key.public();
        let leaf = certificate(&public, &key.signature(&public));
        let chain = vec![CertificateDer::from(leaf)];
        let certified = CertifiedKey::new(chain, Arc::clone(&self.key) as Arc<dyn SigningKey>);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Only(Arc::new(certified))));
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// The suite with which the site answers, once it has; `None` when that is no TLS 1.3.
async fn answer(site: &mut Site, said: &mut Vec<u8>) -> Option<u16> {
    loop {
        match record(said) {
            Ok(Some(message)) => return chosen_suite(message).ok().flatten(),
            Ok(None) => {}
            Err(NoRecord) => return None,
        }
        if !site.listen(said).await {
            return None;
        }
    }
}

/// What stands at the start of a stream is no record of a handshake.
struct NoRecord;

/// The body of the record at the start of `bytes`, once it is whole.
fn record(bytes: &[u8]) -> Result<Option<&[u8]>, NoRecord> {
    if !matches!(bytes, [] | [HANDSHAKE] | [HANDSHAKE, 3, ..]) {
        return Err(NoRecord);
    }
    let Some(&[_, _, _, a, b]) = bytes.first_chunk::<RECORD_HEAD>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([a, b]));
    match length {
        1..=RECORD_BYTES_MAX => Ok(bytes.get(RECORD_HEAD..RECORD_HEAD + length)),
        _ => Err(NoRecord),
    }
}

/// The suite of a ServerHello of TLS 1.3.
fn chosen_suite(message: &[u8]) -> Result<Option<u16>, Truncated> {
    let mut reader = Reader::new(message);
    if reader.u8()? != SERVER_HELLO {
        return Ok(None);
    }
    reader.take(3 + 2 + 32)?;
    let session_id = reader.u8()?;
    reader.take(usize::from(session_id))?;
    let suite = reader.u16()?;
    reader.u8()?;
    let length = reader.u16()?;
    let mut extensions = Reader::new(reader.take(usize::from(length))?);
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let mut body = Reader::new(extensions.take(usize::from(length))?);
        if kind == SUPPORTED_VERSIONS && body.u16()? == TLS13 {
            return Ok(Some(suite));
        }
    }
    Ok(None)
}

/// The Ed25519 key that all certificates of this run are for.
struct TemporaryKey(Arc<Ed25519KeyPair>);

impl TemporaryKey {
    fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }
}

impl fmt::Debug for TemporaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TemporaryKey(..)")
    }
}

impl SigningKey for TemporaryKey {
    /// Browsers, which clients look like, do not offer Ed25519; clients of REALITY take it all the same.
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self(Arc::clone(&self.0))))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TemporaryKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// The certificate of one connection.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_awaited_as_long_as_they_may_be_some() {
        let whole = |bytes: &[u8]| record(bytes).map(|body| body.map(<[u8]>::len)).ok();
        for part in [&[][..], &[22], &[22, 3, 1, 0], &[22, 3, 1, 0, 2, 1]] {
            assert_eq!(whole(part), Some(None));
        }
        assert_eq!(whole(&[22, 3, 1, 0, 2, 1, 2, 9]), Some(Some(2)));
        for other in [
            &b"GET /"[..],
            &[22, 2],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0x40, 1],
        ] {
            assert_eq!(whole(other), None);
        }
    }

    #[test]
    fn the_sites_suite_counts_when_it_chooses_tls13() {
        let hello = |version: &[u8]| {
            let extensions = [&[0, 51, 0, 1, 7, 0, 43, 0, 2][..], version].concat();
            let length = u8::try_from(extensions.len()).unwrap();
            [
                &[2, 0, 0, 0, 3, 3][..],
                &[5; 32],
                &[2, 8, 8, 0x13, 2, 0, 0, length],
                &extensions,
            ]
            .concat()
        };
        let read = |bytes: &[u8]| chosen_suite(bytes).ok().flatten();
        let whole = hello(&[3, 4]);
        assert_eq!(read(&whole), Some(0x1302));
        assert_eq!(read(&hello(&[3, 3])), None);
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), None);
        }
    }
}
