//! The chunked transfer coding of request bodies (RFC 9112 section 7.1), decoded strictly.
//!
//! Pure: bytes in, body bytes out. Whatever two readers could take differently (bare line
//! feeds, signs, spaces, sizes beyond 32 bits) is refused, so that nothing can be smuggled past
//! a proxy in front. Extensions and trailers are skipped, within a limit.

/// Bytes of one size line or of the trailers; more is refused.
const LINE_BYTES_MAX: usize = 1024;

/// The body is not chunked as the standard says. The connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a chunk size; how many digits were read.
    Size(u8),
    /// In a chunk extension.
    Extension,
    /// After the CR of a size line.
    SizeEnd,
    /// In chunk data.
    Data,
    /// After chunk data: CR, then LF.
    DataCr,
    DataLf,
    /// At the start of a trailer line or of the last line.
    TrailerStart,
    /// Inside a trailer line.
    Trailer,
    /// After the CR of a trailer line.
    TrailerLf,
    /// After the CR of the last line.
    LastLf,
    /// The body is complete.
    Done,
}

/// Decodes one body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    /// What is left of the chunk, or the size read so far.
    left: usize,
    /// Bytes of the present line or of all trailers.
    line: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::Size(0),
            left: 0,
            line: 0,
        }
    }
}

impl Chunked {
    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes from the front of `input`, appends what they decode to to `body`, and returns how
    /// many were taken: all of them, unless the body ended before.
    ///
    /// # Errors
    /// [`BadChunk`]; the decoder is of no use afterwards.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, BadChunk> {
        let mut rest = input;
        while let (false, [byte, after @ ..]) = (self.is_done(), rest) {
            if self.state == State::Data {
                let (data, after) = rest.split_at(self.left.min(rest.len()));
                body.extend_from_slice(data);
                self.left -= data.len();
                rest = after;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(*byte)?;
            rest = after;
        }
        Ok(input.len() - rest.len())
    }

    /// The state after a byte outside chunk data.
    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.line += 1;
        if self.line > LINE_BYTES_MAX {
            return Err(BadChunk);
        }
        Ok(match (self.state, byte) {
            // Seven digits keep the size within 28 bits on every machine.
            (State::Size(digits @ 0..7), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let value = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                self.left = self.left << 4 | usize::try_from(value).map_err(|_| BadChunk)?;
                State::Size(digits + 1)
            }
            (State::Size(1..), b'\r') | (State::Extension, b'\r') => State::SizeEnd,
            (State::Size(1..), b';') => State::Extension,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => State::Extension,
            (State::SizeEnd, b'\n') => {
                self.line = 0;
                if self.left == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line = 0;
                State::Size(0)
            }
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart, b'!'..=b'~') => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => State::Trailer,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(BadChunk),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8]) -> Result<(Vec<u8>, usize, bool), BadChunk> {
        let (mut decoder, mut body) = (Chunked::default(), Vec::new());
        let taken = decoder.decode(input, &mut body)?;
        Ok((body, taken, decoder.is_done()))
    }

    #[test]
    fn what_follows_the_body_is_left_alone() {
        let input = b"4;a=\"b\"\r\nWiki\r\n0005\r\npedia\r\n0\r\nA: b\r\n\r\nGET /";
        assert_eq!(
            decode(input),
            Ok((b"Wikipedia".to_vec(), input.len() - 5, true))
        );
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        for bad in [
            &b"\r\n"[..],
            b"+4\r\n",
            b" 4\r\n",
            b"4 \r\n",
            b"0x4\r\n",
            b"4\n",
            b"4\r\r\n",
            b"4\r\nWikiX\r\n",
            b"4\r\nWiki\n",
            b"12345678\r\n",
            b"4;\x01\r\n",
            b"4;\n\r\n",
            b"0\r\n A: folded\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\n",
        ] {
            assert_eq!(decode(bad), Err(BadChunk), "{:?}", bad.escape_ascii());
        }
        let long = [b"1;".to_vec(), vec![b'a'; LINE_BYTES_MAX]].concat();
        assert_eq!(decode(&long), Err(BadChunk));
    }

    proptest::proptest! {
        #[test]
        fn bodies_read_back_however_they_are_cut(
            chunks: Vec<Vec<u8>>,
            piece in 1usize..9,
        ) {
            let mut wire = Vec::new();
            for chunk in chunks.iter().filter(|c| !c.is_empty()) {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (mut decoder, mut body) = (Chunked::default(), Vec::new());
            for part in wire.chunks(piece) {
                proptest::prop_assert_eq!(decoder.decode(part, &mut body), Ok(part.len()));
            }
            proptest::prop_assert!(decoder.is_done());
            proptest::prop_assert_eq!(body, chunks.concat());
        }

        #[test]
        fn garbage_neither_panics_nor_grows(input: Vec<u8>) {
            let (mut decoder, mut body) = (Chunked::default(), Vec::new());
            let _ = decoder.decode(&input, &mut body);
            proptest::prop_assert!(body.len() <= input.len());
        }
    }
}
