//! gRPC's messages within a body: a flag, a length, the message (gRPC over HTTP/2, "Requests").
//!
//! Pure: bytes as they come in, whole messages out. No more is held than one message and what
//! arrived together with it.

use super::status::{Code, Status};

/// The longest message that is taken (users.md S11).
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Flag and length.
const PREFIX_BYTES: usize = 5;

/// A body that is being read.
#[derive(Default)]
pub struct Unframed(Vec<u8>);

impl Unframed {
    /// Takes the next bytes of the body. The caller asks [`Unframed::take`] until it has nothing
    /// before it pushes again, so this holds one message and one push at most.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole message; `None`: more bytes are needed.
    ///
    /// # Errors
    /// Longer than [`MESSAGE_BYTES_MAX`], or compressed.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let Some((&[flag, length @ ..], rest)) = self.0.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(Status::new(
                Code::Unimplemented,
                "grpc: compressed messages are not supported",
            ));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!(
                    "grpc: received message larger than max ({length} vs. {MESSAGE_BYTES_MAX})"
                ),
            ));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let after = self.0.split_off(PREFIX_BYTES + length);
        let mut message = std::mem::replace(&mut self.0, after);
        message.drain(..PREFIX_BYTES);
        Ok(Some(message))
    }

    /// Whether the body could end here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A message with its prefix.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + message.len());
    bytes.push(0);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let body = [framed(b"one"), framed(b""), framed(b"three")].concat();
        for size in 1..=body.len() {
            let (mut unframed, mut got) = (Unframed::default(), Vec::new());
            for piece in body.chunks(size) {
                unframed.push(piece);
                while let Some(message) = unframed.take().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, [&b"one"[..], b"", b"three"]);
            assert!(unframed.is_empty());
        }
    }

    #[test]
    fn long_and_compressed_messages_are_refused_by_their_prefix() {
        let mut unframed = Unframed::default();
        unframed.push(&[0, 0, 0x10, 0, 1]);
        assert_eq!(unframed.take().unwrap_err().code, Code::ResourceExhausted);
        let mut unframed = Unframed::default();
        unframed.push(&[1, 0, 0, 0, 1]);
        assert_eq!(unframed.take().unwrap_err().code, Code::Unimplemented);
    }
}
