//! What a password is checked against, and how it is written.
//!
//! Text forms: `pbkdf2-sha256$ROUNDS$SALT$HASH` with salt and hash in base64, and, for what was exported
//! from EMQX 4, the SHA-256 of the password as 64 hex digits, without a salt. The first is slow on
//! purpose: callers compute it where nobody waits.

use std::fmt;
use std::num::NonZeroU32;

use crate::encoding::{BASE64, HEX};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, pbkdf2};
use subtle::ConstantTimeEq;

/// More rounds than this take longer than a client waits on the slowest machines.
const ROUNDS_MAX: u32 = 10_000_000;

const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// What a password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself, as the file has it.
    Plain(Box<[u8]>),
    /// SHA-256 without salt.
    Sha256([u8; HASH_BYTES]),
    /// PBKDF2 with HMAC-SHA-256.
    Pbkdf2 {
        /// How often.
        rounds: NonZeroU32,
        /// Random bytes.
        salt: Box<[u8]>,
        /// The result.
        hash: [u8; HASH_BYTES],
    },
}

/// How the passwords of new users are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// PBKDF2 with so many rounds.
    Pbkdf2(NonZeroU32),
    /// SHA-256 without salt, as EMQX 4.1 does.
    Sha256,
}

impl Default for Storage {
    fn default() -> Self {
        // Some 100 ms on a MIPS of 880 MHz.
        Self::Pbkdf2(NonZeroU32::new(10_000).unwrap_or(NonZeroU32::MIN))
    }
}

impl fmt::Debug for Secret {
    /// Without it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Of a new password. `None`: the system has no random numbers.
    #[must_use]
    pub fn of(password: &[u8], storage: Storage) -> Option<Self> {
        match storage {
            Storage::Sha256 => sha256(password).map(Self::Sha256),
            Storage::Pbkdf2(rounds) => {
                let mut salt = [0; SALT_BYTES];
                SystemRandom::new().fill(&mut salt).ok()?;
                let mut hash = [0; HASH_BYTES];
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::derive(algorithm, rounds, &salt, password, &mut hash);
                let salt = salt.into();
                Some(Self::Pbkdf2 { rounds, salt, hash })
            }
        }
    }

    /// Reads one of the text forms.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == 2 * HASH_BYTES {
            let hash = HEX.decode(text.as_bytes()).ok()?;
            return hash.try_into().ok().map(Self::Sha256);
        }
        let mut parts = text.split('$');
        if parts.next()? != "pbkdf2-sha256" {
            return None;
        }
        let rounds: NonZeroU32 = parts.next()?.parse().ok()?;
        let salt = BASE64.decode(parts.next()?.as_bytes()).ok()?.into();
        let hash = BASE64.decode(parts.next()?.as_bytes()).ok()?;
        if rounds.get() > ROUNDS_MAX || parts.next().is_some() {
            return None;
        }
        let hash = hash.try_into().ok()?;
        Some(Self::Pbkdf2 { rounds, salt, hash })
    }

    /// As it is stored and shown. `None`: a plain one is not.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Sha256(hash) => Some(HEX.encode(hash)),
            Self::Pbkdf2 { rounds, salt, hash } => {
                let (salt, hash) = (BASE64.encode(salt), BASE64.encode(hash));
                Some(format!("pbkdf2-sha256${rounds}${salt}${hash}"))
            }
        }
    }

    /// Whether [`Secret::admits`] takes long.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Pbkdf2 { .. })
    }

    /// Whether `password` is the right one.
    #[must_use]
    pub fn admits(&self, password: &[u8]) -> bool {
        match self {
            Self::Plain(want) => want.ct_eq(password).into(),
            Self::Sha256(want) => sha256(password).is_some_and(|hash| want.ct_eq(&hash).into()),
            Self::Pbkdf2 { rounds, salt, hash } => {
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::verify(algorithm, *rounds, salt, password, hash).is_ok()
            }
        }
    }
}

fn sha256(password: &[u8]) -> Option<[u8; HASH_BYTES]> {
    let hash = digest::digest(&digest::SHA256, password);
    hash.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_secret_admits_its_password_only_and_reads_back() {
        let rounds = NonZeroU32::new(10).unwrap();
        for storage in [Storage::Sha256, Storage::Pbkdf2(rounds)] {
            let secret = Secret::of(b"secret", storage).unwrap();
            let read = Secret::parse(&secret.to_text().unwrap()).unwrap();
            assert!(read == secret);
            assert!(read.admits(b"secret") && !read.admits(b"secre"));
        }
        let plain = Secret::Plain((*b"secret").into());
        assert!(plain.admits(b"secret") && !plain.admits(b""));
    }

    #[test]
    fn the_vector_of_emqx_is_read() {
        let text = "efa1f375d76194fa51a3556a97e641e61685f914d446979da50a551a4333ffd7";
        assert!(Secret::parse(text).unwrap().admits(b"public"));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in [
            "",
            "geheim",
            "pbkdf2-sha256$0$AA==$AA==",
            "pbkdf2-sha256$1$AA==$AA==",
            "pbkdf2-sha512$1$AA==$VJ5Od2wJxzLv1FJBSIcR+FYa5yXCe6ZBdIGMnpHsE14=",
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }
}
