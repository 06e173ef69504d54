//! Shadowsocks streams: requests, chunks and answers, to and from bytes.
//!
//! Pure: salt, time and padding are arguments; `stream` owns the socket. Both editions share the
//! chunks; they differ in how a stream begins (proxy-protocols.md 2.3 and 3.1).

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::method::{Edition, Secret};
use crate::outbound::crypto::{Forged, KEY_MAX, Nonce, RestingKey, TAG};
use crate::outbound::framed::Shape;
use crate::outbound::scratch::{Full, Scratch};
use crate::wire::{Reader, Truncated};

/// The frame of a chunk: its sealed length and its tag.
pub const CHUNK_FRAME: usize = 2 + TAG + TAG;

/// How far the peer's clock may be off (SIP022 section 3.1.3), seconds.
pub const CLOCK_SKEW_MAX: u64 = 30;

/// The longest padding (SIP022).
pub const PADDING_MAX: u16 = 900;

/// Type of a 2022 request's header.
pub const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;

/// Why a server's bytes are no Shadowsocks stream. Ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Somebody else's bytes: wrong password or cipher, or tampering.
    Forged,
    /// A chunk is longer than the edition allows.
    ChunkLength(usize),
    /// The answer's header is no answer.
    NotResponse,
    /// The answer belongs to another request.
    OtherRequest,
    /// Our clock and the server's differ by more than [`CLOCK_SKEW_MAX`].
    Clock,
    /// The request does not fit (the address is too long).
    Full,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forged => f.write_str("server's bytes do not authenticate"),
            Self::ChunkLength(length) => write!(f, "chunk of {length} bytes"),
            Self::NotResponse => f.write_str("answer has no response header"),
            Self::OtherRequest => f.write_str("answer belongs to another request"),
            Self::Clock => f.write_str("server's clock differs by more than 30 s"),
            Self::Full => f.write_str("request does not fit"),
        }
    }
}

impl std::error::Error for StreamError {}

impl From<Forged> for StreamError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}

impl From<Full> for StreamError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

impl From<Truncated> for StreamError {
    fn from(_: Truncated) -> Self {
        Self::NotResponse
    }
}

/// What begins a stream.
pub struct Request<'a> {
    /// Random, never used before; as long as the key.
    pub salt: &'a [u8],
    /// The destination in SOCKS5 form.
    pub target: &'a [u8],
    /// Seconds since 1970.
    pub unix_time: u64,
    /// Zero bytes to add when there is no payload (2022), 1 to [`PADDING_MAX`].
    pub padding: u16,
    /// The first bytes of the client; what does not fit is left for [`Sealer::seal`].
    pub payload: &'a [u8],
}

/// Encrypts what goes to the server.
pub struct Sealer {
    key: RestingKey,
    nonce: Nonce,
    chunk_max: usize,
}

impl Sealer {
    /// Writes `request` to `out`, which should be empty. How much of its payload went along.
    ///
    /// # Errors
    /// [`StreamError::Full`] when the address does not fit.
    pub fn begin(
        secret: &Secret,
        request: &Request<'_>,
        out: &mut Scratch,
    ) -> Result<(Self, usize), StreamError> {
        let mut sealer = Self {
            key: secret.stream_key(request.salt)?,
            nonce: Nonce::default(),
            chunk_max: chunk_max(secret),
        };
        out.push(request.salt)?;
        let payload = match secret.method.edition {
            Edition::Aead => sealer.first_chunk(request, out)?,
            Edition::Of2022 => {
                out.push(&secret.stream_identities(request.salt)?)?;
                sealer.headers(request, out)?
            }
        };
        Ok((sealer, payload))
    }

    /// Writes the beginning of the answer to the request with `request_salt`: `answer`'s salt, time and
    /// payload count. How much of its payload went along.
    ///
    /// # Errors
    /// [`StreamError::Full`] never, given a buffer for it.
    pub fn answer(
        secret: &Secret,
        request_salt: &[u8],
        answer: &Request<'_>,
        out: &mut Scratch,
    ) -> Result<(Self, usize), StreamError> {
        let mut sealer = Self {
            key: secret.stream_key(answer.salt)?,
            nonce: Nonce::default(),
            chunk_max: chunk_max(secret),
        };
        out.push(answer.salt)?;
        if secret.method.edition == Edition::Aead {
            let sealed = sealer.seal(answer.payload, out)?;
            return Ok((sealer, sealed));
        }
        let fixed = 1 + 8 + request_salt.len() + 2 + TAG;
        let room = out.spare().len().saturating_sub(fixed + TAG);
        let room = room.min(sealer.chunk_max);
        let first = answer.payload.get(..room).unwrap_or(answer.payload);
        let length = u16::try_from(first.len()).map_err(|_| StreamError::Full)?;
        let time = answer.unix_time.to_be_bytes();
        sealer.sealed(
            &[&[RESPONSE], &time, request_salt, &length.to_be_bytes()],
            out,
        )?;
        sealer.sealed(&[first], out)?;
        Ok((sealer, first.len()))
    }

    /// Appends chunks of `payload`, as far as there is room; how much of it went in.
    ///
    /// # Errors
    /// [`StreamError::Forged`] never, given chunks of bounded size.
    pub fn seal(&mut self, payload: &[u8], out: &mut Scratch) -> Result<usize, StreamError> {
        let mut sealed = 0;
        for chunk in payload.chunks(self.chunk_max) {
            let room = out.spare().len().saturating_sub(CHUNK_FRAME);
            let part = chunk.get(..room).unwrap_or(chunk);
            if part.is_empty() {
                break;
            }
            self.chunk(&[part], out)?;
            sealed += part.len();
            if part.len() < chunk.len() {
                break;
            }
        }
        Ok(sealed)
    }

    /// What a chunk is made of.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            head: 2 + TAG,
            data_max: self.chunk_max,
            tail_max: TAG,
        }
    }

    /// Appends a chunk of the first `data` bytes behind a head's room in the spare room of `out`.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn enframe(&mut self, data: usize, out: &mut Scratch) -> Result<(), StreamError> {
        let length = u16::try_from(data).map_err(|_| StreamError::Full)?;
        self.sealed(&[&length.to_be_bytes()], out)?;
        let start = out.len();
        out.filled(data);
        self.close(start, out)
    }

    /// Nothing is to be sent for now: gives memory back.
    pub fn rest(&mut self) {
        self.key.rest();
    }

    /// SIP004: address and first payload share a chunk.
    fn first_chunk(
        &mut self,
        request: &Request<'_>,
        out: &mut Scratch,
    ) -> Result<usize, StreamError> {
        let frame = CHUNK_FRAME + request.target.len();
        let room = out.spare().len().saturating_sub(frame);
        let room = room.min(self.chunk_max.saturating_sub(request.target.len()));
        let payload = request.payload.get(..room).unwrap_or(request.payload);
        self.chunk(&[request.target, payload], out)?;
        Ok(payload.len())
    }

    /// SIP022: a header of fixed length, then one of the length that it gives.
    fn headers(&mut self, request: &Request<'_>, out: &mut Scratch) -> Result<usize, StreamError> {
        let padding = if request.payload.is_empty() {
            request.padding.clamp(1, PADDING_MAX)
        } else {
            0
        };
        let fixed = 1 + 8 + 2 + TAG;
        let overhead = request.target.len() + 2 + usize::from(padding);
        let room = out.spare().len().saturating_sub(fixed + overhead + TAG);
        let room = room.min(self.chunk_max.saturating_sub(overhead));
        let payload = request.payload.get(..room).unwrap_or(request.payload);
        let length = overhead + payload.len();
        let length = u16::try_from(length).map_err(|_| StreamError::Full)?;
        let time = request.unix_time.to_be_bytes();
        self.sealed(&[&[REQUEST], &time, &length.to_be_bytes()], out)?;
        let zeros = [0; PADDING_MAX as usize];
        let zeros = zeros.get(..usize::from(padding)).unwrap_or_default();
        let parts = [request.target, &padding.to_be_bytes(), zeros, payload];
        self.sealed(&parts, out)?;
        Ok(payload.len())
    }

    fn chunk(&mut self, parts: &[&[u8]], out: &mut Scratch) -> Result<(), StreamError> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let length = u16::try_from(length).map_err(|_| StreamError::Full)?;
        self.sealed(&[&length.to_be_bytes()], out)?;
        self.sealed(parts, out)
    }

    /// Appends one AEAD message.
    fn sealed(&mut self, parts: &[&[u8]], out: &mut Scratch) -> Result<(), StreamError> {
        let start = out.len();
        for part in parts {
            out.push(part)?;
        }
        self.close(start, out)
    }

    /// Makes an AEAD message of what stands in `out` from `start` on.
    fn close(&mut self, start: usize, out: &mut Scratch) -> Result<(), StreamError> {
        let message = out.data_mut().get_mut(start..).unwrap_or_default();
        let tag = self.key.wake()?.seal(&self.nonce.advance(), message)?;
        out.push(&tag)?;
        Ok(())
    }
}

/// What [`Opener::step`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of the client's data stand at the start of the buffer, and [`TAG`] bytes
    /// to be skipped after them.
    Opened(usize),
    /// The buffer must hold so many bytes before there is more to say.
    NeedMore(usize),
}

/// Decrypts what comes from the server.
pub struct Opener {
    secret: Arc<Secret>,
    request_salt: [u8; KEY_MAX],
    key: Option<RestingKey>,
    nonce: Nonce,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Salt,
    Header,
    Length,
    Payload(usize),
}

impl Opener {
    /// For the answer to the request with `salt` (padded with zeros to the longest).
    #[must_use]
    pub fn new(secret: Arc<Secret>, salt: [u8; KEY_MAX]) -> Self {
        Self {
            secret,
            request_salt: salt,
            key: None,
            nonce: Nonce::default(),
            state: State::Salt,
        }
    }

    /// For the chunks of a stream whose beginning was read already: its key, and the nonce that is next.
    #[must_use]
    pub fn chunks(secret: Arc<Secret>, key: RestingKey, nonce: Nonce) -> Self {
        Self {
            secret,
            request_salt: [0; KEY_MAX],
            key: Some(key),
            nonce,
            state: State::Length,
        }
    }

    /// Whether the stream may end here, if no byte waits.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Salt | State::Length)
    }

    /// Whether the next step compares clocks.
    #[must_use]
    pub fn needs_time(&self) -> bool {
        matches!(self.state, State::Salt | State::Header)
    }

    /// Nothing comes for now: gives memory back.
    pub fn rest(&mut self) {
        if let Some(key) = &mut self.key {
            key.rest();
        }
    }

    /// Goes on with what `buffer` holds; `unix_time` in seconds, where [`Opener::needs_time`].
    ///
    /// # Errors
    /// [`StreamError`]; the stream is over then.
    pub fn step(&mut self, buffer: &mut Scratch, unix_time: u64) -> Result<Step, StreamError> {
        loop {
            let need = match self.state {
                State::Salt => self.secret.salt_length(),
                State::Header => 1 + 8 + self.secret.salt_length() + 2 + TAG,
                State::Length => 2 + TAG,
                State::Payload(length) => length + TAG,
            };
            let Some(message) = buffer.data_mut().get_mut(..need) else {
                return Ok(Step::NeedMore(need));
            };
            if self.state == State::Salt {
                self.key = Some(self.secret.stream_key(message)?);
                self.state = match self.secret.method.edition {
                    Edition::Aead => State::Length,
                    Edition::Of2022 => State::Header,
                };
                buffer.consume(need);
                continue;
            }
            let key = self.key.as_mut().ok_or(StreamError::Forged)?.wake()?;
            let plain = key.open(&self.nonce.advance(), message)?;
            let length = match self.state {
                State::Header => self.response_header(plain, unix_time)?,
                State::Length => usize::from(Reader::new(plain).u16()?),
                State::Salt | State::Payload(_) => {
                    self.state = State::Length;
                    return Ok(Step::Opened(need - TAG));
                }
            };
            if length > chunk_max(&self.secret) {
                return Err(StreamError::ChunkLength(length));
            }
            buffer.consume(need);
            self.state = State::Payload(length);
        }
    }

    /// The length of the first chunk.
    fn response_header(&self, header: &[u8], unix_time: u64) -> Result<usize, StreamError> {
        let mut reader = Reader::new(header);
        if reader.u8()? != RESPONSE {
            return Err(StreamError::NotResponse);
        }
        if reader.u64()?.abs_diff(unix_time) > CLOCK_SKEW_MAX {
            return Err(StreamError::Clock);
        }
        let echoed = reader.take(self.secret.salt_length())?;
        let sent = self.request_salt.get(..echoed.len()).unwrap_or_default();
        if !bool::from(echoed.ct_eq(sent)) {
            return Err(StreamError::OtherRequest);
        }
        Ok(usize::from(reader.u16()?))
    }
}

fn chunk_max(secret: &Secret) -> usize {
    match secret.method.edition {
        Edition::Aead => 0x3fff,
        Edition::Of2022 => 0xffff,
    }
}

#[cfg(test)]
mod tests {
    use crate::encoding::{BASE64, HEX};
    use proptest::prelude::*;

    use super::*;
    use crate::outbound::crypto::Cipher;
    use crate::outbound::shadowsocks::method::Method;

    const TIME: u64 = 1_700_000_000;

    fn counting(from: u8, length: usize) -> Vec<u8> {
        (from..).take(length).collect()
    }

    fn secret_of_2022(cipher: &str) -> Arc<Secret> {
        let length = Method::parse(cipher).unwrap().cipher.key_length();
        Arc::new(Secret::new(cipher, &BASE64.encode(&counting(0, length))).unwrap())
    }

    fn begin(secret: &Secret, salt: &[u8], target: &[u8], payload: &[u8]) -> (Sealer, Scratch) {
        let mut out = Scratch::large();
        let request = Request {
            salt,
            target,
            unix_time: TIME,
            padding: 4,
            payload,
        };
        let (sealer, sent) = Sealer::begin(secret, &request, &mut out).unwrap();
        assert_eq!(sent, payload.len());
        (sealer, out)
    }

    #[track_caller]
    fn check_request(secret: &Secret, salt: &[u8], want: &str) {
        let (_, out) = begin(secret, salt, &[1, 1, 2, 3, 4, 0, 80], b"");
        let after_salt = &out.data()[salt.len()..];
        assert_eq!(HEX.encode(after_salt), want);
    }

    #[test]
    fn a_chunk_made_in_place_is_the_one_that_is_sealed() {
        let secret = Secret::new("2022-blake3-aes-128-gcm", "AAECAwQFBgcICQoLDA0ODw==").unwrap();
        let begin = || {
            let mut out = Scratch::large();
            let request = Request {
                salt: &[3; 16],
                target: &[1, 1, 2, 3, 4, 0, 80],
                unix_time: 0,
                padding: 4,
                payload: b"",
            };
            let (sealer, _) = Sealer::begin(&secret, &request, &mut out).unwrap();
            (sealer, out)
        };
        let ((mut near, mut in_place), (mut far, mut sealed)) = (begin(), begin());
        far.seal(b"hello", &mut sealed).unwrap();
        let head = near.shape().head;
        in_place.spare()[head..head + 5].copy_from_slice(b"hello");
        near.enframe(5, &mut in_place).unwrap();
        assert_eq!(in_place.data(), sealed.data());
    }

    // The vectors below are of proxy-protocols.md 14, from a client that spoke to real servers.

    #[test]
    fn requests_of_the_aead_edition_match_the_vectors() {
        for (cipher, salt, want) in [
            (
                "aes-128-gcm",
                16,
                "c45b9f24bbb3fee528965380e86735a18c6a657d8f0d2970c5af3fd1fe26b70919daddaabfed053618",
            ),
            (
                "aes-256-gcm",
                32,
                "50bb55bd7b2b60b44414f5d3162efc47b66a7bda8712629c62ae81fef4e946035fdc7280beb16975de",
            ),
            (
                "chacha20-ietf-poly1305",
                32,
                "94a4a13678a8bea9a5a737d8f30eb7605ee40dfa08b337c3c52a64b03b215a5da59c79755dda4e9fd0",
            ),
        ] {
            let secret = Secret::new(cipher, "test").unwrap();
            check_request(&secret, &counting(0, salt), want);
        }
    }

    #[test]
    fn requests_of_the_2022_edition_match_the_vectors() {
        for (cipher, salt, want) in [
            (
                "2022-blake3-aes-128-gcm",
                16,
                "a342d2422f3788104ccf82edc7af768d02827517cf076f98eb6e392bd9d738ef4416787186dee2a76ae8f795502a1634c5a3f2a5a39e04ec",
            ),
            (
                "2022-blake3-aes-256-gcm",
                32,
                "4ee13038514af6dc2b591447bdcf21259b77dd75e8b22baf16b773664b587d82aa472e1bc9d36eb474ccf71045fad4b36fd0f53f55b3ce48",
            ),
            (
                "2022-blake3-chacha20-poly1305",
                32,
                "3b39f1281acc419b3de8c004a10cab3d9cf30988c48eb749181f631616981e214091b5a96f5d0a7706b219a73db8ff13b35ea293ed8ef98a",
            ),
        ] {
            check_request(&secret_of_2022(cipher), &counting(0x80, salt), want);
        }
    }

    #[test]
    fn identity_headers_match_the_vectors() {
        for (cipher, length, want) in [
            (
                "2022-blake3-aes-128-gcm",
                16,
                "acf952093ca5db6e11ce8310822221c6",
            ),
            (
                "2022-blake3-aes-256-gcm",
                32,
                "e4f76c68f173681af851ff113c828502",
            ),
        ] {
            let keys = [counting(0, length), counting(0x40, length)].map(|key| BASE64.encode(&key));
            let secret = Secret::new(cipher, &keys.join(":")).unwrap();
            let headers = secret.stream_identities(&counting(0x80, length)).unwrap();
            assert_eq!(HEX.encode(&headers), want);
        }
    }

    /// The answer of a server to a request with `salt`, at `time`, as the editions have it.
    fn answer(secret: &Secret, salt: &[u8], time: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
        let own_salt = counting(0x20, secret.salt_length());
        if secret.method.edition == Edition::Aead {
            return begin(secret, &own_salt, b"", payload).1.data().to_vec();
        }
        let mut sealer = Sealer {
            key: secret.stream_key(&own_salt).unwrap(),
            nonce: Nonce::default(),
            chunk_max: 0xffff,
        };
        let mut out = Scratch::large();
        out.push(&own_salt).unwrap();
        let (first, rest) = payload.split_at(payload.len().min(3));
        let length = u16::try_from(first.len()).unwrap().to_be_bytes();
        sealer
            .sealed(&[&[kind], &time.to_be_bytes(), salt, &length], &mut out)
            .unwrap();
        sealer.sealed(&[first], &mut out).unwrap();
        sealer.seal(rest, &mut out).unwrap();
        out.data().to_vec()
    }

    /// What a client reads that gets `bytes` in pieces of `step` bytes.
    fn read(
        secret: &Arc<Secret>,
        salt: &[u8],
        bytes: &[u8],
        step: usize,
    ) -> Result<Vec<u8>, StreamError> {
        let mut padded = [0; KEY_MAX];
        padded[..salt.len()].copy_from_slice(salt);
        let mut opener = Opener::new(Arc::clone(secret), padded);
        let (mut buffer, mut plain) = (Scratch::take(0), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.push(piece).unwrap();
            loop {
                match opener.step(&mut buffer, TIME)? {
                    Step::Opened(n) => {
                        plain.extend_from_slice(&buffer.data()[..n]);
                        buffer.consume(n + TAG);
                    }
                    Step::NeedMore(total) => break buffer.reserve(total.max(buffer.len() + step)),
                }
            }
        }
        assert!(opener.at_boundary() && buffer.is_empty());
        Ok(plain)
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        for (name, _) in crate::outbound::shadowsocks::method::METHODS {
            let secret = match name.strip_prefix("2022") {
                Some(_) => secret_of_2022(name),
                None => Arc::new(Secret::new(name, "test").unwrap()),
            };
            let salt = counting(0x80, secret.salt_length());
            let bytes = answer(&secret, &salt, TIME + 30, RESPONSE, b"hello world");
            for step in [1, 7, 4096] {
                assert_eq!(
                    read(&secret, &salt, &bytes, step).unwrap(),
                    b"hello world",
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn answers_to_others_or_from_other_times_are_refused() {
        let secret = secret_of_2022("2022-blake3-aes-128-gcm");
        assert_eq!(secret.method.cipher, Cipher::Aes128Gcm);
        let salt = counting(0x80, 16);
        let refused = |bytes: &[u8]| read(&secret, &salt, bytes, 4096).unwrap_err();
        let late = answer(&secret, &salt, TIME - 31, RESPONSE, b"x");
        assert_eq!(refused(&late), StreamError::Clock);
        let other = answer(&secret, &counting(0x81, 16), TIME, RESPONSE, b"x");
        assert_eq!(refused(&other), StreamError::OtherRequest);
        let request = answer(&secret, &salt, TIME, REQUEST, b"x");
        assert_eq!(refused(&request), StreamError::NotResponse);
    }

    #[test]
    fn long_chunks_are_refused_by_the_aead_edition() {
        let secret = Arc::new(Secret::new("aes-128-gcm", "test").unwrap());
        let salt = counting(0, 16);
        let mut out = Scratch::large();
        out.push(&salt).unwrap();
        let mut sealer = Sealer {
            key: secret.stream_key(&salt).unwrap(),
            nonce: Nonce::default(),
            chunk_max: 0x3fff,
        };
        sealer.sealed(&[&[0x40, 0]], &mut out).unwrap();
        let error = read(&secret, &salt, out.data(), 4096).unwrap_err();
        assert_eq!(error, StreamError::ChunkLength(0x4000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_bytes_are_refused_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 100..2000),
            edition in any::<bool>(),
        ) {
            let secret = if edition {
                secret_of_2022("2022-blake3-aes-256-gcm")
            } else {
                Arc::new(Secret::new("chacha20-ietf-poly1305", "test").unwrap())
            };
            prop_assert!(read(&secret, &[0; 32], &bytes, 512).is_err());
        }

        #[test]
        fn what_is_sealed_is_opened(
            first in 0usize..70_000, second in 0usize..140_000, step in 1usize..30_000
        ) {
            let secret = Arc::new(Secret::new("aes-128-gcm", "test").unwrap());
            let text: Vec<u8> = (0..251).cycle().take(first + second).collect();
            let salt = counting(0, 16);
            let mut out = Scratch::large();
            let request = Request { salt: &salt, target: b"", unix_time: TIME, padding: 1, payload: &text[..first] };
            let (mut sealer, mut sent) = Sealer::begin(&secret, &request, &mut out).unwrap();
            let mut bytes = Vec::new();
            loop {
                sent += sealer.seal(&text[sent..], &mut out).unwrap();
                bytes.extend_from_slice(out.data());
                out.consume(out.len());
                if sent == text.len() { break; }
            }
            prop_assert!(read(&secret, &salt, &bytes, step).unwrap() == text);
        }
    }
}
