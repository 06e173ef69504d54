//! VMess's body: the chunks of both directions, to and from bytes (proxy-protocols.md 4.3).
//!
//! Pure but for the padding's bytes, which mean nothing. A chunk is its size, maybe masked or sealed, its
//! sealed data, and maybe padding; an empty one ends the direction.

use std::io;

use shake::Shake128;
use shake::digest::{ExtendableOutput, Update, XofReader};

use super::keys::{chacha_key, first_16, kdf};
use crate::outbound::crypto::{Cipher, Forged, KEY_MAX, NONCE, RestingKey, TAG};
use crate::outbound::framed::{BATCH_MAX, Shape, Step, too_long};
use crate::outbound::random;
use crate::outbound::scratch::{Full, Scratch};

/// Data of one chunk that we send at most: four fill a batch; readers of every implementation take more.
pub const CHUNK_MAX: usize = BATCH_MAX / 4 - (2 + TAG + TAG);

/// What a chunk adds at most: a sealed size, a tag, padding.
pub const CHUNK_FRAME: usize = 2 + TAG + TAG + PADDING_MAX;

/// Padding is shorter than this.
const PADDING_MAX: usize = 64;

/// `S`: the body is chunks.
pub const CHUNKED: u8 = 0x01;
/// `M`: sizes are masked.
pub const MASKED: u8 = 0x04;
/// `P`: chunks are padded.
pub const PADDED: u8 = 0x08;
/// `A`: sizes are sealed.
pub const SEALED_SIZE: u8 = 0x10;

/// What encrypts the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// Nothing.
    None,
}

impl Security {
    /// Its number in a request.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Aes128Gcm => 3,
            Self::ChaCha20Poly1305 => 4,
            Self::None => 5,
        }
    }

    /// What a request's number means; legacy ones mean nothing any more.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::Aes128Gcm),
            4 => Some(Self::ChaCha20Poly1305),
            5 => Some(Self::None),
            _ => None,
        }
    }
}

/// Bytes or datagrams: without encryption they are framed differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A byte stream.
    Stream,
    /// A datagram a chunk.
    Packets,
}

/// What both directions of one connection agree on.
#[derive(Clone, Copy)]
pub struct Agreement {
    /// Of the request: what sizes are sealed with, in both directions.
    pub key: [u8; 16],
    /// Of the request.
    pub iv: [u8; 16],
    /// The request's option bits.
    pub options: u8,
    /// The request's security.
    pub security: Security,
    /// What the chunks are.
    pub content: Content,
}

/// One direction's chunks.
pub struct Chunks {
    data: Option<Counting>,
    size: Option<Counting>,
    mask: Option<Box<<Shake128 as ExtendableOutput>::Reader>>,
    options: u8,
    content: Content,
    /// Of the chunk that is being read: what stands of it behind its size.
    reading: Option<(usize, usize)>,
    ended: bool,
}

/// A key whose nonces count.
struct Counting {
    key: RestingKey,
    iv: [u8; 16],
    count: u16,
}

impl Counting {
    fn new(security: Security, key: [u8; 16], iv: [u8; 16]) -> Option<Self> {
        let mut short = [0; KEY_MAX];
        short.iter_mut().zip(key).for_each(|(to, byte)| *to = byte);
        let key = match security {
            Security::Aes128Gcm => RestingKey::new(Cipher::Aes128Gcm, short),
            Security::ChaCha20Poly1305 => {
                RestingKey::new(Cipher::ChaCha20Poly1305, chacha_key(&key))
            }
            Security::None => return None,
        };
        Some(Self { key, iv, count: 0 })
    }

    /// A counter, then the middle of the IV. Wraps, as everybody's does.
    fn nonce(&mut self) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        let middle = self.iv.iter().skip(2);
        let bytes = self.count.to_be_bytes();
        let bytes = bytes.iter().chain(middle);
        nonce
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, byte)| *to = *byte);
        self.count = self.count.wrapping_add(1);
        nonce
    }

    fn seal(&mut self, data: &mut [u8]) -> Result<[u8; TAG], Forged> {
        let nonce = self.nonce();
        self.key.wake()?.seal(&nonce, data)
    }

    fn open(&mut self, data: &mut [u8]) -> Result<(), Forged> {
        let nonce = self.nonce();
        self.key.wake()?.open(&nonce, data).map(drop)
    }
}

impl From<Forged> for io::Error {
    fn from(error: Forged) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl Chunks {
    /// The direction that is sealed with `key` and `iv`.
    #[must_use]
    pub fn new(agreement: &Agreement, key: [u8; 16], iv: [u8; 16]) -> Self {
        let Agreement {
            options,
            security,
            content,
            ..
        } = *agreement;
        let sealed_size = options & SEALED_SIZE != 0 && security != Security::None;
        let size_key = || first_16(&kdf(&agreement.key, &[b"auth_len"]));
        let mask = (options & MASKED != 0).then(|| {
            let mut shake = Shake128::default();
            shake.update(&iv);
            Box::new(shake.finalize_xof())
        });
        Self {
            data: Counting::new(security, key, iv),
            size: sealed_size
                .then(|| Counting::new(security, size_key(), agreement.iv))
                .flatten(),
            mask,
            options,
            content,
            reading: None,
            ended: false,
        }
    }

    /// Whether it has no chunks at all.
    fn is_raw(&self) -> bool {
        self.options & CHUNKED == 0
    }

    /// Bytes of a size.
    fn size_length(&self) -> usize {
        if self.size.is_some() { 2 + TAG } else { 2 }
    }

    /// What is behind the data of a chunk besides padding.
    fn overhead(&self) -> usize {
        if self.data.is_some() { TAG } else { 0 }
    }

    fn draw(&mut self) -> u16 {
        let mut bytes = [0; 2];
        if let Some(mask) = &mut self.mask {
            mask.read(&mut bytes);
        }
        u16::from_be_bytes(bytes)
    }

    /// Whether chunks are padded. Unencrypted streams never are.
    fn is_padded(&self) -> bool {
        let bare = self.data.is_none() && self.content == Content::Stream;
        self.options & PADDED != 0 && self.mask.is_some() && !bare
    }

    /// The next chunk's padding, drawn before its mask.
    fn padding(&mut self) -> usize {
        if self.is_padded() {
            usize::from(self.draw()) % PADDING_MAX
        } else {
            0
        }
    }

    /// Appends one chunk of `data`; an empty one ends the direction.
    ///
    /// # Errors
    /// It does not fit, or there is no randomness.
    pub fn push(&mut self, data: &[u8], out: &mut Scratch) -> io::Result<()> {
        let place = out.spare().get_mut(self.size_length()..);
        let place = place.and_then(|place| place.get_mut(..data.len()));
        place.ok_or_else(|| too_long(Full))?.copy_from_slice(data);
        self.enframe(data.len(), out)
    }

    /// What a chunk is made of.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match self.is_raw() {
            true => Shape {
                head: 0,
                data_max: usize::MAX,
                tail_max: 0,
            },
            false => Shape {
                head: self.size_length(),
                data_max: CHUNK_MAX,
                tail_max: self.overhead() + if self.is_padded() { PADDING_MAX } else { 0 },
            },
        }
    }

    /// Appends one chunk, or bare bytes, of the first `data` bytes behind a size's room in the spare room of
    /// `out`.
    ///
    /// # Errors
    /// As [`Chunks::push`].
    pub fn enframe(&mut self, data: usize, out: &mut Scratch) -> io::Result<()> {
        if self.is_raw() {
            out.filled(data);
            return Ok(());
        }
        let padding = self.padding();
        let size = data + self.overhead() + padding;
        let size = u16::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        if let Some(key) = &mut self.size {
            let tag = u16::try_from(TAG).unwrap_or(0);
            let mut bytes = (size - tag).to_be_bytes();
            let tag = key.seal(&mut bytes)?;
            out.push(&bytes).map_err(too_long)?;
            out.push(&tag).map_err(too_long)?;
        } else {
            let masked = size ^ self.draw();
            out.push(&masked.to_be_bytes()).map_err(too_long)?;
        }
        let start = out.len();
        out.filled(data);
        if let Some(key) = &mut self.data {
            let tag = key.seal(out.data_mut().get_mut(start..).unwrap_or_default())?;
            out.push(&tag).map_err(too_long)?;
        }
        let mut noise = [0; PADDING_MAX];
        let noise = noise.get_mut(..padding).unwrap_or_default();
        random::fill(noise)?;
        out.push(noise).map_err(too_long)
    }

    /// Appends as much of `data` as there is room for; how much.
    ///
    /// # Errors
    /// As [`Chunks::push`].
    pub fn encode(&mut self, data: &[u8], out: &mut Scratch) -> io::Result<usize> {
        if self.is_raw() {
            let room = out.spare().len();
            let part = data.get(..room).unwrap_or(data);
            out.push(part).map_err(too_long)?;
            return Ok(part.len());
        }
        let mut sent = 0;
        for part in data.chunks(CHUNK_MAX) {
            let room = out.spare().len().saturating_sub(CHUNK_FRAME);
            let part = part.get(..room).unwrap_or(part);
            if part.is_empty() {
                break;
            }
            self.push(part, out)?;
            sent += part.len();
        }
        Ok(sent)
    }

    /// Appends what ends the direction.
    ///
    /// # Errors
    /// As [`Chunks::push`].
    pub fn finish(&mut self, out: &mut Scratch) -> io::Result<()> {
        if self.is_raw() {
            Ok(())
        } else {
            self.push(&[], out)
        }
    }

    /// The buffer that `data` bytes in chunks need.
    #[must_use]
    pub fn room(data: usize) -> usize {
        data + (data / CHUNK_MAX + 1) * CHUNK_FRAME
    }

    /// Goes on with what `incoming` holds.
    ///
    /// # Errors
    /// The bytes do not authenticate, or a size is impossible.
    pub fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        if self.is_raw() {
            return Ok(match incoming.len() {
                0 => Step::NeedMore(1),
                n => Step::Opened(n, 0),
            });
        }
        if self.ended {
            incoming.consume(incoming.len());
            return Ok(Step::End);
        }
        if self.reading.is_none() {
            let need = self.size_length();
            if incoming.len() < need {
                return Ok(Step::NeedMore(need));
            }
            let reading = self.next_size(incoming)?;
            incoming.consume(need);
            if reading.0 == 0 {
                // Nobody waits for what may stand behind an empty chunk's size.
                self.ended = true;
                incoming.consume(incoming.len());
                return Ok(Step::End);
            }
            self.reading = Some(reading);
        }
        let (length, trailer) = self.reading.unwrap_or_default();
        let whole = length + trailer;
        // With its padding, which is skipped behind the data.
        if incoming.len() < whole {
            return Ok(Step::NeedMore(whole));
        }
        let sealed = length + self.overhead();
        if let Some(key) = &mut self.data {
            key.open(incoming.data_mut().get_mut(..sealed).unwrap_or_default())?;
        }
        self.reading = None;
        Ok(Step::Opened(length, trailer))
    }

    /// Data and trailer of the chunk whose size stands at the front.
    fn next_size(&mut self, incoming: &mut Scratch) -> io::Result<(usize, usize)> {
        let padding = self.padding();
        let need = self.size_length();
        let field = incoming.data_mut().get_mut(..need).unwrap_or_default();
        let extra = match &mut self.size {
            Some(key) => {
                key.open(field)?;
                TAG
            }
            None => 0,
        };
        let field = field
            .first_chunk()
            .map_or(0, |bytes| u16::from_be_bytes(*bytes));
        let mask = if self.size.is_some() { 0 } else { self.draw() };
        let size = usize::from(field ^ mask) + extra;
        let trailer = self.overhead() + padding;
        let data = size.checked_sub(trailer).ok_or(Forged)?;
        Ok((data, trailer))
    }

    /// Whether the peer may end here.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.reading.is_none()
    }

    /// Nothing flows for now.
    pub fn rest(&mut self) {
        for key in [&mut self.data, &mut self.size].into_iter().flatten() {
            key.key.rest();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::encoding::HEX;
    use proptest::prelude::*;

    use super::*;

    fn agreement(options: u8, security: Security, content: Content) -> Agreement {
        let counting = |from: u8| std::array::from_fn(|i| from + u8::try_from(i).unwrap());
        Agreement {
            key: counting(0x30),
            iv: counting(0x20),
            options,
            security,
            content,
        }
    }

    fn chunks(agreement: &Agreement) -> Chunks {
        Chunks::new(agreement, agreement.key, agreement.iv)
    }

    #[track_caller]
    fn check(options: u8, security: Security, want: &str) {
        let agreement = agreement(options, security, Content::Stream);
        let mut out = Scratch::take(0);
        let mut sender = chunks(&agreement);
        sender.push(b"hello", &mut out).unwrap();
        let shown = HEX.encode(out.data());
        // Padding is noise: compare what stands before it.
        assert!(shown.starts_with(want), "{shown}");
        if options & PADDED == 0 {
            let start = out.len();
            sender.finish(&mut out).unwrap();
            assert_eq!(
                HEX.encode(&out.data()[start..]),
                "222515e665ceb95753d792d84847f68d29a2"
            );
        } else {
            assert_eq!(out.len(), want.len() / 2 + 8);
        }
    }

    /// Computed by a client that spoke to v2ray; the authenticated length by formula
    /// (proxy-protocols.md 14).
    #[test]
    fn chunks_match_the_vectors() {
        let (aes, chacha) = (Security::Aes128Gcm, Security::ChaCha20Poly1305);
        check(0x0d, aes, "22284ba7ab09e5ade26eae75b50e9586a717ba52df4054");
        check(
            0x0d,
            chacha,
            "2228405260ed5fa743f035fe5f23d41a83f4843220f605",
        );
        check(0x05, aes, "e49d4ba7ab09e5ade26eae75b50e9586a717ba52df4054");
        check(
            0x1d,
            aes,
            "981eaec79e89c231bbdfdc6b04eda750da134ba7ab09e5ade26eae75b50e9586a717ba52df4054",
        );
    }

    fn carry(agreement: &Agreement, text: &[u8], step: usize) -> (Vec<u8>, bool) {
        let (mut sender, mut receiver) = (chunks(agreement), chunks(agreement));
        let mut bytes = Vec::new();
        let mut sent = 0;
        while sent < text.len() {
            let rest = &text[sent..text.len().min(sent + 40_000)];
            let mut out = Scratch::take(Chunks::room(rest.len()));
            sent += sender.encode(rest, &mut out).unwrap();
            bytes.extend_from_slice(out.data());
        }
        let mut out = Scratch::take(0);
        sender.finish(&mut out).unwrap();
        bytes.extend_from_slice(out.data());
        let (mut read, mut incoming) = (Vec::new(), Scratch::take(0));
        for piece in bytes.chunks(step) {
            incoming.reserve(incoming.len() + piece.len());
            incoming.push(piece).unwrap();
            loop {
                match receiver.decode(&mut incoming).unwrap() {
                    Step::Opened(n, trailer) => {
                        read.extend_from_slice(&incoming.data()[..n]);
                        incoming.consume(n + trailer);
                    }
                    Step::NeedMore(total) => break incoming.reserve(total),
                    Step::End => return (read, true),
                }
            }
        }
        (read, false)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn what_is_sent_is_read(
            length in 0usize..90_000, step in 1usize..30_000, bits in 0u8..8, security in 3u8..6, packets: bool,
        ) {
            let options = CHUNKED
                | [0, MASKED][usize::from(bits & 1)]
                | [0, PADDED][usize::from(bits >> 1 & 1)]
                | [0, SEALED_SIZE][usize::from(bits >> 2)];
            let content = if packets { Content::Packets } else { Content::Stream };
            let agreement = agreement(options, Security::from_number(security).unwrap(), content);
            let text: Vec<u8> = (0..251).cycle().take(length).collect();
            let (read, ended) = carry(&agreement, &text, step.max(length / 50));
            prop_assert!(read == text && ended);
        }

        #[test]
        fn random_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), options: u8, security in 3u8..6,
        ) {
            let security = Security::from_number(security).unwrap();
            let mut receiver = chunks(&agreement(options, security, Content::Stream));
            let mut incoming = Scratch::take(0);
            incoming.push(&bytes).unwrap();
            while let Ok(Step::Opened(n, trailer)) = receiver.decode(&mut incoming) {
                incoming.consume(n + trailer);
            }
        }
    }

    #[test]
    fn one_changed_bit_ends_the_stream() {
        let agreement = agreement(0x05, Security::Aes128Gcm, Content::Stream);
        let mut out = Scratch::take(0);
        chunks(&agreement).push(b"hello", &mut out).unwrap();
        out.data_mut()[4] ^= 1;
        assert!(chunks(&agreement).decode(&mut out).is_err());
    }
}
