//! Bounded reading of network bytes: every codec takes its fields through [`Reader`].
//!
//! All integers are in network byte order. Nothing here allocates or panics.

/// The bytes ended before the field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// A cursor over received bytes that refuses to run past their end.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`Truncated`] when fewer are left; the position stays.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let end = self.position.checked_add(n).ok_or(Truncated)?;
        let taken = self.bytes.get(self.position..end).ok_or(Truncated)?;
        self.position = end;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Truncated`] when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        self.take(N)?.try_into().map_err(|_| Truncated)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Truncated`] at the end.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// A 16-bit integer.
    ///
    /// # Errors
    /// [`Truncated`] when fewer than two bytes are left.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A 24-bit integer, as TLS counts handshake bytes.
    ///
    /// # Errors
    /// [`Truncated`] when fewer than three bytes are left.
    pub fn u24(&mut self) -> Result<u32, Truncated> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    /// [`Truncated`] when fewer than four bytes are left.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    ///
    /// # Errors
    /// [`Truncated`] when fewer than eight bytes are left.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// How many bytes have been taken.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// What is left, without taking it.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// Whether every byte was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_past_the_end_is_refused_and_keeps_the_position() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u16(), Err(Truncated));
        assert_eq!(reader.take(usize::MAX), Err(Truncated));
        assert_eq!(reader.rest(), [3]);
        assert_eq!(reader.u8(), Ok(3));
        assert!(reader.is_empty());
    }

    #[test]
    fn integers_are_big_endian() {
        let mut reader = Reader::new(&[0, 1, 2, 0, 0, 0, 9]);
        assert_eq!(reader.u24(), Ok(258));
        assert_eq!(reader.u32(), Ok(9));
    }
}
