//! Byte buffers that a thread lends to whichever flow is moving bytes just now.
//!
//! An encrypting stream needs tens of kilobytes while it works and none while it is idle. Each
//! thread keeps a few buffers; a flow takes one when bytes arrive and gives it back when they
//! are through, so idle flows hold nothing and busy ones do not pay for fresh pages.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Two Shadowsocks chunks of 16 KiB with their frames and a request header.
const SMALL_BYTES: usize = 34 * 1024;

/// The longest datagram, a 2022 chunk of 64 KiB, or four of 16 KiB, with frames and header.
const LARGE_BYTES: usize = 68 * 1024;

/// How many buffers of each size a thread keeps; more are freed (policy: drop newest).
const KEPT_MAX: usize = 2;

thread_local! {
    static KEPT: RefCell<[Vec<Box<[u8]>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// The bytes do not fit into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("message exceeds the buffer")
    }
}

impl std::error::Error for Full {}

/// A borrowed buffer: filled at its end, consumed from its start. Goes back when dropped.
///
/// Bytes outside [`Scratch::data`] are leftovers of other flows; nothing may show them.
pub struct Scratch {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Scratch {
    /// A buffer for at least `bytes` bytes, as far as there is one that large.
    #[must_use]
    pub fn take(bytes: usize) -> Self {
        let large = bytes > SMALL_BYTES;
        let kept = KEPT.with_borrow_mut(|[small, big]| if large { big } else { small }.pop());
        let length = if large { LARGE_BYTES } else { SMALL_BYTES };
        Self {
            bytes: kept.unwrap_or_else(|| vec![0; length].into()),
            start: 0,
            end: 0,
        }
    }

    /// Bytes of the largest buffer.
    pub const LARGEST: usize = LARGE_BYTES;

    /// The largest there is: it holds any datagram.
    #[must_use]
    pub fn large() -> Self {
        Self::take(LARGE_BYTES)
    }

    /// The bytes that were filled and not consumed.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// As [`Scratch::data`], to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Writes all of it to `to`; whoever owns it gives it back then.
    ///
    /// # Errors
    /// What `to` says, and that it takes nothing.
    pub fn poll_write_to(
        &mut self,
        to: &mut (dyn AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, self.data()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(n);
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes are filled and not consumed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left to consume.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where to put further bytes; call [`Scratch::filled`] afterwards.
    pub fn spare(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// `n` bytes of the spare room now hold data.
    pub fn filled(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.bytes.len());
    }

    /// The first `n` bytes are done with.
    pub fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Full`]; nothing is appended then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let room = self.spare().get_mut(..bytes.len()).ok_or(Full)?;
        room.copy_from_slice(bytes);
        self.filled(bytes.len());
        Ok(())
    }

    /// Makes room so that `total` bytes of data can stand here at once, in a larger buffer if
    /// need be, and so that the next read is not a small one. `total` beyond the largest size is the caller's mistake and changes nothing more.
    pub fn reserve(&mut self, total: usize) {
        let length = self.bytes.len();
        if self.start + total <= length && length - self.end >= length / 2 {
            return;
        }
        if total <= length {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            return;
        }
        let mut larger = Self::take(total);
        if larger.push(self.data()).is_ok() {
            *self = larger;
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let index = usize::from(bytes.len() > SMALL_BYTES);
        // At a thread's end there is no shelf any more: the buffer is freed.
        let _gone = KEPT.try_with(|kept| {
            if let Some(shelf) = kept.borrow_mut().get_mut(index)
                && shelf.len() < KEPT_MAX
            {
                shelf.push(bytes);
            }
        });
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut scratch = Scratch::take(1);
        scratch.push(b"hello").unwrap();
        scratch.consume(2);
        assert_eq!(scratch.data(), b"llo");
        scratch.consume(9);
        assert!(scratch.is_empty());
        assert_eq!(scratch.spare().len(), SMALL_BYTES);
        assert_eq!(scratch.push(&[0; SMALL_BYTES + 1]), Err(Full));
    }

    #[test]
    fn reserving_moves_data_to_the_front_or_to_a_larger_buffer() {
        let mut scratch = Scratch::take(1);
        scratch.push(&[1; SMALL_BYTES]).unwrap();
        scratch.consume(SMALL_BYTES - 3);
        scratch.reserve(100);
        assert_eq!((scratch.data(), scratch.start), (&[1u8; 3][..], 0));
        scratch.reserve(SMALL_BYTES + 1);
        assert_eq!(scratch.data(), [1; 3]);
        assert_eq!(scratch.bytes.len(), LARGE_BYTES);
    }

    #[test]
    fn a_thread_keeps_no_more_than_its_limit() {
        drop((0..10).map(|_| Scratch::take(1)).collect::<Vec<_>>());
        KEPT.with_borrow(|[small, _]| assert_eq!(small.len(), KEPT_MAX));
    }
}
