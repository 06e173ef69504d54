//! Methods and keys: what `cipher` and `password` of a Shadowsocks server mean.
//!
//! Pure. Numbers and derivations are those of SIP004 and SIP022/SIP023 (proxy-protocols.md 2, 3).

use std::fmt;

use crate::encoding::BASE64;
use md5::{Digest, Md5};

use crate::outbound::crypto::{
    BlockKey, Cipher, Forged, KEY_MAX, Key, RestingKey, hkdf_subkey, identity_subkey,
    session_subkey,
};

/// How many identity keys may stand before the user's (`iPSK:…:uPSK`).
const IDENTITIES_MAX: usize = 8;

/// A way to speak Shadowsocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// What encrypts.
    pub cipher: Cipher,
    /// How messages are framed.
    pub edition: Edition,
}

/// The two framings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// SIP004.
    Aead,
    /// SIP022.
    Of2022,
}

/// `cipher` values with their meaning, sorted by name.
pub const METHODS: &[(&str, Method)] = &[
    ("2022-blake3-aes-128-gcm", of_2022(Cipher::Aes128Gcm)),
    ("2022-blake3-aes-256-gcm", of_2022(Cipher::Aes256Gcm)),
    (
        "2022-blake3-chacha20-poly1305",
        of_2022(Cipher::ChaCha20Poly1305),
    ),
    ("aes-128-gcm", aead(Cipher::Aes128Gcm)),
    ("aes-256-gcm", aead(Cipher::Aes256Gcm)),
    ("chacha20-ietf-poly1305", aead(Cipher::ChaCha20Poly1305)),
    ("chacha20-poly1305", aead(Cipher::ChaCha20Poly1305)),
];

const fn aead(cipher: Cipher) -> Method {
    Method {
        cipher,
        edition: Edition::Aead,
    }
}

const fn of_2022(cipher: Cipher) -> Method {
    Method {
        cipher,
        edition: Edition::Of2022,
    }
}

/// Why `cipher` and `password` make no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodError {
    /// `cipher` is none of [`METHODS`].
    UnknownCipher(Box<str>),
    /// A 2022 password is no base64.
    NotBase64,
    /// A 2022 key has not the length that the cipher wants, in bytes.
    KeyLength(usize),
    /// The cipher knows no identity keys, or there are too many.
    Identities,
}

impl fmt::Display for MethodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCipher(name) => write!(f, "unknown cipher {name}"),
            Self::NotBase64 => f.write_str("password is not base64, as this cipher wants it"),
            Self::KeyLength(want) => write!(f, "password is not a base64 key of {want} bytes"),
            Self::Identities => f.write_str("password holds more keys than this cipher takes"),
        }
    }
}

impl std::error::Error for MethodError {}

impl Method {
    /// The method of that name, in any case.
    ///
    /// # Errors
    /// [`MethodError::UnknownCipher`].
    pub fn parse(name: &str) -> Result<Self, MethodError> {
        let found = METHODS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found
            .map(|(_, method)| *method)
            .ok_or_else(|| MethodError::UnknownCipher(name.into()))
    }
}

/// The keys of one server. Never shown.
pub struct Secret {
    /// How it is used.
    pub method: Method,
    /// Master key, or the 2022 user key.
    key: Box<[u8]>,
    identities: Vec<Identity>,
    /// Hides the headers of 2022 datagrams to the server, if AES does it.
    send_header: Option<BlockKey>,
    /// The same from the server.
    receive_header: Option<BlockKey>,
}

/// One hop of SIP023.
struct Identity {
    key: Box<[u8]>,
    /// What the hop looks the next one up by: the hash of the next key.
    next: [u8; 16],
}

impl Secret {
    /// The keys that `cipher` makes of `password`.
    ///
    /// # Errors
    /// [`MethodError`].
    pub fn new(cipher: &str, password: &str) -> Result<Self, MethodError> {
        let method = Method::parse(cipher)?;
        let length = method.cipher.key_length();
        if method.edition == Edition::Aead {
            return Ok(Self {
                method,
                key: evp_bytes_to_key(password.as_bytes(), length),
                identities: Vec::new(),
                send_header: None,
                receive_header: None,
            });
        }
        let mut keys = Vec::new();
        for text in password.split(':') {
            let key = BASE64.decode(text.as_bytes());
            let key = key.map_err(|_| MethodError::NotBase64)?;
            if key.len() != length {
                return Err(MethodError::KeyLength(length));
            }
            keys.push(key.into_boxed_slice());
        }
        let aes = method.cipher != Cipher::ChaCha20Poly1305;
        if keys.len() > 1 && (!aes || keys.len() > IDENTITIES_MAX + 1) {
            return Err(MethodError::Identities);
        }
        let block = |key: Option<&Box<[u8]>>| -> Result<Option<BlockKey>, MethodError> {
            let wrong = |Forged| MethodError::KeyLength(length);
            key.filter(|_| aes)
                .map(|key| BlockKey::new(key).map_err(wrong))
                .transpose()
        };
        let identity = |pair: &[Box<[u8]>]| match pair {
            [key, next] => Some(Identity {
                key: key.clone(),
                next: *blake3::hash(next).as_bytes().first_chunk()?,
            }),
            _ => None,
        };
        Ok(Self {
            method,
            send_header: block(keys.first())?,
            receive_header: block(keys.last())?,
            identities: keys.windows(2).filter_map(identity).collect(),
            key: keys.pop().unwrap_or_default(),
        })
    }

    /// Bytes of a salt.
    #[must_use]
    pub fn salt_length(&self) -> usize {
        self.method.cipher.key_length()
    }

    /// The pre-shared key itself.
    #[must_use]
    pub fn psk(&self) -> &[u8] {
        &self.key
    }

    /// The key of the session or datagram with this salt.
    ///
    /// # Errors
    /// [`Forged`] never, given keys that were checked.
    pub fn subkey(&self, salt: &[u8]) -> Result<Key, Forged> {
        let bytes = self.subkey_bytes(salt)?;
        let length = self.method.cipher.key_length();
        Key::new(self.method.cipher, bytes.get(..length).ok_or(Forged)?)
    }

    /// The key of the stream with this salt.
    ///
    /// # Errors
    /// [`Forged`] never, given keys that were checked.
    pub fn stream_key(&self, salt: &[u8]) -> Result<RestingKey, Forged> {
        let bytes = self.subkey_bytes(salt)?;
        Ok(RestingKey::new(self.method.cipher, bytes))
    }

    fn subkey_bytes(&self, salt: &[u8]) -> Result<[u8; KEY_MAX], Forged> {
        if self.method.edition == Edition::Of2022 {
            return Ok(session_subkey(&self.key, salt));
        }
        let mut bytes = [0; KEY_MAX];
        let length = self.method.cipher.key_length();
        hkdf_subkey(&self.key, salt, bytes.get_mut(..length).ok_or(Forged)?)?;
        Ok(bytes)
    }

    /// How many bytes the identity headers take.
    #[must_use]
    pub fn identities_length(&self) -> usize {
        self.identities.len() * 16
    }

    /// The identity headers of a stream with this salt.
    ///
    /// # Errors
    /// [`Forged`] never, given keys that were checked.
    pub fn stream_identities(&self, salt: &[u8]) -> Result<Vec<u8>, Forged> {
        let mut headers = Vec::with_capacity(self.identities_length());
        for identity in &self.identities {
            let subkey = identity_subkey(&identity.key, salt);
            let length = self.method.cipher.key_length();
            let mut block = identity.next;
            BlockKey::new(subkey.get(..length).ok_or(Forged)?)?.encrypt(&mut block);
            headers.extend_from_slice(&block);
        }
        Ok(headers)
    }

    /// The identity headers of a datagram with this plain separate header.
    ///
    /// # Errors
    /// [`Forged`] never, given keys that were checked.
    pub fn datagram_identities(&self, header: &[u8; 16]) -> Result<Vec<u8>, Forged> {
        let mut headers = Vec::with_capacity(self.identities_length());
        for identity in &self.identities {
            let mut block = identity.next;
            block
                .iter_mut()
                .zip(header)
                .for_each(|(byte, mask)| *byte ^= mask);
            BlockKey::new(&identity.key)?.encrypt(&mut block);
            headers.extend_from_slice(&block);
        }
        Ok(headers)
    }

    /// Keys that hide the headers of 2022 datagrams, to and from the server; `None`: the
    /// method has no such headers.
    #[must_use]
    pub fn header_keys(&self) -> Option<(&BlockKey, &BlockKey)> {
        self.send_header.as_ref().zip(self.receive_header.as_ref())
    }
}

/// OpenSSL's key derivation with MD5, one round and no salt.
fn evp_bytes_to_key(password: &[u8], length: usize) -> Box<[u8]> {
    let mut key: Vec<u8> = Vec::with_capacity(KEY_MAX);
    let mut previous: Option<[u8; 16]> = None;
    while key.len() < length {
        let mut hasher = Md5::new();
        hasher.update(previous.as_ref().map_or(&[][..], |digest| digest));
        hasher.update(password);
        let digest: [u8; 16] = hasher.finalize().into();
        key.extend_from_slice(&digest);
        previous = Some(digest);
    }
    key.truncate(length);
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(cipher: &str, password: &str) -> MethodError {
        Secret::new(cipher, password).err().unwrap()
    }

    #[test]
    fn passwords_of_the_2022_edition_are_keys_of_exact_length() {
        let key16 = BASE64.encode(&[1; 16]);
        let key32 = BASE64.encode(&[1; 32]);
        let (aes, chacha) = ("2022-blake3-aes-128-gcm", "2022-blake3-chacha20-poly1305");
        assert!(Secret::new(aes, &key16).is_ok());
        assert!(Secret::new(aes, &format!("{key16}:{key16}")).is_ok());
        assert_eq!(refused(aes, &key32), MethodError::KeyLength(16));
        assert_eq!(refused(aes, "hunter2"), MethodError::NotBase64);
        assert_eq!(refused(aes, ""), MethodError::KeyLength(16));
        let two = format!("{key32}:{key32}");
        assert_eq!(refused(chacha, &two), MethodError::Identities);
        assert_eq!(
            refused("rc4-md5", "x"),
            MethodError::UnknownCipher("rc4-md5".into())
        );
    }

    #[test]
    fn errors_do_not_show_the_password() {
        let error = refused("2022-blake3-aes-128-gcm", "hunter2!");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
