//! REALITY: TLS 1.3 that looks like another site's, to and from bytes (proxy-protocols.md 9.2; Xray's
//! `transport/internet/reality`, `XTLS/REALITY`).
//!
//! Client and server agree on a key by the X25519 share of the ClientHello and the server's own key. With
//! it the client seals who it is into the session id, and the server proves by the signature of its
//! certificate, which is an HMAC, that it is no middleman. Everything else is TLS, and rustls's part.
//! Pure; [`client`] drives the client's end, `inbound::server::reality` the server's.

pub mod client;

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::encoding::HEX;
use crate::wire::{Reader, Truncated};

/// Where the session id stands in a ClientHello: behind type, length, version, random and its length.
const SESSION_ID: std::ops::Range<usize> = 39..39 + 32;

/// Record and extension numbers (RFC 8446 sections 4, 4.2; RFC 6066 section 3).
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
const TLS13: [u8; 2] = [3, 4];
const X25519: u16 = 0x001d;
/// X25519MLKEM768, whose share ends with one of X25519.
const HYBRID: u16 = 0x11ec;
const HYBRID_SHARE: usize = 1184 + 32;

/// The version of Xray that a client says it is: servers may ask for a least one.
pub const VERSION: [u8; 3] = [26, 7, 28];

/// The key of one connection.
#[derive(Clone)]
pub struct AuthKey([u8; 32]);

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(..)")
    }
}

/// What a client seals into the session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The client's version.
    pub version: [u8; 3],
    /// Its clock, seconds since 1970.
    pub time: u32,
    /// Which of the server's clients it is, zeros behind.
    pub short_id: [u8; 8],
}

impl AuthKey {
    /// The key between our `secret` and `theirs`, for a ClientHello with this `random`. `None`: theirs is
    /// a point of small order.
    #[must_use]
    pub fn agree(secret: &StaticSecret, theirs: &[u8; 32], random: &[u8; 32]) -> Option<Self> {
        let shared = secret.diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return None;
        }
        let (salt, _) = random.split_at(20);
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, salt);
        let key = salt.extract(shared.as_bytes());
        let mut out = [0; 32];
        let expanded = key.expand(&[b"REALITY"], hkdf::HKDF_SHA256).ok()?;
        expanded.fill(&mut out).ok()?;
        Some(Self(out))
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        Some(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, &self.0).ok()?,
        ))
    }

    /// The session id of `hello` (a handshake message, whatever its session id is) that says `token`.
    #[must_use]
    pub fn seal(&self, hello: &[u8], token: &Token) -> Option<[u8; 32]> {
        let (blank, nonce) = blank(hello)?;
        let mut id = [0; 32];
        let (text, tag) = id.split_at_mut(16);
        let [x, y, z] = token.version;
        let [a, b, c, d] = token.time.to_be_bytes();
        let (head, short_id) = text.split_at_mut(8);
        head.copy_from_slice(&[x, y, z, 0, a, b, c, d]);
        short_id.copy_from_slice(&token.short_id);
        let sealed = self
            .cipher()?
            .seal_in_place_separate_tag(nonce, Aad::from(blank), text);
        tag.copy_from_slice(sealed.ok()?.as_ref());
        Some(id)
    }

    /// What the session id of `hello` says; `None`: nothing, to us.
    #[must_use]
    pub fn open(&self, hello: &[u8]) -> Option<Token> {
        let (blank, nonce) = blank(hello)?;
        let mut id: [u8; 32] = hello.get(SESSION_ID)?.try_into().ok()?;
        let opened = self
            .cipher()?
            .open_in_place(nonce, Aad::from(blank), &mut id);
        let &[x, y, z, _, a, b, c, d, ref short_id @ ..] = opened.ok()?.first_chunk::<16>()?;
        Some(Token {
            version: [x, y, z],
            time: u32::from_be_bytes([a, b, c, d]),
            short_id: *short_id,
        })
    }

    /// The signature of the certificate for an Ed25519 key.
    #[must_use]
    pub fn signature(&self, public: &[u8; 32]) -> [u8; 64] {
        let key = hmac::Key::new(hmac::HMAC_SHA512, &self.0);
        let mut out = [0; 64];
        out.copy_from_slice(hmac::sign(&key, public).as_ref());
        out
    }

    /// The Ed25519 key of a certificate that whoever has this key made.
    #[must_use]
    pub fn certified(&self, certificate: &[u8]) -> Option<[u8; 32]> {
        let place = certificate
            .windows(KEY_INFO.len())
            .position(|window| window == KEY_INFO)?;
        let key = certificate.get(place + KEY_INFO.len()..)?;
        let key: [u8; 32] = *key.first_chunk()?;
        let signature = certificate.last_chunk::<64>()?;
        bool::from(self.signature(&key).ct_eq(signature)).then_some(key)
    }
}

/// The message with a session id of zeros, and the nonce of its random.
fn blank(hello: &[u8]) -> Option<(Vec<u8>, Nonce)> {
    let nonce = Nonce::try_assume_unique_for_key(hello.get(26..38)?).ok()?;
    let mut blank = hello.to_vec();
    blank.get_mut(SESSION_ID)?.fill(0);
    Some((blank, nonce))
}

/// What a server must know of a ClientHello. `None` in what is read of one: no REALITY.
#[derive(Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// `random`.
    pub random: &'a [u8; 32],
    /// The name asked for.
    pub server_name: &'a str,
    /// The X25519 share, alone or as a part.
    pub share: [u8; 32],
}

impl<'a> Hello<'a> {
    /// Reads a whole ClientHello, from its type on, as far as it may be one of a client of REALITY.
    #[must_use]
    pub fn read(message: &'a [u8]) -> Option<Self> {
        Self::try_read(message).ok().flatten()
    }

    fn try_read(message: &'a [u8]) -> Result<Option<Self>, Truncated> {
        let mut reader = Reader::new(message);
        if reader.u8()? != CLIENT_HELLO || reader.u24()? as usize != reader.rest().len() {
            return Ok(None);
        }
        reader.u16()?;
        let random = reader.take(32)?;
        let session_id = reader.u8()?;
        reader.take(usize::from(session_id))?;
        let suites = reader.u16()?;
        reader.take(usize::from(suites))?;
        let compression = reader.u8()?;
        reader.take(usize::from(compression))?;
        let (mut name, mut share, mut tls13) = (None, None, false);
        let length = reader.u16()?;
        let mut extensions = Reader::new(reader.take(usize::from(length))?);
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let length = extensions.u16()?;
            let mut body = Reader::new(extensions.take(usize::from(length))?);
            match kind {
                SERVER_NAME => {
                    body.u16()?;
                    let host = body.u8()? == 0;
                    let length = body.u16()?;
                    let text = str::from_utf8(body.take(usize::from(length))?).ok();
                    name = text.filter(|_| host);
                }
                SUPPORTED_VERSIONS => {
                    let length = body.u8()?;
                    let versions = body.take(usize::from(length))?;
                    tls13 = versions.chunks_exact(2).any(|version| version == TLS13);
                }
                KEY_SHARE => share = read_shares(&mut body)?,
                _ => {}
            }
        }
        let random = random.first_chunk();
        Ok(match (name, share, random) {
            (Some(server_name), Some(share), Some(random)) if tls13 && session_id == 32 => {
                Some(Self {
                    random,
                    server_name,
                    share,
                })
            }
            _ => None,
        })
    }
}

/// The share of X25519; else the one within the hybrid's.
fn read_shares(body: &mut Reader<'_>) -> Result<Option<[u8; 32]>, Truncated> {
    let length = body.u16()?;
    let mut shares = Reader::new(body.take(usize::from(length))?);
    let (mut alone, mut part) = (None, None);
    while !shares.is_empty() {
        let group = shares.u16()?;
        let length = shares.u16()?;
        let key = shares.take(usize::from(length))?;
        match group {
            X25519 if alone.is_none() => alone = key.try_into().ok(),
            HYBRID if part.is_none() && key.len() == HYBRID_SHARE => {
                part = key.last_chunk().copied();
            }
            _ => {}
        }
    }
    Ok(alone.or(part))
}

/// A `SubjectPublicKeyInfo` of Ed25519 up to its key (RFC 8410 section 4).
const KEY_INFO: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What stands before that in a certificate: sizes, version 3, serial 0, Ed25519, nobody's name, 1970 to
/// 2049, nobody's name (RFC 5280 section 4.1).
const CERTIFICATE_HEAD: &[u8] = b"\x30\x81\xab\x30\x5f\xa0\x03\x02\x01\x02\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x30\x00\x30\x1e\x17\x0d700101000000Z\x17\x0d491231235959Z\x30\x00";

/// What stands between key and signature.
const CERTIFICATE_REST: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70\x03\x41\x00";

/// A certificate (DER) of an Ed25519 key with that signature.
#[must_use]
pub fn certificate(public: &[u8; 32], signature: &[u8; 64]) -> Vec<u8> {
    [
        CERTIFICATE_HEAD,
        &KEY_INFO,
        public,
        CERTIFICATE_REST,
        signature,
    ]
    .concat()
}

/// Eight bytes in hexadecimal, zeros behind when there are fewer digits.
#[must_use]
pub fn parse_short_id(text: &str) -> Option<[u8; 8]> {
    let mut id = [0; 8];
    let bytes = HEX.decode(text.as_bytes()).ok()?;
    id.get_mut(..bytes.len())?.copy_from_slice(&bytes);
    Some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks_exact(2);
        let pairs =
            pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
        pairs.collect()
    }

    fn keys() -> (AuthKey, AuthKey, Vec<u8>) {
        let (server, client) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let random: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let public = |secret| PublicKey::from(secret).to_bytes();
        let ours = AuthKey::agree(&client, &public(&server), &random).unwrap();
        let theirs = AuthKey::agree(&server, &public(&client), &random).unwrap();
        let hello = [
            &hex("010000460303")[..],
            &random,
            &[0x20],
            &[9; 32],
            &hex("000000"),
        ]
        .concat();
        (ours, theirs, hello)
    }

    /// Made by an independent client of the same text (proxy-protocols.md 14).
    #[test]
    fn key_and_session_id_match_the_vector() {
        let (ours, theirs, mut hello) = keys();
        let key = hex("ae3a92d05190e33bfa635536da41b35e58200897b35d0994a6bf103eb8d04c34");
        assert_eq!((&ours.0[..], &theirs.0[..]), (&key[..], &key[..]));
        let token = Token {
            version: [26, 3, 27],
            time: 0x6553_f100,
            short_id: *b"\x01\x23\x45\x67\x89\xab\xcd\xef",
        };
        let id = ours.seal(&hello, &token).unwrap();
        let want = hex("41d74b6af534614774baf61a3b55e67c4448c2d46f35383dcc01ee521d828ce9");
        assert_eq!(id[..], want);
        hello[SESSION_ID].copy_from_slice(&id);
        assert_eq!(theirs.open(&hello), Some(token));
        hello[71] ^= 1;
        assert_eq!(theirs.open(&hello), None);
    }

    #[test]
    fn a_certificate_proves_who_knows_the_key() {
        let (ours, theirs, _) = keys();
        let der = certificate(&[7; 32], &theirs.signature(&[7; 32]));
        // The sizes that its head promises.
        assert_eq!((der.len(), usize::from(der[2]) + 3), (174, 174));
        assert_eq!(ours.certified(&der), Some([7; 32]));
        let forged = certificate(&[7; 32], &theirs.signature(&[8; 32]));
        assert_eq!(ours.certified(&forged), None);
        assert_eq!(ours.certified(b"no certificate"), None);
    }

    #[test]
    fn shares_of_small_order_agree_on_nothing() {
        let secret = StaticSecret::from([1; 32]);
        assert!(AuthKey::agree(&secret, &[0; 32], &[0; 32]).is_none());
    }

    fn hello(name: &str, shares: &[(u16, usize)], version: &[u8]) -> Vec<u8> {
        let sized = |bytes: &[u8]| {
            [
                &u16::try_from(bytes.len()).unwrap().to_be_bytes()[..],
                bytes,
            ]
            .concat()
        };
        let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
        let entry = [&[0][..], &sized(name.as_bytes())].concat();
        let shares = shares.iter().map(|(group, length)| {
            let key: Vec<u8> = (0..*length)
                .map(|i| u8::try_from(i / 32).unwrap())
                .collect();
            [&group.to_be_bytes()[..], &sized(&key)].concat()
        });
        let shares = shares.collect::<Vec<_>>().concat();
        let extensions = [
            extension(SERVER_NAME, &sized(&entry)),
            extension(21, b"padding"),
            extension(KEY_SHARE, &sized(&shares)),
            extension(
                SUPPORTED_VERSIONS,
                &[&[u8::try_from(version.len()).unwrap()], version].concat(),
            ),
        ];
        let body = [
            &[3, 3][..],
            &[5; 32],
            &[32],
            &[6; 32],
            &sized(&[0x13, 1]),
            &[1, 0],
            &sized(&extensions.concat()),
        ]
        .concat();
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1, a, b, c], &body[..]].concat()
    }

    #[test]
    fn a_hello_is_read_as_far_as_it_matters() {
        let whole = hello(
            "a.test",
            &[(0x6a6a, 1), (HYBRID, HYBRID_SHARE), (X25519, 32)],
            &[3, 4],
        );
        let read = Hello::read(&whole).unwrap();
        assert_eq!((read.random, read.server_name), (&[5; 32], "a.test"));
        assert_eq!(read.share, [0; 32]);
        let hybrid = hello("a.test", &[(HYBRID, HYBRID_SHARE)], &[3, 3, 3, 4]);
        assert_eq!(Hello::read(&hybrid).unwrap().share, [37; 32]);
        for other in [
            hello("a.test", &[(X25519, 32)], &[3, 3]),
            hello("a.test", &[(23, 65)], &[3, 4]),
        ] {
            assert_eq!(Hello::read(&other), None);
        }
        for cut in 0..whole.len() {
            assert_eq!(Hello::read(&whole[..cut]), None);
        }
    }

    #[test]
    fn short_ids_are_filled_with_zeros() {
        assert_eq!(parse_short_id("0a"), Some([10, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(parse_short_id(""), Some([0; 8]));
        for wrong in ["a", "0123456789abcdef00", "+1", "zz"] {
            assert_eq!(parse_short_id(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (key, ..) = keys();
            let _hello = Hello::read(&bytes);
            let _token = key.open(&bytes);
            let _key = key.certified(&bytes);
        }
    }
}
