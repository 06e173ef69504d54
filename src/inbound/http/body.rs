//! Where the body of an HTTP/1.1 message ends (RFC 9112 sections 6 and 7).
//!
//! Pure. A proxy passes bodies through as they stand, chunks and trailers included, and only
//! has to know how many of the bytes belong to the message. The chunked coding is read to the
//! letter: what two readers could understand differently (bare line feeds, sizes with signs or
//! spaces, control characters) is refused, so nothing can be smuggled behind a body.

use std::fmt;

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; 0 where there is no body.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// With the connection (responses only).
    UntilClose,
}

/// The chunked coding is broken; the message cannot be delimited any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

impl fmt::Display for BadChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad chunk")
    }
}

/// Bytes of chunk extensions, or of the trailer section, in one body.
const OVERHEAD_BYTES_MAX: usize = 8 * 1024;

/// How far a body has been read.
#[derive(Clone, Debug)]
pub struct Body(State);

#[derive(Clone, Debug)]
enum State {
    Length(u64),
    UntilClose,
    Chunked { part: Part, overhead: usize },
}

/// Where in the chunked coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Size { value: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    Done,
}

impl Body {
    /// A body of which nothing was read.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(length) => State::Length(length),
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::Chunked {
                part: Part::Size {
                    value: 0,
                    digits: 0,
                },
                overhead: 0,
            },
        })
    }

    /// Whether the body ends here. One that ends with the connection never does of itself.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.0 {
            State::Length(left) => *left == 0,
            State::UntilClose => false,
            State::Chunked { part, .. } => *part == Part::Done,
        }
    }

    /// Whether the end of the connection ends it properly.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// Takes the next bytes of the message: how many of them belong to the body. Fewer than all
    /// only where the body ends.
    ///
    /// # Errors
    /// [`BadChunk`].
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match &mut self.0 {
            State::UntilClose => Ok(bytes.len()),
            State::Length(left) => {
                let taken = clamp(*left, bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            State::Chunked { part, overhead } => {
                let mut rest = bytes;
                while *part != Part::Done
                    && let Some((&byte, behind)) = rest.split_first()
                {
                    if let Part::Data { left } = part {
                        let taken = clamp(*left, rest.len());
                        *left -= taken as u64;
                        if *left == 0 {
                            *part = Part::DataCr;
                        }
                        rest = rest.get(taken..).unwrap_or_default();
                        continue;
                    }
                    *part = part.next(byte)?;
                    if matches!(part, Part::Extension { .. } | Part::Trailer) {
                        *overhead += 1;
                        if *overhead > OVERHEAD_BYTES_MAX {
                            return Err(BadChunk);
                        }
                    }
                    rest = behind;
                }
                Ok(bytes.len() - rest.len())
            }
        }
    }
}

fn clamp(left: u64, there: usize) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

impl Part {
    /// Where the byte behind `byte` stands.
    fn next(self, byte: u8) -> Result<Self, BadChunk> {
        let text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        Ok(match (self, byte) {
            (Self::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                // 15 digits are a petabyte and cannot overflow.
                if digits >= 15 {
                    return Err(BadChunk);
                }
                Self::Size {
                    value: value << 4 | hex(byte),
                    digits: digits + 1,
                }
            }
            (Self::Size { digits: 0, .. }, _) => return Err(BadChunk),
            (Self::Size { value, .. }, b'\r') => Self::SizeEnd { size: value },
            (Self::Size { value, .. }, b';' | b' ' | b'\t') => Self::Extension { size: value },
            (Self::Extension { size }, b'\r') => Self::SizeEnd { size },
            (Self::Extension { size }, _) if text => Self::Extension { size },
            (Self::SizeEnd { size: 0 }, b'\n') | (Self::TrailerEnd, b'\n') => Self::TrailerStart,
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size {
                value: 0,
                digits: 0,
            },
            (Self::TrailerStart, b'\r') => Self::LastEnd,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            // A line that begins with a space would continue the field before it.
            (Self::TrailerStart, b' ' | b'\t') => return Err(BadChunk),
            (Self::TrailerStart | Self::Trailer, _) if text => Self::Trailer,
            (Self::LastEnd, b'\n') => Self::Done,
            _ => return Err(BadChunk),
        })
    }
}

/// The value of a hexadecimal digit.
fn hex(byte: u8) -> u64 {
    u64::from(char::from(byte).to_digit(16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How much of `text` is body, or that it is broken; `None` while it goes on.
    fn chunked(text: &str) -> Result<Option<usize>, BadChunk> {
        let mut body = Body::new(Framing::Chunked);
        let taken = body.take(text.as_bytes())?;
        Ok(body.is_done().then_some(taken))
    }

    #[test]
    fn chunks_end_with_the_empty_one_and_its_trailers() {
        assert_eq!(chunked("0\r\n\r\nNEXT"), Ok(Some(5)));
        assert_eq!(chunked("3\r\nabc\r\n00\r\n\r\n"), Ok(Some(14)));
        assert_eq!(
            chunked("1;a=\"b\"\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\nN"),
            Ok(Some(29))
        );
        assert_eq!(chunked("A \r\n0123456789\r\n0\r\n\r\n"), Ok(Some(21)));
        assert_eq!(chunked("3\r\nabc\r\n0\r\n"), Ok(None));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            " 1\r\n",
            "0x1\r\n",
            "1\nx",
            "1\rx",
            "1\r\nxy",
            "1\r\nx\n",
            "1;a\nb\r\n",
            "1;a\0\r\n",
            "0\r\n A: b\r\n",
            "0\r\nA: b\n",
            "1000000000000000\r\n",
        ] {
            assert_eq!(chunked(text), Err(BadChunk), "{text:?}");
        }
    }

    #[test]
    fn endless_trailers_are_refused() {
        let text = format!("0\r\n{}", "a".repeat(OVERHEAD_BYTES_MAX + 1));
        assert_eq!(chunked(&text), Err(BadChunk));
    }

    #[test]
    fn a_length_counts_and_a_close_does_not_end() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!(body.take(b"abc"), Ok(3));
        assert!(!body.is_done() && !body.may_end());
        assert_eq!(body.take(b"defg"), Ok(2));
        assert!(body.is_done());
        let mut body = Body::new(Framing::UntilClose);
        assert_eq!(body.take(b"abc"), Ok(3));
        assert!(!body.is_done() && body.may_end());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_end(
            text in "([0-3a]{1,2}(;[a-z]*)?\r?\n[a-z]{0,4}\r\n){0,4}(0\r\n(A: b\r\n)?\r\nNEXT)?",
            cut in 0usize..60,
        ) {
            let whole = {
                let mut body = Body::new(Framing::Chunked);
                body.take(text.as_bytes()).map(|n| (n, body.is_done()))
            };
            let (front, back) = text.as_bytes().split_at(cut.min(text.len()));
            let mut body = Body::new(Framing::Chunked);
            let parts = body.take(front).and_then(|n| {
                let more = body.take(back)?;
                Ok((n + more, body.is_done()))
            });
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut body = Body::new(Framing::Chunked);
            if let Ok(taken) = body.take(&bytes) {
                prop_assert!(taken == bytes.len() || body.is_done());
            }
        }
    }
}
