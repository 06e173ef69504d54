//! VMess's request and answer headers, to and from bytes (proxy-protocols.md 4.2, 4.4).
//!
//! Pure: time, keys and nonces are arguments. A request is an AuthID, a sealed length, a nonce and a
//! sealed header; an answer is a sealed length and a sealed header.

use std::fmt;
use std::io;

use subtle::ConstantTimeEq;

use super::body::{Agreement, Content, Security};
use super::keys::{UserKey, answer_key, first_12, first_16, fnv1a, kdf};
use crate::metadata::Endpoint;
use crate::outbound::crypto::{Cipher, Forged, Key, NONCE, TAG};
use crate::outbound::scratch::{Full, Scratch};
use crate::outbound::socks_address::AddressError;
use crate::outbound::v2ray_address;
use crate::wire::{Reader, Truncated};

/// AuthID, sealed length, nonce: what is read of a request before its header.
pub const PREFIX: usize = 16 + 2 + TAG + 8;

/// The longest header: fixed part, address, padding, sum, tag.
pub const HEADER_MAX: usize = 38 + v2ray_address::ENCODED_MAX + 15 + 4 + TAG;

/// A sealed length alone.
const LENGTH: usize = 2 + TAG;

const VERSION: u8 = 1;

const LENGTH_LABELS: (&[u8], &[u8]) = (
    b"VMess Header AEAD Key_Length",
    b"VMess Header AEAD Nonce_Length",
);
const HEADER_LABELS: (&[u8], &[u8]) = (b"VMess Header AEAD Key", b"VMess Header AEAD Nonce");
const ANSWER_LENGTH_LABELS: (&[u8], &[u8]) =
    (b"AEAD Resp Header Len Key", b"AEAD Resp Header Len IV");
const ANSWER_LABELS: (&[u8], &[u8]) = (b"AEAD Resp Header Key", b"AEAD Resp Header IV");

/// Why bytes are no header. Ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Somebody else's bytes, or tampered ones.
    Forged,
    /// The fields do not fit, or their sum is wrong.
    Malformed,
    /// Encryption of the days before AEAD, or none that is known.
    Security(u8),
    /// No such command.
    Command(u8),
    /// The address is none.
    Address(AddressError),
    /// The answer belongs to another request.
    OtherRequest,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forged => f.write_str("header does not authenticate"),
            Self::Malformed => f.write_str("header is malformed"),
            Self::Security(number) => write!(f, "security {number} is not supported"),
            Self::Command(number) => write!(f, "unknown command {number}"),
            Self::Address(error) => error.fmt(f),
            Self::OtherRequest => f.write_str("answer belongs to another request"),
        }
    }
}

impl std::error::Error for HeaderError {}

impl From<HeaderError> for io::Error {
    fn from(error: HeaderError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl From<Forged> for HeaderError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}

impl From<Truncated> for HeaderError {
    fn from(_: Truncated) -> Self {
        Self::Malformed
    }
}

impl From<Full> for HeaderError {
    fn from(_: Full) -> Self {
        Self::Malformed
    }
}

impl From<AddressError> for HeaderError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A stream to an endpoint.
    Stream(Endpoint),
    /// Datagrams to an endpoint.
    Packets(Endpoint),
    /// Streams and datagrams of mux.cool.
    Mux,
}

impl Command {
    /// What the body's chunks are.
    #[must_use]
    pub fn content(&self) -> Content {
        match self {
            Self::Packets(_) => Content::Packets,
            Self::Stream(_) | Self::Mux => Content::Stream,
        }
    }
}

/// A request's header.
pub struct Request {
    /// How the body is framed.
    pub agreement: Agreement,
    /// What the answer repeats.
    pub echo: u8,
    /// What is asked for.
    pub command: Command,
}

/// What makes a request unlike any other; all random but the time.
pub struct Numbers {
    /// Seconds since 1970.
    pub unix_time: u64,
    /// Of the AuthID.
    pub random: [u8; 4],
    /// Of the header.
    pub nonce: [u8; 8],
    /// Padding; as many of its bytes as the last one says, modulo 16.
    pub padding: [u8; 16],
}

impl Request {
    /// Appends the sealed request of `user` to `out`.
    ///
    /// # Errors
    /// The address has no encoding.
    pub fn seal(
        &self,
        user: &UserKey,
        numbers: &Numbers,
        out: &mut Scratch,
    ) -> Result<(), HeaderError> {
        let auth_id = user.auth_id(numbers.unix_time, numbers.random);
        let mut header = Scratch::take(HEADER_MAX);
        self.encode(&numbers.padding, &mut header)?;
        let length = u16::try_from(header.len()).map_err(|_| HeaderError::Malformed)?;
        out.push(&auth_id)?;
        let mut length = length.to_be_bytes();
        let (key, nonce) = user.sealing(LENGTH_LABELS, &auth_id, &numbers.nonce)?;
        let tag = key.seal_with(&nonce, &auth_id, &mut length)?;
        out.push(&length)?;
        out.push(&tag)?;
        out.push(&numbers.nonce)?;
        let (key, nonce) = user.sealing(HEADER_LABELS, &auth_id, &numbers.nonce)?;
        let tag = key.seal_with(&nonce, &auth_id, header.data_mut())?;
        out.push(header.data())?;
        Ok(out.push(&tag)?)
    }

    fn encode(&self, padding: &[u8; 16], out: &mut Scratch) -> Result<(), HeaderError> {
        let agreement = &self.agreement;
        let [noise @ .., length] = padding;
        let noise = noise.get(..usize::from(length % 16)).unwrap_or_default();
        let (command, to) = match &self.command {
            Command::Stream(to) => (1, Some(to)),
            Command::Packets(to) => (2, Some(to)),
            Command::Mux => (3, None),
        };
        out.push(&[VERSION])?;
        out.push(&agreement.iv)?;
        out.push(&agreement.key)?;
        let security = (length % 16) << 4 | agreement.security.number();
        out.push(&[self.echo, agreement.options, security, 0, command])?;
        if let Some(to) = to {
            v2ray_address::encode(to, out)?;
        }
        out.push(noise)?;
        let sum = fnv1a(out.data());
        Ok(out.push(&sum.to_be_bytes())?)
    }

    /// Reads a header that was opened.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn decode(header: &[u8]) -> Result<Self, HeaderError> {
        let (fields, sum) = header.split_last_chunk().ok_or(HeaderError::Malformed)?;
        if fnv1a(fields) != u32::from_be_bytes(*sum) {
            return Err(HeaderError::Malformed);
        }
        let mut reader = Reader::new(fields);
        // Nobody checks the version.
        reader.u8()?;
        let (iv, key) = (reader.array()?, reader.array()?);
        let [echo, options, security, _, command] = reader.array()?;
        let command = match command {
            1 => Command::Stream(v2ray_address::decode(&mut reader)?),
            2 => Command::Packets(v2ray_address::decode(&mut reader)?),
            3 => Command::Mux,
            other => return Err(HeaderError::Command(other)),
        };
        reader.take(usize::from(security >> 4))?;
        let number = security & 0x0f;
        let security = Security::from_number(number).ok_or(HeaderError::Security(number))?;
        Ok(Self {
            agreement: Agreement {
                key,
                iv,
                options,
                security,
                content: command.content(),
            },
            echo,
            command,
        })
    }
}

/// The length of the header that follows a request's [`PREFIX`], its tag included.
///
/// # Errors
/// [`HeaderError::Forged`].
pub fn request_length(user: &UserKey, prefix: &[u8; PREFIX]) -> Result<usize, HeaderError> {
    let mut reader = Reader::new(prefix);
    let auth_id = reader.array()?;
    let mut length: [u8; LENGTH] = reader.array()?;
    let nonce = reader.array()?;
    let (key, iv) = user.sealing(LENGTH_LABELS, &auth_id, &nonce)?;
    let length = key.open_with(&iv, &auth_id, &mut length)?;
    Ok(usize::from(Reader::new(length).u16()?) + TAG)
}

/// Opens the header that follows `prefix`, in place.
///
/// # Errors
/// [`HeaderError`].
pub fn open_request(
    user: &UserKey,
    prefix: &[u8; PREFIX],
    sealed: &mut [u8],
) -> Result<Request, HeaderError> {
    let mut reader = Reader::new(prefix);
    let auth_id = reader.array()?;
    reader.take(LENGTH)?;
    let nonce = reader.array()?;
    let (key, iv) = user.sealing(HEADER_LABELS, &auth_id, &nonce)?;
    Request::decode(key.open_with(&iv, &auth_id, sealed)?)
}

fn answer_sealing(
    agreement: &Agreement,
    labels: (&[u8], &[u8]),
) -> Result<(Key, [u8; NONCE]), HeaderError> {
    let key = kdf(&answer_key(&agreement.key), &[labels.0]);
    let iv = kdf(&answer_key(&agreement.iv), &[labels.1]);
    Ok((Key::new(Cipher::Aes128Gcm, &first_16(&key))?, first_12(&iv)))
}

/// Appends the header that answers a request with `echo`.
///
/// # Errors
/// It does not fit.
pub fn seal_answer(agreement: &Agreement, echo: u8, out: &mut Scratch) -> Result<(), HeaderError> {
    let mut header = [echo, 0, 0, 0];
    let length = u16::try_from(header.len()).unwrap_or(0);
    let mut length = length.to_be_bytes();
    let (key, nonce) = answer_sealing(agreement, ANSWER_LENGTH_LABELS)?;
    let tag = key.seal(&nonce, &mut length)?;
    out.push(&length)?;
    out.push(&tag)?;
    let (key, nonce) = answer_sealing(agreement, ANSWER_LABELS)?;
    let tag = key.seal(&nonce, &mut header)?;
    out.push(&header)?;
    Ok(out.push(&tag)?)
}

/// Reads the answer to a request with `echo` at the start of `incoming` and consumes it; how many bytes
/// are needed, if not.
///
/// # Errors
/// [`HeaderError`].
pub fn open_answer(
    agreement: &Agreement,
    echo: u8,
    incoming: &mut Scratch,
) -> Result<Option<usize>, HeaderError> {
    // Opened on a copy: the length may be read several times before its header is there.
    let Some(mut length) = incoming.data().first_chunk::<LENGTH>().copied() else {
        return Ok(Some(LENGTH));
    };
    let (key, nonce) = answer_sealing(agreement, ANSWER_LENGTH_LABELS)?;
    let length = key.open(&nonce, &mut length)?;
    let end = LENGTH + usize::from(Reader::new(length).u16()?) + TAG;
    let Some(sealed) = incoming.data_mut().get_mut(LENGTH..end) else {
        return Ok(Some(end));
    };
    let (key, nonce) = answer_sealing(agreement, ANSWER_LABELS)?;
    let header = key.open(&nonce, sealed)?;
    // What may follow are commands that nobody sends any more.
    if !bool::from(header.first().unwrap_or(&!echo).ct_eq(&echo)) {
        return Err(HeaderError::OtherRequest);
    }
    incoming.consume(end);
    Ok(None)
}

#[cfg(test)]
mod tests {
    use crate::encoding::HEX;
    use proptest::prelude::*;

    use super::super::keys::parse_id;
    use super::*;

    fn user() -> UserKey {
        UserKey::new(parse_id("66ad4540-b58c-4ad2-9926-ea63445a9b57").unwrap()).unwrap()
    }

    fn request(command: Command) -> Request {
        let counting = |from: u8| std::array::from_fn(|i| from + u8::try_from(i).unwrap());
        Request {
            agreement: Agreement {
                key: counting(0x30),
                iv: counting(0x20),
                options: 0x0d,
                security: Security::Aes128Gcm,
                content: command.content(),
            },
            echo: 0x42,
            command,
        }
    }

    fn numbers(padding: u8) -> Numbers {
        Numbers {
            unix_time: 1_700_000_000,
            random: [1, 2, 3, 4],
            nonce: [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
            padding: [padding; 16],
        }
    }

    /// Computed by a client that spoke to v2ray (proxy-protocols.md 14).
    #[test]
    fn a_sealed_request_matches_the_vector() {
        let to = Endpoint::parse("example.com:443").unwrap();
        let mut out = Scratch::take(0);
        let request = request(Command::Stream(to));
        request.seal(&user(), &numbers(0), &mut out).unwrap();
        assert_eq!(
            HEX.encode(out.data()),
            "6ef707dd9ca5acd4fa86d785029a4f34d672c2a536854b34e3fa0b07f5251a567ffd11121314151617181436c1717c7021ddb233b07965203e20b02661e2ee3e6e2243d4fabcd8c557f832d08c80ba63aa438d6188d79e75222c26faba0a0dc85a77ff35ac3c67f8589debc0c009d77c2f89d1"
        );
    }

    #[test]
    fn an_answer_matches_the_vector_and_is_read_however_it_is_cut() {
        let request = request(Command::Mux);
        let mut out = Scratch::take(0);
        seal_answer(&request.agreement, 0x42, &mut out).unwrap();
        assert_eq!(
            HEX.encode(out.data()),
            "6797df2b7410a67de894084db988ae97c4775280a149b5eb6393f74e23746dff62f91ae093ae"
        );
        let bytes = out.data().to_vec();
        let mut incoming = Scratch::take(0);
        for (number, byte) in bytes.iter().enumerate() {
            let need = open_answer(&request.agreement, 0x42, &mut incoming).unwrap();
            assert!(need.unwrap() > number);
            incoming.push(&[*byte]).unwrap();
        }
        let mut other = Scratch::take(0);
        other.push(&bytes).unwrap();
        assert_eq!(
            open_answer(&request.agreement, 0x42, &mut incoming),
            Ok(None)
        );
        assert!(incoming.is_empty());
        let refused = open_answer(&request.agreement, 0x43, &mut other);
        assert_eq!(refused, Err(HeaderError::OtherRequest));
    }

    #[test]
    fn a_request_is_opened_by_its_user_alone() {
        let to = Endpoint::parse("[2001:db8::1]:53").unwrap();
        for padding in [0, 7, 15] {
            for command in [
                Command::Stream(to.clone()),
                Command::Packets(to.clone()),
                Command::Mux,
            ] {
                let mut out = Scratch::take(0);
                request(command.clone())
                    .seal(&user(), &numbers(padding), &mut out)
                    .unwrap();
                let prefix = *out.data().first_chunk().unwrap();
                let length = request_length(&user(), &prefix).unwrap();
                let mut sealed = out.data()[PREFIX..].to_vec();
                assert_eq!(length, sealed.len());
                let opened = open_request(&user(), &prefix, &mut sealed).unwrap();
                assert_eq!((opened.command, opened.echo), (command, 0x42));
                let other = UserKey::new([1; 16]).unwrap();
                assert_eq!(request_length(&other, &prefix), Err(HeaderError::Forged));
            }
        }
    }

    proptest! {
        #[test]
        fn random_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut summed = bytes.clone();
            summed.extend(fnv1a(&bytes).to_be_bytes());
            let _request = Request::decode(&summed);
        }
    }
}
