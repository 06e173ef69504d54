//! What a server of ours shows: certificate chain and key, from PEM text or files.
//!
//! Read once, when a listener opens. No message tells the content of a file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::crypto_provider;

/// Bytes of a file of certificates or of a key: a system's bundle of roots has a quarter of that.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is wrong with `certificate` or `private-key`.
#[derive(Debug)]
pub enum CertificateError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// No certificate in what `certificate` names.
    NoCertificate,
    /// No key in what `private-key` names.
    NoKey,
    /// They do not belong together; rustls's words.
    Rejected(rustls::Error),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoCertificate => f.write_str("certificate: no PEM certificate"),
            Self::NoKey => f.write_str("private-key: no PEM private key"),
            Self::Rejected(error) => write!(f, "certificate: {error}"),
        }
    }
}

impl std::error::Error for CertificateError {}

impl From<rustls::Error> for CertificateError {
    fn from(error: rustls::Error) -> Self {
        Self::Rejected(error)
    }
}

/// A certificate with its chain, and its key. Each is PEM text itself, or a file relative to `directory`.
///
/// # Errors
/// [`CertificateError`].
pub fn identity(
    certificate: &str,
    private_key: &str,
    directory: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertificateError> {
    let chain = certificates(certificate, directory)?;
    Ok((chain, key_of(&read_pem(private_key, directory)?)?))
}

/// The key in PEM.
///
/// # Errors
/// [`CertificateError::NoKey`].
pub fn key_of(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| CertificateError::NoKey)
}

/// The certificates of PEM text or of a file, at least one.
///
/// # Errors
/// [`CertificateError`].
pub fn certificates(
    text: &str,
    directory: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    chain_of(&read_pem(text, directory)?)
}

/// The certificates in PEM, at least one.
///
/// # Errors
/// [`CertificateError::NoCertificate`].
pub fn chain_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|_| CertificateError::NoCertificate)?;
    match chain.is_empty() {
        true => Err(CertificateError::NoCertificate),
        false => Ok(chain),
    }
}

/// The server's side of TLS 1.2 and 1.3.
///
/// # Errors
/// [`CertificateError::Rejected`].
pub fn server() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, CertificateError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(crypto_provider()));
    Ok(builder.with_safe_default_protocol_versions()?)
}

/// PEM text as it stands, or the content of the file that is named.
fn read_pem(text: &str, directory: &Path) -> Result<Vec<u8>, CertificateError> {
    if text.contains("-----BEGIN") {
        return Ok(text.as_bytes().to_vec());
    }
    read_file(&directory.join(text))
}

/// A file of certificates or of a key.
///
/// # Errors
/// [`CertificateError::Unreadable`], also where it is too large to be one.
pub fn read_file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    let opened = File::open(path).map(|file| file.take(FILE_BYTES_MAX + 1));
    match opened.and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(count) if count as u64 <= FILE_BYTES_MAX => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::FileTooLarge.into()),
        Err(error) => Err(error),
    }
    .map_err(|error| CertificateError::Unreadable(path.into(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_named_and_not_shown() {
        let at = Path::new("/etc");
        let text = |error: CertificateError| error.to_string();
        let wrong = identity("hostname", "hostname", at).unwrap_err();
        assert_eq!(text(wrong), "certificate: no PEM certificate");
        let wrong = identity("no-such-file", "x", at).unwrap_err();
        assert!(text(wrong).starts_with("/etc/no-such-file: "));
        let endless = read_file(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(text(endless), "/dev/zero: file too large");
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let wrong = certificates(broken, at).unwrap_err();
        assert_eq!(text(wrong), "certificate: no PEM certificate");
    }
}
