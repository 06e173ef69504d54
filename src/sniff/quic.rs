//! The server name in a QUIC client's Initial packets (RFC 9000, 9001; version 2: RFC 9369).
//!
//! Initial packets are encrypted with keys that anybody can derive from the connection ID they
//! carry, so reading them proves nothing and hides nothing. The ClientHello in them may lie in
//! CRYPTO frames of any order, in several packets of a datagram and in several datagrams:
//! [`Initial`] gathers it. It is no QUIC endpoint: it answers nothing, and what it does not
//! need (acknowledgements, other packet types) it skips.
//!
//! Bounded: at most [`DATAGRAMS_MAX`] datagrams and [`CRYPTO_BYTES_MAX`] bytes are kept of one
//! client, and never more than it sent.

use ring::aead::quic::{AES_128, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

use super::Sniffed;
use super::tls::{self, HELLO_BYTES_MAX};
use crate::wire::{Reader, Truncated};

/// How many datagrams are looked at before the sniffer gives up: a hello of 16 KiB fills 14.
pub const DATAGRAMS_MAX: usize = 16;

/// How many packets of one datagram are looked at: each one that claims to be an Initial costs
/// the derivation of its keys.
const PACKETS_MAX: usize = 4;

/// How many bytes of CRYPTO frames are kept, repetitions included.
pub const CRYPTO_BYTES_MAX: usize = HELLO_BYTES_MAX;

/// How many CRYPTO frames are kept. Chrome cuts a hello into some ten.
const CHUNKS_MAX: usize = 128;

/// RFC 9000 section 17.2.
const CONNECTION_ID_BYTES_MAX: usize = 20;

/// What was gathered of one client's ClientHello. Private to a task: the caller keeps one for
/// each client socket and destination until it has an answer.
#[derive(Debug, Default)]
pub struct Initial {
    datagrams: usize,
    /// The version and connection ID that the keys of the last readable packet came from. The
    /// client's later packets carry the server's connection ID, yet keep these keys.
    origin: Option<Origin>,
    crypto_bytes: usize,
    /// Contents of CRYPTO frames with their offsets, in the order of arrival.
    chunks: Vec<(usize, Box<[u8]>)>,
}

impl Initial {
    /// Takes the client's next datagram. After an answer other than [`Sniffed::NeedMore`] the
    /// accumulator has served.
    pub fn datagram(&mut self, datagram: &[u8]) -> Sniffed {
        self.datagrams += 1;
        let Ok(understood) = self.packets(datagram) else {
            return Sniffed::Nothing;
        };
        if !understood && self.origin.is_none() {
            return Sniffed::Nothing;
        }
        match tls::client_hello(&self.contiguous()) {
            Sniffed::NeedMore if self.datagrams >= DATAGRAMS_MAX => Sniffed::Nothing,
            answer => answer,
        }
    }

    /// Reads the packets of a datagram. `Ok(false)`: none of them was QUIC's to our knowledge.
    fn packets(&mut self, datagram: &[u8]) -> Result<bool, Full> {
        let mut understood = false;
        let mut rest = datagram;
        for _ in 0..PACKETS_MAX {
            let Some(packet) = Packet::parse(rest) else {
                break;
            };
            understood |= match packet.kind {
                Kind::Initial => self.initial(&packet)?,
                Kind::ZeroRtt | Kind::Handshake => true,
            };
            rest = rest.get(packet.bytes.len()..).unwrap_or_default();
        }
        Ok(understood)
    }

    /// Opens an Initial packet and keeps its CRYPTO frames. `Ok(false)`: it does not open.
    fn initial(&mut self, packet: &Packet<'_>) -> Result<bool, Full> {
        let own = Origin {
            version: packet.version,
            id: packet.destination_id.into(),
        };
        let mut payload = None;
        if let Some(origin) = &self.origin {
            payload = packet.open(origin);
        }
        if payload.is_none() && self.origin.as_ref() != Some(&own) {
            payload = packet.open(&own);
            if payload.is_some() {
                // After a Retry the client begins anew, with the keys of another connection ID.
                self.chunks.clear();
                self.crypto_bytes = 0;
                self.origin = Some(own);
            }
        }
        let Some(payload) = payload else {
            return Ok(false);
        };
        let mut reader = Reader::new(&payload);
        // A frame that is not understood ends the packet: its length is not known.
        while let Ok(Some(frame)) = next_frame(&mut reader) {
            if let Frame::Crypto { offset, content } = frame {
                self.keep(offset, content)?;
            }
        }
        Ok(true)
    }

    fn keep(&mut self, offset: u64, content: &[u8]) -> Result<(), Full> {
        let offset = usize::try_from(offset).map_err(|_| Full)?;
        let known = |(at, kept): &(usize, Box<[u8]>)| *at == offset && kept.len() >= content.len();
        if content.is_empty() || self.chunks.iter().any(known) {
            return Ok(());
        }
        self.crypto_bytes += content.len();
        if offset >= HELLO_BYTES_MAX
            || self.crypto_bytes > CRYPTO_BYTES_MAX
            || self.chunks.len() >= CHUNKS_MAX
        {
            return Err(Full);
        }
        self.chunks.push((offset, content.into()));
        Ok(())
    }

    /// The bytes from offset 0 up to the first that is missing.
    fn contiguous(&mut self) -> Vec<u8> {
        self.chunks.sort_by_key(|(offset, _)| *offset);
        let mut joined = Vec::new();
        for (offset, content) in &self.chunks {
            let Some(known) = joined.len().checked_sub(*offset) else {
                break;
            };
            joined.extend_from_slice(content.get(known..).unwrap_or_default());
        }
        joined
    }
}

/// The client sent more than is kept of one; the sniffer gives up.
#[derive(Debug)]
struct Full;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn from_wire(version: u32) -> Option<Self> {
        match version {
            1 => Some(Self::V1),
            0x6b33_43cf => Some(Self::V2),
            _ => None,
        }
    }
}

/// What the keys of an Initial packet are derived from (RFC 9001 section 5.2).
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    version: Version,
    id: Box<[u8]>,
}

/// The long header packets that may stand before or behind an Initial packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
}

/// One packet of a datagram, still protected.
struct Packet<'a> {
    version: Version,
    kind: Kind,
    destination_id: &'a [u8],
    /// Where the packet number begins.
    number_at: usize,
    /// The whole packet, header included.
    bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The long header packet at the front of `bytes` (RFC 9000 section 17.2). The fixed bit is
    /// not looked at: clients may clear it (RFC 9287).
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8().ok()?;
        if first & 0x80 == 0 {
            return None;
        }
        let version = Version::from_wire(reader.u32().ok()?)?;
        let kind = match (version, (first >> 4) & 3) {
            (Version::V1, 0) | (Version::V2, 1) => Kind::Initial,
            (Version::V1, 1) | (Version::V2, 2) => Kind::ZeroRtt,
            (Version::V1, 2) | (Version::V2, 3) => Kind::Handshake,
            _ => return None, // Retry, which clients do not send
        };
        let destination_id = connection_id(&mut reader)?;
        connection_id(&mut reader)?;
        if kind == Kind::Initial {
            let token = varint(&mut reader).ok()?;
            reader.take(usize::try_from(token).ok()?).ok()?;
        }
        let length = usize::try_from(varint(&mut reader).ok()?).ok()?;
        let number_at = reader.position();
        reader.take(length).ok()?;
        Some(Self {
            version,
            kind,
            destination_id,
            number_at,
            bytes: bytes.get(..reader.position())?,
        })
    }

    /// The frames of an Initial packet, with the keys of `origin` (RFC 9001 section 5.4).
    fn open(&self, origin: &Origin) -> Option<Vec<u8>> {
        if origin.version != self.version {
            return None;
        }
        let keys = Keys::derive(origin)?;
        let mut packet = self.bytes.to_vec();
        // The sample stands where the payload begins if the packet number has four bytes.
        let sample = packet.get(self.number_at.checked_add(4)?..)?.get(..16)?;
        let mask = keys.header.new_mask(sample).ok()?;
        let first = packet.first_mut()?;
        *first ^= mask[0] & 0x0f;
        let number_length = usize::from(*first & 3) + 1;
        let payload_at = self.number_at + number_length;
        let number = packet.get_mut(self.number_at..payload_at)?;
        let mut nonce = keys.iv;
        for (byte, mask) in number.iter_mut().zip(mask.iter().skip(1)) {
            *byte ^= mask;
        }
        // The first numbers a client uses are small: the truncated number is the whole number.
        for (nonce, byte) in nonce.iter_mut().rev().zip(number.iter().rev()) {
            *nonce ^= byte;
        }
        let (header, payload) = packet.split_at_mut_checked(payload_at)?;
        let opened = keys
            .packet
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&*header),
                payload,
            )
            .ok()?;
        Some(opened.to_vec())
    }
}

fn connection_id<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = usize::from(reader.u8().ok()?);
    if length > CONNECTION_ID_BYTES_MAX {
        return None;
    }
    reader.take(length).ok()
}

/// A variable-length integer (RFC 9000 section 16).
fn varint(reader: &mut Reader<'_>) -> Result<u64, Truncated> {
    let first = reader.u8()?;
    let mut value = u64::from(first & 0x3f);
    for byte in reader.take((1 << (first >> 6)) - 1)? {
        value = value << 8 | u64::from(*byte);
    }
    Ok(value)
}

enum Frame<'a> {
    Crypto { offset: u64, content: &'a [u8] },
    Other,
}

/// The next frame of those that an Initial packet may hold (RFC 9000 section 12.4); `None` at
/// the end and at any other frame.
fn next_frame<'a>(reader: &mut Reader<'a>) -> Result<Option<Frame<'a>>, Truncated> {
    if reader.is_empty() {
        return Ok(None);
    }
    match varint(reader)? {
        0 | 1 => {} // PADDING, PING
        kind @ (2 | 3) => skip_ack(reader, kind == 3)?,
        6 => {
            let offset = varint(reader)?;
            let length = usize::try_from(varint(reader)?).map_err(|_| Truncated)?;
            let content = reader.take(length)?;
            return Ok(Some(Frame::Crypto { offset, content }));
        }
        _ => return Ok(None),
    }
    Ok(Some(Frame::Other))
}

/// An ACK frame (RFC 9000 section 19.3); each range takes at least two bytes of the packet.
fn skip_ack(reader: &mut Reader<'_>, counts: bool) -> Result<(), Truncated> {
    varint(reader)?; // largest acknowledged
    varint(reader)?; // delay
    let ranges = varint(reader)?;
    varint(reader)?; // first range
    for _ in 0..ranges {
        varint(reader)?;
        varint(reader)?;
    }
    for _ in 0..if counts { 3 } else { 0 } {
        varint(reader)?;
    }
    Ok(())
}

/// A client's Initial keys.
struct Keys {
    packet: LessSafeKey,
    iv: [u8; 12],
    header: HeaderProtectionKey,
}

impl Keys {
    /// RFC 9001 section 5.2, RFC 9369 section 3.3.
    fn derive(origin: &Origin) -> Option<Self> {
        let (salt, key, iv, header): (_, &[u8], &[u8], &[u8]) = match origin.version {
            Version::V1 => (SALT_V1, b"quic key", b"quic iv", b"quic hp"),
            Version::V2 => (SALT_V2, b"quicv2 key", b"quicv2 iv", b"quicv2 hp"),
        };
        let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(&origin.id);
        let secret: [u8; 32] = expand_label(&initial, b"client in")?;
        let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret);
        let packet: [u8; 16] = expand_label(&secret, key)?;
        let hp: [u8; 16] = expand_label(&secret, header)?;
        Some(Self {
            packet: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &packet).ok()?),
            iv: expand_label(&secret, iv)?,
            header: HeaderProtectionKey::new(&AES_128, &hp).ok()?,
        })
    }
}

const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand_label<const N: usize>(secret: &hkdf::Prk, label: &[u8]) -> Option<[u8; N]> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let label_length = [u8::try_from(6 + label.len()).ok()?];
    let info = [&length[..], &label_length, b"tls13 ", label, &[0]];
    let mut out = [0; N];
    secret.expand(&info, Length(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests;
