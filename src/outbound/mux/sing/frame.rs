//! The frames of smux (version 1) and yamux (version 0), to and from bytes.
//!
//! Pure. smux counts in little-endian and has no windows; yamux in big-endian, with a window for each
//! stream. Documents: xtaci/smux's README, hashicorp/yamux's `spec.md`.

use std::fmt;

use crate::wire::Reader;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// smux version 1.
    Smux,
    /// yamux version 0.
    Yamux,
}

/// What a stream of yamux may send before the other end has read it.
pub const WINDOW: u32 = 256 * 1024;

/// Payload of a frame that we send.
pub const PAYLOAD_MAX: usize = 16 * 1024;

const SYN: u16 = 1;
const FIN: u16 = 4;
const RST: u16 = 8;

/// A frame's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The stream's number; 0: the session's own.
    pub stream: u32,
    /// Bytes of the stream that follow.
    pub payload: u32,
    /// How much more we may send.
    pub credit: u32,
    /// The peer begins the stream.
    pub begins: bool,
    /// The peer has ended its direction.
    pub ends: bool,
    /// The stream is no more.
    pub resets: bool,
    /// What the peer wants back.
    pub ping: Option<u32>,
    /// The peer takes no further streams.
    pub leaves: bool,
}

/// The bytes are no frame; the session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed frame of a multiplexed connection")
    }
}

impl std::error::Error for Malformed {}

impl Dialect {
    /// The number of the first stream; the following are each two more.
    #[must_use]
    pub fn first_stream(self) -> u32 {
        match self {
            Self::Smux => 3,
            Self::Yamux => 1,
        }
    }

    /// What a new stream may send at once.
    #[must_use]
    pub fn window(self) -> u32 {
        match self {
            Self::Smux => u32::MAX,
            Self::Yamux => WINDOW,
        }
    }

    /// Bytes of a head.
    #[must_use]
    pub fn head_bytes(self) -> usize {
        match self {
            Self::Smux => 8,
            Self::Yamux => 12,
        }
    }

    /// The head at the start of `bytes`; `None`: read more.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(self, bytes: &[u8]) -> Result<Option<Head>, Malformed> {
        let mut reader = Reader::new(bytes);
        match self {
            Self::Smux => {
                let Ok([1, command, l0, l1, s0, s1, s2, s3]) = reader.array::<8>() else {
                    return if bytes.len() < 8 {
                        Ok(None)
                    } else {
                        Err(Malformed)
                    };
                };
                let payload = u16::from_le_bytes([l0, l1]);
                let head = Head {
                    stream: u32::from_le_bytes([s0, s1, s2, s3]),
                    ..Head::default()
                };
                match (command, payload) {
                    (0, 0) => Ok(Some(Head {
                        begins: true,
                        ..head
                    })),
                    (1, 0) => Ok(Some(Head { ends: true, ..head })),
                    (2, _) => Ok(Some(Head {
                        payload: payload.into(),
                        ..head
                    })),
                    (3, 0) => Ok(Some(Head::default())),
                    _ => Err(Malformed),
                }
            }
            Self::Yamux => {
                let Ok([0, kind, f0, f1, s0, s1, s2, s3, v0, v1, v2, v3]) = reader.array::<12>()
                else {
                    return if bytes.len() < 12 {
                        Ok(None)
                    } else {
                        Err(Malformed)
                    };
                };
                let flags = u16::from_be_bytes([f0, f1]);
                let value = u32::from_be_bytes([v0, v1, v2, v3]);
                let head = Head {
                    stream: u32::from_be_bytes([s0, s1, s2, s3]),
                    begins: flags & SYN != 0,
                    ends: flags & FIN != 0,
                    resets: flags & RST != 0,
                    ..Head::default()
                };
                match kind {
                    0 => Ok(Some(Head {
                        payload: value,
                        ..head
                    })),
                    1 => Ok(Some(Head {
                        credit: value,
                        ..head
                    })),
                    // A ping asks by SYN and is answered by ACK.
                    2 => Ok(Some(Head {
                        ping: head.begins.then_some(value),
                        ..Head::default()
                    })),
                    3 => Ok(Some(Head {
                        leaves: true,
                        ..Head::default()
                    })),
                    _ => Err(Malformed),
                }
            }
        }
    }

    fn head(self, command: u8, flags: u16, stream: u32, value: u32, out: &mut Vec<u8>) {
        match self {
            Self::Smux => {
                out.extend_from_slice(&[1, command]);
                let length = u16::try_from(value).unwrap_or_default();
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&stream.to_le_bytes());
            }
            Self::Yamux => {
                out.extend_from_slice(&[0, command]);
                out.extend_from_slice(&flags.to_be_bytes());
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    /// Begins a stream.
    pub fn begin(self, stream: u32, out: &mut Vec<u8>) {
        match self {
            Self::Smux => self.head(0, 0, stream, 0, out),
            Self::Yamux => self.head(1, SYN, stream, 0, out),
        }
    }

    /// The start of `payload`; how much of it.
    pub fn data(self, stream: u32, payload: &[u8], out: &mut Vec<u8>) -> usize {
        let part = payload.get(..PAYLOAD_MAX).unwrap_or(payload);
        let command = match self {
            Self::Smux => 2,
            Self::Yamux => 0,
        };
        let length = u32::try_from(part.len()).unwrap_or_default();
        self.head(command, 0, stream, length, out);
        out.extend_from_slice(part);
        part.len()
    }

    /// Ends our direction.
    pub fn finish(self, stream: u32, out: &mut Vec<u8>) {
        match self {
            Self::Smux => self.head(1, 0, stream, 0, out),
            Self::Yamux => self.head(1, FIN, stream, 0, out),
        }
    }

    /// Ends a stream that the peer has not ended; for smux nothing more can be said than `finish` does.
    pub fn reset(self, stream: u32, out: &mut Vec<u8>) {
        if self == Self::Yamux {
            self.head(1, RST, stream, 0, out);
        }
    }

    /// Lets the peer send so much more.
    pub fn credit(self, stream: u32, bytes: u32, out: &mut Vec<u8>) {
        if self == Self::Yamux {
            self.head(1, 0, stream, bytes, out);
        }
    }

    /// Answers a ping.
    pub fn pong(self, value: u32, out: &mut Vec<u8>) {
        if self == Self::Yamux {
            self.head(2, 2, 0, value, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn frames_of_smux_are_as_its_library_writes_them() {
        let smux = Dialect::Smux;
        assert_eq!(written(|out| smux.begin(3, out)), b"\x01\0\0\0\x03\0\0\0");
        let data = written(|out| assert_eq!(smux.data(0x0102, b"hi", out), 2));
        assert_eq!(data, b"\x01\x02\x02\0\x02\x01\0\0hi");
        assert_eq!(
            written(|out| smux.finish(3, out)),
            b"\x01\x01\0\0\x03\0\0\0"
        );
        assert!(smux.decode(b"\x02\x02\x02\0\x02\x01\0\0").is_err());
        assert!(smux.decode(b"\x01\x04\x08\0\x02\x01\0\0").is_err());
        assert_eq!(smux.decode(b"\x01\x02\x02\0\x02\x01\0"), Ok(None));
    }

    #[test]
    fn frames_of_yamux_are_as_its_document_says() {
        let yamux = Dialect::Yamux;
        let begin = written(|out| yamux.begin(1, out));
        assert_eq!(begin, b"\0\x01\0\x01\0\0\0\x01\0\0\0\0");
        let data = written(|out| assert_eq!(yamux.data(3, b"hi", out), 2));
        assert_eq!(data, b"\0\0\0\0\0\0\0\x03\0\0\0\x02hi");
        let ping = yamux
            .decode(b"\0\x02\0\x01\0\0\0\0\0\0\0\x07")
            .unwrap()
            .unwrap();
        assert_eq!(ping.ping, Some(7));
        let pong = written(|out| yamux.pong(7, out));
        assert_eq!(pong, b"\0\x02\0\x02\0\0\0\0\0\0\0\x07");
        assert_eq!(yamux.decode(&pong).unwrap().unwrap().ping, None);
        let window = b"\0\x01\0\x06\0\0\0\x03\0\0\x01\0";
        let head = yamux.decode(window).unwrap().unwrap();
        assert_eq!((head.credit, head.ends, head.begins), (256, true, false));
        assert!(yamux.decode(b"\0\x04\0\0\0\0\0\x03\0\0\0\x02").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(stream: u32, length in 0usize..20_000, smux: bool) {
            let dialect = if smux { Dialect::Smux } else { Dialect::Yamux };
            let out = written(|out| {
                let _taken = dialect.data(stream, &vec![1; length], out);
            });
            let head = dialect.decode(&out).unwrap().unwrap();
            prop_assert_eq!(head.payload as usize, length.min(PAYLOAD_MAX));
            prop_assert_eq!(head.stream, stream);
            prop_assert_eq!(out.len(), dialect.head_bytes() + head.payload as usize);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _read = (Dialect::Smux.decode(&bytes), Dialect::Yamux.decode(&bytes));
        }
    }
}
