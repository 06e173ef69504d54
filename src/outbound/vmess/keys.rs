//! VMess's keys: the user's, and what is derived of it (proxy-protocols.md 4.1).
//!
//! Pure. The derivation is HMAC built upon HMAC: each part of the path keys an HMAC whose hash function
//! is the one of the part before.

use std::fmt;

use md5::{Digest, Md5};
use ring::digest::{SHA256, digest};

use crate::inflate::crc32;
use crate::outbound::crypto::{BlockKey, Cipher, Forged, Key, NONCE};

/// Appended to the user's id before hashing; part of the protocol.
const ID_SALT: &[u8] = b"c48619fe-8f02-49e0-b9e9-edf763e17e21";

/// Bytes of SHA-256's block.
const BLOCK: usize = 64;

/// What a user is known by, and what is derived of it once. Never shown.
pub struct UserKey {
    /// The user's id.
    pub id: [u8; 16],
    command: [u8; 16],
    auth: BlockKey,
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(..)")
    }
}

impl UserKey {
    /// The key of the user with this id.
    ///
    /// # Errors
    /// [`Forged`] never: the derived key has an AES key's length.
    pub fn new(id: [u8; 16]) -> Result<Self, Forged> {
        let mut hasher = Md5::new();
        hasher.update(id);
        hasher.update(ID_SALT);
        let command: [u8; 16] = hasher.finalize().into();
        let auth = first_16(&kdf(&command, &[b"AES Auth ID Encryption"]));
        Ok(Self {
            id,
            command,
            auth: BlockKey::new(&auth)?,
        })
    }

    /// The AuthID of `unix_time` and four random bytes.
    #[must_use]
    pub fn auth_id(&self, unix_time: u64, random: [u8; 4]) -> [u8; 16] {
        let mut block = [0; 16];
        let (time, rest) = block.split_at_mut(8);
        time.copy_from_slice(&unix_time.to_be_bytes());
        rest.iter_mut()
            .zip(random)
            .for_each(|(to, byte)| *to = byte);
        let (checked, sum) = block.split_at_mut(12);
        sum.copy_from_slice(&crc32(checked).to_be_bytes());
        self.auth.encrypt(&mut block);
        block
    }

    /// The time of an AuthID, if it is one of this user's.
    #[must_use]
    pub fn time_of(&self, auth_id: &[u8; 16]) -> Option<u64> {
        let mut block = *auth_id;
        self.auth.decrypt(&mut block);
        let (checked, sum) = block.split_at(12);
        if sum != crc32(checked).to_be_bytes() {
            return None;
        }
        let time = u64::from_be_bytes(*checked.first_chunk()?);
        i64::try_from(time).is_ok().then_some(time)
    }

    /// Key and nonce of a part of the header, by the labels of both.
    ///
    /// # Errors
    /// [`Forged`] never.
    pub fn sealing(
        &self,
        labels: (&[u8], &[u8]),
        auth_id: &[u8; 16],
        nonce: &[u8; 8],
    ) -> Result<(Key, [u8; NONCE]), Forged> {
        let key = kdf(&self.command, &[labels.0, auth_id, nonce]);
        let iv = kdf(&self.command, &[labels.1, auth_id, nonce]);
        Ok((Key::new(Cipher::Aes128Gcm, &first_16(&key))?, first_12(&iv)))
    }
}

/// The derivation of `key` along `path`.
#[must_use]
pub fn kdf(key: &[u8], path: &[&[u8]]) -> [u8; 32] {
    let mut whole: Vec<&[u8]> = Vec::with_capacity(path.len() + 1);
    whole.push(b"VMess AEAD KDF");
    whole.extend_from_slice(path);
    nested(&whole, key)
}

/// HMAC keyed with the last part, over the hash that the parts before it make.
fn nested(keys: &[&[u8]], message: &[u8]) -> [u8; 32] {
    let Some((key, inner)) = keys.split_last() else {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, message).as_ref());
        return hash;
    };
    // No part is longer than a block: labels, an AuthID, a nonce.
    let padded = |with: u8, message: &[u8]| {
        let mut bytes = vec![with; BLOCK];
        bytes
            .iter_mut()
            .zip(*key)
            .for_each(|(to, byte)| *to ^= byte);
        bytes.extend_from_slice(message);
        bytes
    };
    let within = nested(inner, &padded(0x36, message));
    nested(inner, &padded(0x5c, &within))
}

/// The first half of a derived key.
#[must_use]
pub fn first_16(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut()
        .zip(bytes)
        .for_each(|(to, byte)| *to = *byte);
    half
}

/// A nonce of a derived key.
#[must_use]
pub fn first_12(bytes: &[u8; 32]) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, byte)| *to = *byte);
    nonce
}

/// FNV-1a of 32 bits, which ends a request's header.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// ChaCha20's key of the 16 bytes that the header gives.
#[must_use]
pub fn chacha_key(key: &[u8; 16]) -> [u8; 32] {
    let first: [u8; 16] = Md5::digest(key).into();
    let second: [u8; 16] = Md5::digest(first).into();
    let mut long = [0; 32];
    long.iter_mut()
        .zip(first.into_iter().chain(second))
        .for_each(|(to, byte)| *to = byte);
    long
}

/// What an answer is sealed with, of what the request was.
#[must_use]
pub fn answer_key(key: &[u8; 16]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut()
        .zip(digest(&SHA256, key).as_ref())
        .for_each(|(to, byte)| *to = *byte);
    half
}

/// A user's id as people write it: the 32 digits of a UUID, or any other text of at most 30 bytes,
/// which Xray and mihomo map to version 5 under the nil namespace.
#[must_use]
pub fn parse_id(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
    if digits.len() == 32
        && let Ok(bytes) = crate::encoding::HEX.decode(&digits)
    {
        return bytes.try_into().ok();
    }
    if text.is_empty() || text.len() > 30 {
        return None;
    }
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&[0; 16]);
    context.update(text.as_bytes());
    let hash = context.finish();
    let mut id: [u8; 16] = *hash.as_ref().first_chunk()?;
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut id;
    *version = *version & 0x0f | 0x50;
    *variant = *variant & 0x3f | 0x80;
    Some(id)
}

#[cfg(test)]
mod tests {
    use crate::encoding::HEX;

    use super::*;

    fn user() -> UserKey {
        UserKey::new(parse_id("66ad4540-b58c-4ad2-9926-ea63445a9b57").unwrap()).unwrap()
    }

    /// The first two are published in clash-rs, the others computed by a client that spoke to v2ray
    /// (proxy-protocols.md 4 and 14).
    #[test]
    fn keys_match_the_vectors() {
        assert_eq!(
            HEX.encode(&kdf(b"test", &[b"AES Auth ID Encryption"])),
            "956dfd149e2770c71c4a036a6308ea3b40ac7e059b1c3b15dcc4f1368a05476b"
        );
        let id = parse_id("b831381d-6324-4d53-ad4f-8cda48b30811").unwrap();
        let other = UserKey::new(id).unwrap();
        assert_eq!(
            HEX.encode(&other.command),
            "b50d916ac0cec067981af8e5f38a758f"
        );
        let user = user();
        assert_eq!(
            HEX.encode(&user.command),
            "81757e37f9668a8e7700d11ee834ede0"
        );
        let auth_id = user.auth_id(1_700_000_000, [1, 2, 3, 4]);
        assert_eq!(HEX.encode(&auth_id), "6ef707dd9ca5acd4fa86d785029a4f34");
        assert_eq!(user.time_of(&auth_id), Some(1_700_000_000));
        assert_eq!(other.time_of(&auth_id), None);
        let body_key = std::array::from_fn(|i| 0x30 + u8::try_from(i).unwrap());
        assert_eq!(
            HEX.encode(&chacha_key(&body_key)),
            "bdf2930f973f722e24a3773d61889501c3c2e371e23677b71c00a97d736d5e0f"
        );
        assert_eq!(
            HEX.encode(&answer_key(&body_key)),
            "816b9e7c25d559c5766755b3bbb36654"
        );
    }

    #[test]
    fn ids_are_uuids_or_short_texts() {
        assert_eq!(
            parse_id("66AD4540b58c4ad29926ea63445a9b57"),
            parse_id("66ad4540-b58c-4ad2-9926-ea63445a9b57")
        );
        // Xray's own example of a text as an id.
        let mapped = parse_id("example").unwrap();
        assert_eq!(HEX.encode(&mapped), "feb54431301b52bba6dde1e93e81bb9e");
        assert_eq!(parse_id(""), None);
        assert_eq!(parse_id(&"x".repeat(31)), None);
    }
}
