//! REALITY's client: rustls, whose ClientHello says who we are.
//!
//! rustls draws the session id at random, before the hello exists that the seal must cover. So the hello is
//! made twice by the same draws and the same key: first to seal it, then to send it with the session id
//! drawn as it was sealed. All that happens between two awaits, on one thread; the draws lie in a
//! thread's variable meanwhile. Should rustls ever draw otherwise, the connection fails and nothing is
//! sent unsealed.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, NamedGroup,
    PeerMisbehaved, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{AuthKey, SESSION_ID, Token, VERSION};
use crate::outbound::carrier::Carrier;
use crate::outbound::options::{RealityOptions, TlsOptions};
use crate::outbound::tls::crypto_provider;
use crate::platform::clock;

/// Type, version and length before the hello in its record.
const RECORD_HEAD: usize = 5;

/// What browsers offer.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// Speaks TLS 1.3 with the server that has the key of `reality` behind the site `name`.
///
/// # Errors
/// What the carrier or rustls says; the server is refused when it does not prove that it has the key.
pub async fn connect(
    reality: &RealityOptions,
    options: &TlsOptions,
    name: ServerName<'static>,
    carrier: Carrier,
) -> io::Result<TlsStream<Carrier>> {
    let verifier = Arc::new(Verifier::default());
    let connecting = begin(reality, options, name, carrier, &verifier)?;
    connecting.await
}

/// Everything up to the first byte sent.
fn begin(
    reality: &RealityOptions,
    options: &TlsOptions,
    name: ServerName<'static>,
    carrier: Carrier,
    verifier: &Arc<Verifier>,
) -> io::Result<tokio_rustls::Connect<Carrier>> {
    let config = Arc::new(config(options, verifier).map_err(io::Error::other)?);
    let draws = Draws::new().map_err(|_| io::Error::other("no randomness"))?;
    let (first, mut draws) =
        draws.during(|| ClientConnection::new(Arc::clone(&config), name.clone()));
    let mut record = Vec::new();
    first.map_err(io::Error::other)?.write_tls(&mut record)?;
    let failed = || io::Error::other("reality: no hello to seal");
    let hello = record.get(RECORD_HEAD..).ok_or_else(failed)?;
    let random = hello.get(6..).and_then(|rest| rest.first_chunk());
    let random = random.ok_or_else(failed)?;
    let key = AuthKey::agree(&draws.secret, &reality.public_key, random).ok_or_else(failed)?;
    // Seconds of 32 bits: a fact of the protocol, good until 2106.
    let time = u32::try_from(clock::unix_time().as_secs()).unwrap_or(u32::MAX);
    let token = Token {
        version: VERSION,
        time,
        short_id: reality.short_id,
    };
    let sealed = key.seal(hello, &token).ok_or_else(failed)?;
    let drawn = hello.get(SESSION_ID).unwrap_or_default();
    let place = draws.drawn.iter_mut().find(|draw| **draw == drawn);
    *place.ok_or_else(failed)? = sealed.to_vec();
    draws.replayed = Some(0);
    // The only one: this connection's configuration.
    let _first = verifier.0.set(key);
    let connector = TlsConnector::from(config);
    let (connecting, draws) = draws.during(|| connector.connect(name, carrier));
    match draws.replayed == Some(draws.drawn.len()) {
        true => Ok(connecting),
        false => Err(failed()),
    }
}

fn config(options: &TlsOptions, verifier: &Arc<Verifier>) -> Result<ClientConfig, Error> {
    let mut provider = crypto_provider();
    let others = provider.kx_groups.iter().copied();
    let others = others.filter(|group| group.name() != NamedGroup::X25519);
    provider.kx_groups = [&KeyShare as &dyn SupportedKxGroup]
        .into_iter()
        .chain(others.collect::<Vec<_>>())
        .collect();
    let provider = CryptoProvider {
        secure_random: &Scripted,
        ..provider
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = match options.alpn.as_slice() {
        [] => PROTOCOLS.iter().map(|p| p.as_bytes().to_vec()).collect(),
        chosen => chosen.iter().map(|p| p.as_bytes().to_vec()).collect(),
    };
    Ok(config)
}

/// What the making of one hello draws.
struct Draws {
    secret: StaticSecret,
    /// In order.
    drawn: Vec<Vec<u8>>,
    /// They are drawn again, so many so far.
    replayed: Option<usize>,
}

thread_local! {
    /// Private to the thread, and to one call of [`Draws::during`].
    static DRAWS: RefCell<Option<Draws>> = const { RefCell::new(None) };
}

impl Draws {
    fn new() -> Result<Self, GetRandomFailed> {
        let mut secret = [0; 32];
        system(&mut secret)?;
        Ok(Self {
            secret: StaticSecret::from(secret),
            drawn: Vec::new(),
            replayed: None,
        })
    }

    /// Has rustls draw from here while `work` runs.
    fn during<T>(self, work: impl FnOnce() -> T) -> (T, Self) {
        let secret = self.secret.clone();
        DRAWS.set(Some(self));
        let done = work();
        let draws = DRAWS.take().unwrap_or(Self {
            secret,
            drawn: Vec::new(),
            replayed: None,
        });
        (done, draws)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        let Some(at) = &mut self.replayed else {
            system(bytes)?;
            self.drawn.push(bytes.to_vec());
            return Ok(());
        };
        let draw = self.drawn.get(*at).filter(|draw| draw.len() == bytes.len());
        bytes.copy_from_slice(draw.ok_or(GetRandomFailed)?);
        *at += 1;
        Ok(())
    }
}

fn system(bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
    SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
}

/// The kernel's randomness, or the script of the moment.
#[derive(Debug)]
struct Scripted;

impl SecureRandom for Scripted {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        DRAWS.with_borrow_mut(|draws| match draws {
            Some(draws) => draws.fill(bytes),
            None => system(bytes),
        })
    }
}

/// X25519 with the key of the script.
#[derive(Debug)]
struct KeyShare;

impl SupportedKxGroup for KeyShare {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = DRAWS.with_borrow(|draws| draws.as_ref().map(|draws| draws.secret.clone()));
        let secret = match secret {
            Some(secret) => secret,
            None => Draws::new()?.secret,
        };
        let public = PublicKey::from(&secret).to_bytes();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        let theirs: [u8; 32] = theirs.try_into().map_err(|_| invalid())?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(theirs));
        match shared.was_contributory() {
            true => Ok(SharedSecret::from(shared.as_bytes().as_slice())),
            false => Err(invalid()),
        }
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// Accepts a certificate that the server made with the connection's key.
#[derive(Default)]
struct Verifier(OnceLock<AuthKey>);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl Verifier {
    fn certified(&self, certificate: &[u8]) -> Result<[u8; 32], Error> {
        let key = self.0.get().and_then(|key| key.certified(certificate));
        key.ok_or_else(|| CertificateError::ApplicationVerificationFailure.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.certified(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = self.certified(certificate)?;
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
        match signature.scheme == SignatureScheme::ED25519
            && key.verify(message, signature.signature()).is_ok()
        {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = crypto_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::reality::Hello;

    #[tokio::test]
    async fn the_hello_that_is_sent_is_the_one_that_was_sealed() {
        use tokio::io::AsyncReadExt;
        let server = StaticSecret::from([3; 32]);
        let reality = RealityOptions {
            public_key: PublicKey::from(&server).to_bytes(),
            short_id: [1, 2, 0, 0, 0, 0, 0, 0],
        };
        for _ in 0..20 {
            let (near, mut far) = tokio::io::duplex(4096);
            let name = ServerName::try_from("a.test").unwrap();
            let carrier = Carrier::Boxed(Box::new(near));
            let options = TlsOptions::default();
            let connecting = begin(&reality, &options, name, carrier, &Arc::default()).unwrap();
            let read = async {
                let mut head = [0; RECORD_HEAD];
                far.read_exact(&mut head).await.unwrap();
                let length = u16::from_be_bytes([head[3], head[4]]);
                let mut message = vec![0; usize::from(length)];
                far.read_exact(&mut message).await.unwrap();
                message
            };
            let message = tokio::select! {
                message = read => message,
                _ = connecting => panic!("nobody answers"),
            };
            let hello = Hello::read(&message).unwrap();
            assert_eq!(hello.server_name, "a.test");
            let key = AuthKey::agree(&server, &hello.share, hello.random).unwrap();
            let token = key.open(&message).unwrap();
            assert_eq!((token.version, token.short_id), (VERSION, reality.short_id));
        }
    }
}
