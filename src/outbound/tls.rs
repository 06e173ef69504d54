//! TLS towards servers: rustls with ring, TLS 1.2 and 1.3.
//!
//! Roots come from the system's bundle and are read when the first connection needs them; the
//! roots and the configurations made of them are shared by whoever asks for the same options,
//! and freed with their last user. Where the CPU has no AES instructions ChaCha20 is offered
//! first: it is several times faster there (RFC 8439 section 1).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use subtle::ConstantTimeEq;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::carrier::Carrier;
use super::certificate;
use super::crypto::has_aes_instructions;
use super::layer::TlsLayer;
use super::options::TlsOptions;
use super::reality;
use crate::platform::blocking::blocking;

/// Where systems keep their root certificates: OpenWrt and Debian, then BSD's and Alpine's place.
const BUNDLES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];

/// Why TLS cannot be spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// `sni`, or the server's host, is neither name nor address.
    ServerName(Box<str>),
    /// No bundle of root certificates was found, or none of it is usable.
    NoRoots,
    /// rustls refuses the options; its words.
    Rejected(Box<str>),
    /// The roots, the chain or the key of a [`Trust`] are none.
    NotPem,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerName(name) => write!(f, "{name} is no server name for TLS"),
            Self::NoRoots => f.write_str("no root certificates on this system"),
            Self::Rejected(reason) => write!(f, "tls: {reason}"),
            Self::NotPem => f.write_str("no certificate or key in PEM"),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Rejected(error.to_string().into())
    }
}

/// Certificates or a key in PEM.
pub type Pem = Box<[u8]>;

/// Whom a client believes and who it is.
#[derive(Clone, Default)]
pub struct Trust {
    /// Roots in place of the system's.
    pub roots: Option<Pem>,
    /// Its own certificates, leaf first, and the key of the leaf.
    pub identity: Option<(Pem, Pem)>,
}

/// Speaks TLS to one server.
pub struct TlsClient {
    options: TlsOptions,
    trust: Option<Box<Trust>>,
    name: ServerName<'static>,
    /// Kept from the first handshake on.
    config: Mutex<Option<Arc<ClientConfig>>>,
}

impl TlsClient {
    /// A client for `server`, or for the name that `options` give. Reads no file yet.
    ///
    /// # Errors
    /// [`TlsError::ServerName`].
    pub fn new(options: &TlsOptions, server: &str) -> Result<Self, TlsError> {
        let name = options.server_name.as_deref().unwrap_or(server);
        let parsed = ServerName::try_from(name).map_err(|_| TlsError::ServerName(name.into()))?;
        Ok(Self {
            name: parsed.to_owned(),
            options: options.clone(),
            trust: None,
            config: Mutex::default(),
        })
    }

    /// The same with other roots, or as somebody.
    ///
    /// # Errors
    /// [`TlsError::NotPem`].
    pub fn trusting(self, trust: Trust) -> Result<Self, TlsError> {
        if trust.roots.is_none() && trust.identity.is_none() {
            return Ok(self);
        }
        trust.parse()?;
        let trust = Some(Box::new(trust));
        Ok(Self { trust, ..self })
    }

    /// Whether the handshake is REALITY's.
    #[must_use]
    pub fn is_reality(&self) -> bool {
        self.options.reality.is_some()
    }

    /// Puts TLS on `carrier`. Without a time-out of its own.
    ///
    /// # Errors
    /// [`TlsError`], what rustls says of the server, or what the carrier says.
    pub async fn handshake(&self, carrier: Carrier) -> io::Result<Carrier> {
        Ok(self.negotiate(carrier).await?.0)
    }

    /// As [`Self::handshake`], for a user who may leave the layer: a [`Carrier::Layer`].
    ///
    /// # Errors
    /// As [`Self::handshake`].
    pub async fn handshake_to_leave(&self, carrier: Carrier) -> io::Result<Carrier> {
        let layer = TlsLayer::new(self.connect(carrier.gated()).await?.into());
        Ok(Carrier::Layer(Box::new(layer)))
    }

    /// As [`Self::handshake`]; and the protocol that the server chose of `alpn`, if it did.
    ///
    /// # Errors
    /// As [`Self::handshake`].
    pub async fn negotiate(&self, carrier: Carrier) -> io::Result<(Carrier, Option<Box<[u8]>>)> {
        let stream = self.connect(carrier).await?;
        let chosen = stream.get_ref().1.alpn_protocol().map(Box::from);
        Ok((Carrier::Boxed(Box::new(stream)), chosen))
    }

    async fn connect(&self, carrier: Carrier) -> io::Result<TlsStream<Carrier>> {
        let name = self.name.clone();
        if let Some(reality) = &self.options.reality {
            return reality::client::connect(reality, &self.options, name, carrier).await;
        }
        let connector = TlsConnector::from(self.config().await?);
        connector.connect(name, carrier).await.map_err(in_words)
    }

    async fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let known = self
            .config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match known {
            Some(config) => Ok(config),
            None => self.load().await,
        }
    }

    /// Makes the configuration, away from the flows: reading the roots takes a while.
    async fn load(&self) -> io::Result<Arc<ClientConfig>> {
        let (options, trust) = (self.options.clone(), self.trust.clone());
        let loading = blocking(move || match trust {
            None => client_config(&options),
            // Files change, and few share them: these are for one client.
            Some(trust) => build_config(&options, &trust).map(Arc::new),
        });
        let config = loading.await?.map_err(io::Error::other)?;
        let mut known = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::clone(&config));
        Ok(config)
    }
}

/// What rustls calls by a name of its own or by numbers, so that an owner understands it.
fn in_words(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|error| error.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(cause)) = cause else {
        return error;
    };
    let words = match cause {
        CertificateError::UnknownIssuer => "it is signed by nobody that is trusted",
        CertificateError::BadSignature => "a signature does not fit it, or its key is too weak",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed in a way that is not accepted"
        }
        CertificateError::Other(_) => "it is not one that a server may show",
        _ => return error,
    };
    let words = format!("invalid peer certificate: {words}");
    io::Error::new(error.kind(), words)
}

/// Table: the configurations in use, by their options without the server's name.
static CONFIGS: Mutex<Vec<(TlsOptions, Weak<ClientConfig>)>> = Mutex::new(Vec::new());

/// Table: the roots in use.
static ROOTS: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());

/// The configuration for `options`, whose server name does not matter. May read files.
///
/// # Errors
/// [`TlsError::NoRoots`] or [`TlsError::Rejected`].
pub fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let mut key = options.clone();
    key.server_name = None;
    let mut configs = CONFIGS.lock().unwrap_or_else(PoisonError::into_inner);
    configs.retain(|(_, config)| config.strong_count() > 0);
    let known = configs.iter().find(|(known, _)| *known == key);
    if let Some(config) = known.and_then(|(_, config)| config.upgrade()) {
        return Ok(config);
    }
    let config = Arc::new(build_config(&key, &Trust::default())?);
    configs.push((key, Arc::downgrade(&config)));
    Ok(config)
}

/// A chain with its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Trust {
    fn parse(&self) -> Result<(Option<RootCertStore>, Option<Identity>), TlsError> {
        let roots = self.roots.as_deref().map(parse_roots);
        if roots.as_ref().is_some_and(RootCertStore::is_empty) {
            return Err(TlsError::NotPem);
        }
        let Some((chain, key)) = &self.identity else {
            return Ok((roots, None));
        };
        let chain = certificate::chain_of(chain).map_err(|_| TlsError::NotPem)?;
        let key = certificate::key_of(key).map_err(|_| TlsError::NotPem)?;
        Ok((roots, Some((chain, key))))
    }
}

fn build_config(options: &TlsOptions, trust: &Trust) -> Result<ClientConfig, TlsError> {
    let mut provider = crypto_provider();
    if !options.suites.is_empty() {
        let wanted = |suite: CipherSuite| options.suites.contains(&suite);
        provider.cipher_suites.retain(|one| wanted(one.suite()));
    }
    let provider = Arc::new(provider);
    let (own_roots, identity) = trust.parse()?;
    let verifier: Arc<dyn ServerCertVerifier> =
        if options.skip_verify || options.fingerprint.is_some() {
            Arc::new(LeafVerifier {
                fingerprint: options.fingerprint,
                provider: Arc::clone(&provider),
            })
        } else {
            let roots = own_roots.map_or_else(roots, |own| Ok(Arc::new(own)))?;
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|_| TlsError::NoRoots)?
        };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = options.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(config)
}

/// The cipher suites that are spoken, by OpenSSL's names.
const SUITES: [(&str, CipherSuite); 9] = [
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// The suites of a list of names with commas or colons between them, as OpenSSL and EMQX write it; those
/// that are not spoken are passed over.
#[must_use]
pub fn cipher_suites(names: &str) -> Vec<CipherSuite> {
    let names = names.split([',', ':']).map(str::trim);
    let known = names.filter_map(|name| SUITES.iter().find(|(known, _)| *known == name));
    known.map(|(_, suite)| *suite).collect()
}

/// ring's algorithms in the order that suits this machine.
#[must_use]
pub fn crypto_provider() -> CryptoProvider {
    ordered_provider(has_aes_instructions())
}

/// ring's algorithms, ChaCha20 first unless AES is done by the CPU.
fn ordered_provider(aes_instructions: bool) -> CryptoProvider {
    let mut provider = provider::default_provider();
    if !aes_instructions {
        provider.cipher_suites.sort_by_key(|suite| {
            !matches!(
                suite.suite(),
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            )
        });
    }
    provider
}

/// The system's root certificates. `SSL_CERT_FILE` names another bundle, as for OpenSSL.
fn roots() -> Result<Arc<RootCertStore>, TlsError> {
    let mut shared = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = shared.upgrade() {
        return Ok(roots);
    }
    let bundle = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let pem = match bundle {
        Some(path) => std::fs::read(path).ok(),
        None => BUNDLES.iter().find_map(|path| std::fs::read(path).ok()),
    };
    let roots = parse_roots(&pem.ok_or(TlsError::NoRoots)?);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let roots = Arc::new(roots);
    *shared = Arc::downgrade(&roots);
    Ok(roots)
}

/// The certificates of a PEM bundle; those that are broken or too odd are left out.
fn parse_roots(pem: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let (_added, _left_out) = roots.add_parsable_certificates(certificates);
    roots
}

/// Accepts any certificate, or only the one with the pinned digest. Signatures are checked
/// all the same: the server must hold the key of the certificate that it shows.
#[derive(Debug)]
struct LeafVerifier {
    fingerprint: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for LeafVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(pinned) = &self.fingerprint else {
            return Ok(ServerCertVerified::assertion());
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, leaf);
        if bool::from(digest.as_ref().ct_eq(pinned)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipping(alpn: &[&str]) -> TlsOptions {
        TlsOptions {
            skip_verify: true,
            alpn: alpn.iter().map(|p| (*p).into()).collect(),
            ..TlsOptions::default()
        }
    }

    #[test]
    fn equal_options_share_a_configuration() {
        let mut named = skipping(&["h2"]);
        let first = client_config(&named).unwrap();
        named.server_name = Some("a.example".into());
        assert!(Arc::ptr_eq(&first, &client_config(&named).unwrap()));
        let other = client_config(&skipping(&["http/1.1"])).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(other.alpn_protocols, [b"http/1.1"]);
    }

    #[test]
    fn only_the_suites_that_are_asked_for_are_offered() {
        let all: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
        let of_ring = crypto_provider().cipher_suites;
        assert_eq!(cipher_suites(&all.join(",")).len(), of_ring.len());
        assert!(cipher_suites("AES256-SHA,DES-CBC3-SHA").is_empty());
        let suites = cipher_suites("AES256-SHA, ECDHE-RSA-AES128-GCM-SHA256");
        let options = TlsOptions {
            suites,
            ..skipping(&[])
        };
        let config = client_config(&options).unwrap();
        let offered = &config.crypto_provider().cipher_suites;
        let offered: Vec<_> = offered.iter().map(|one| one.suite()).collect();
        assert_eq!(
            offered,
            [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
        );
    }

    #[test]
    fn chacha_comes_first_without_aes_instructions() {
        let first = |aes| ordered_provider(aes).cipher_suites[0].suite();
        assert_eq!(first(false), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert_ne!(first(true), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    }

    #[test]
    fn a_bundle_without_certificates_gives_no_roots() {
        assert!(parse_roots(b"").is_empty());
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(parse_roots(broken).is_empty());
    }

    #[test]
    fn a_pin_accepts_its_own_leaf_alone() {
        let leaf = CertificateDer::from(b"leaf".to_vec());
        let digest = ring::digest::digest(&ring::digest::SHA256, b"leaf");
        let verifier = LeafVerifier {
            fingerprint: digest.as_ref().try_into().ok(),
            provider: Arc::new(ordered_provider(true)),
        };
        let name = ServerName::try_from("a.example").unwrap();
        let check = |leaf| {
            verifier.verify_server_cert(
                leaf,
                &[],
                &name,
                &[],
                UnixTime::since_unix_epoch(std::time::Duration::ZERO),
            )
        };
        assert!(check(&leaf).is_ok());
        assert!(check(&CertificateDer::from(b"else".to_vec())).is_err());
    }

    #[test]
    fn server_names_are_checked_at_once() {
        assert!(TlsClient::new(&TlsOptions::default(), "192.0.2.1").is_ok());
        assert!(TlsClient::new(&TlsOptions::default(), "a b").is_err());
    }
}
