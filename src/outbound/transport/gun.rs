//! gRPC's messages around a byte stream, as v2ray and its kin send them ("gun", proxy-protocols.md 8.3).
//!
//! Pure. A message is `00`, its length in four bytes, and protobuf's field 1 with the bytes, once (`Tun`)
//! or several times (`TunMulti`, which is read too). What is read holds no bytes but those given.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes};

/// What stands before the bytes of a message at most, for messages of up to [`PAYLOAD_MAX`].
pub const HEAD_MAX: usize = 5 + 1 + 2;

/// Bytes of a message that we send: with its head it fills a frame of HTTP/2 as peers take it.
pub const PAYLOAD_MAX: usize = 16 * 1024 - HEAD_MAX;

/// Field 1, length-delimited.
const KEY: u8 = 0x0a;

/// The bytes are no messages of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gRPC message is none of a byte stream")
    }
}

impl std::error::Error for Malformed {}

/// One message with the start of `payload`; how much of that, at most `most` and [`PAYLOAD_MAX`].
#[must_use]
pub fn message(payload: &[u8], most: usize) -> (Bytes, usize) {
    let taken = payload.len().min(most).min(PAYLOAD_MAX);
    let mut length = [0; 2];
    let mut digits = 0;
    let mut left = taken;
    for digit in &mut length {
        let more = if left > 0x7f { 0x80 } else { 0 };
        *digit = u8::try_from(left & 0x7f).unwrap_or_default() | more;
        left >>= 7;
        digits += 1;
        if left == 0 {
            break;
        }
    }
    let body = 1 + digits + taken;
    let mut out = Vec::with_capacity(5 + body);
    out.put_u8(0);
    out.put_u32(u32::try_from(body).unwrap_or_default());
    out.put_u8(KEY);
    out.extend_from_slice(length.get(..digits).unwrap_or_default());
    out.extend_from_slice(payload.get(..taken).unwrap_or_default());
    (out.into(), taken)
}

/// Where in the messages the next byte stands.
#[derive(Clone, Copy)]
enum At {
    /// So many bytes of flag and length came.
    Head(u8),
    Key,
    /// So many bits of the field's length came.
    Length(u32),
    Payload,
}

/// Messages that are being read.
pub struct Messages {
    at: At,
    /// Bytes of the message that are still to come.
    message: u32,
    /// Bytes of the field that are still to come.
    field: u32,
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            at: At::Head(0),
            message: 0,
            field: 0,
        }
    }
}

impl Messages {
    /// The next payload in `bytes`, which is consumed with what stands before it; empty: `bytes` is done with.
    ///
    /// # Errors
    /// [`Malformed`]: the stream is over.
    pub fn take(&mut self, bytes: &mut Bytes) -> Result<Bytes, Malformed> {
        while !bytes.is_empty() {
            if let At::Payload = self.at {
                let most = usize::try_from(self.field).unwrap_or(usize::MAX);
                let payload = bytes.split_to(bytes.len().min(most));
                let taken = u32::try_from(payload.len()).map_err(|_| Malformed)?;
                self.field -= taken;
                self.message -= taken;
                if self.field == 0 {
                    self.between();
                }
                return Ok(payload);
            }
            self.step(bytes.get_u8())?;
        }
        Ok(Bytes::new())
    }

    /// Whether the stream may end here.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(self.at, At::Head(0))
    }

    fn between(&mut self) {
        self.at = match self.message {
            0 => At::Head(0),
            _ => At::Key,
        };
    }

    /// One byte that is no payload.
    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        match self.at {
            // Compressed messages were not asked for.
            At::Head(0) if byte != 0 => return Err(Malformed),
            At::Head(0) => self.at = At::Head(1),
            At::Head(read) => {
                self.message = self.message << 8 | u32::from(byte);
                match read {
                    4 => self.between(),
                    _ => self.at = At::Head(read + 1),
                }
            }
            At::Key => {
                self.message -= 1;
                if byte != KEY || self.message == 0 {
                    return Err(Malformed);
                }
                self.field = 0;
                self.at = At::Length(0);
            }
            At::Length(bits) => {
                let digit = u32::from(byte & 0x7f);
                // Five digits at most, and none that does not fit.
                if bits > 28 || (bits == 28 && digit > 0x0f) {
                    return Err(Malformed);
                }
                self.message = self.message.checked_sub(1).ok_or(Malformed)?;
                self.field |= digit << bits;
                match byte & 0x80 {
                    0 if self.field > self.message => return Err(Malformed),
                    0 if self.field == 0 => self.between(),
                    0 => self.at = At::Payload,
                    _ => self.at = At::Length(bits + 7),
                }
            }
            At::Payload => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `bytes` in pieces of `step`.
    fn read(bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool), Malformed> {
        let mut messages = Messages::default();
        let mut read = Vec::new();
        for piece in bytes.chunks(step) {
            let mut piece = Bytes::copy_from_slice(piece);
            loop {
                let payload = messages.take(&mut piece)?;
                if payload.is_empty() {
                    break;
                }
                read.extend_from_slice(&payload);
            }
        }
        Ok((read, messages.may_end()))
    }

    #[test]
    fn a_message_has_flag_length_and_one_field() {
        let (bytes, taken) = message(b"hello", 100);
        assert_eq!((&bytes[..], taken), (&b"\0\0\0\0\x07\x0a\x05hello"[..], 5));
        let (bytes, taken) = message(&[7; 300], 200);
        assert_eq!(
            (&bytes[..8], taken),
            (&b"\0\0\0\0\xcb\x0a\xc8\x01"[..], 200)
        );
        let (bytes, taken) = message(&[7; 50_000], usize::MAX);
        assert_eq!((bytes.len(), taken), (16 * 1024, PAYLOAD_MAX));
    }

    #[test]
    fn several_fields_and_empty_ones_are_one_stream() {
        let multi =
            b"\0\0\0\0\x08\x0a\x02hi\x0a\x02yo\0\0\0\0\0\0\0\0\0\x02\x0a\0\0\0\0\0\x03\x0a\x01!";
        assert_eq!(read(multi, 3), Ok((b"hiyo!".to_vec(), true)));
        assert_eq!(read(&multi[..9], 4), Ok((b"hi".to_vec(), false)));
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        for bytes in [
            &b"\x01\0\0\0\x03\x0a\x01x"[..],               // compressed
            b"\0\0\0\0\x03\x12\x01x",                      // another field
            b"\0\0\0\0\x01\x0a",                           // a key alone
            b"\0\0\0\0\x03\x0a\x02xx",                     // a field longer than its message
            b"\0\xff\xff\xff\xff\x0a\xff\xff\xff\xff\x1f", // a length beyond 32 bits
        ] {
            assert_eq!(read(bytes, 100), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_pass_in_pieces_of_any_size(text in proptest::collection::vec(any::<u8>(), 0..2000), most in 1usize..900, step in 1usize..700) {
            let mut sent = Vec::new();
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (bytes, taken) = message(rest, most);
                sent.extend_from_slice(&bytes);
                rest = &rest[taken..];
            }
            prop_assert_eq!(read(&sent, step), Ok((text, true)));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = [&b"\0\0\0\0"[..], &bytes].concat();
            let _ended = read(&bytes, 7);
            bytes.rotate_left(3);
            let _ended = read(&bytes, 5);
        }
    }
}
