//! mux.cool's frames, and datagrams in them: XUDP, or a session for each destination
//! (proxy-protocols.md 10.1 and 10.2).
//!
//! Pure. VMess and VLESS carry them in a stream of their own command. XUDP is one session, with
//! number 0, whose frames all have an address; servers from before it know sessions with one
//! destination each.

use std::collections::VecDeque;
use std::fmt;
use std::io;

use crate::metadata::{Endpoint, Network};
use crate::outbound::packets::{NoEncoding, Packet, PacketCodec};
use crate::outbound::random;
use crate::outbound::scratch::{Full, Scratch};
use crate::outbound::socks_address::AddressError;
use crate::outbound::v2ray_address;
use crate::wire::{Reader, Truncated};

/// The longest metadata that is taken (Xray's limit).
const METADATA_MAX: usize = 512;

/// Destinations of one association that have a session; beyond it the oldest is ended.
const SESSIONS_MAX: usize = 128;

/// What a frame does to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Begins it.
    New = 1,
    /// Goes on with it.
    Keep = 2,
    /// Ends it.
    End = 3,
    /// Shows that the carrier lives.
    KeepAlive = 4,
}

/// A frame's head, and where its data stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The session's number.
    pub id: u16,
    /// What it does.
    pub status: Status,
    /// Where to, or where from.
    pub address: Option<(Network, Endpoint)>,
    /// The data in the bytes that were read, if it carries any.
    pub data: Option<std::ops::Range<usize>>,
    /// All of its bytes.
    pub length: usize,
}

/// Why bytes are no frame. Ends the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The metadata is too long or too short for what it holds.
    Metadata,
    /// No such status.
    Status(u8),
    /// Neither TCP nor UDP.
    Network(u8),
    /// The address is none.
    Address(AddressError),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata => f.write_str("bad metadata of a frame"),
            Self::Status(status) => write!(f, "unknown status {status} of a frame"),
            Self::Network(network) => write!(f, "unknown network {network} of a frame"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl From<Truncated> for FrameError {
    fn from(_: Truncated) -> Self {
        Self::Metadata
    }
}

impl From<AddressError> for FrameError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

/// The frame at the start of `bytes`; `None`: read more.
///
/// # Errors
/// [`FrameError`].
pub fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut whole = Reader::new(bytes);
    let Ok(length) = whole.u16() else {
        return Ok(None);
    };
    if usize::from(length) > METADATA_MAX {
        return Err(FrameError::Metadata);
    }
    let Ok(metadata) = whole.take(usize::from(length)) else {
        return Ok(None);
    };
    let mut reader = Reader::new(metadata);
    let id = reader.u16()?;
    let status = match reader.u8()? {
        1 => Status::New,
        2 => Status::Keep,
        3 => Status::End,
        4 => Status::KeepAlive,
        other => return Err(FrameError::Status(other)),
    };
    let carries = reader.u8()? & 1 != 0;
    let addressed = match status {
        Status::New => true,
        // XUDP's addresses; extra bytes of other frames are padding.
        Status::Keep => reader.rest().first() == Some(&2),
        Status::End | Status::KeepAlive => false,
    };
    let address = match addressed {
        true => {
            let network = match reader.u8()? {
                1 => Network::Tcp,
                2 => Network::Udp,
                other => return Err(FrameError::Network(other)),
            };
            Some((network, v2ray_address::decode(&mut reader)?))
        }
        false => None,
    };
    let mut data = None;
    if carries {
        let Ok(length) = whole.u16() else {
            return Ok(None);
        };
        let start = whole.position();
        if whole.take(usize::from(length)).is_err() {
            return Ok(None);
        }
        data = Some(start..whole.position());
    }
    Ok(Some(Frame {
        id,
        status,
        address,
        data,
        length: whole.position(),
    }))
}

/// How many bytes `data` takes in a frame with an address.
#[must_use]
pub fn room(data: usize) -> usize {
    2 + 5 + v2ray_address::ENCODED_MAX + 8 + 2 + data
}

/// Appends a frame. `tail`: what follows the address.
///
/// # Errors
/// The address has no encoding, or data or frame do not fit.
pub fn encode(
    id: u16,
    status: Status,
    address: Option<(Network, &Endpoint)>,
    tail: &[u8],
    data: Option<&[u8]>,
    out: &mut Scratch,
) -> Result<(), AddressError> {
    let start = out.len();
    let option = u8::from(data.is_some());
    out.push(&[0, 0])?;
    out.push(&id.to_be_bytes())?;
    out.push(&[status as u8, option])?;
    if let Some((network, endpoint)) = address {
        let network = match network {
            Network::Tcp => 1,
            Network::Udp => 2,
        };
        out.push(&[network])?;
        v2ray_address::encode(endpoint, out)?;
        out.push(tail)?;
    }
    let length = out.len() - start - 2;
    let length = u16::try_from(length).map_err(|_| Full)?.to_be_bytes();
    if let Some(place) = out.data_mut().get_mut(start..start + 2) {
        place.copy_from_slice(&length);
    }
    if let Some(data) = data {
        let length = u16::try_from(data.len()).map_err(|_| Full)?;
        out.push(&length.to_be_bytes())?;
        out.push(data)?;
    }
    Ok(())
}

/// The client's datagrams in frames.
pub struct UdpFrames(Mode);

enum Mode {
    /// One session; its global id, and the first destination.
    Xudp([u8; 8], Option<Endpoint>),
    /// The sessions, oldest first, and the next number.
    ByDestination(VecDeque<(u16, Endpoint)>, u16),
}

impl UdpFrames {
    /// XUDP with a random global id.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn xudp() -> io::Result<Self> {
        let mut id = [0; 8];
        random::fill(&mut id)?;
        Ok(Self(Mode::Xudp(id, None)))
    }

    /// A session for each destination.
    #[must_use]
    pub fn by_destination() -> Self {
        Self(Mode::ByDestination(VecDeque::new(), 1))
    }

    /// Where a frame's datagram comes from; `None`: from nobody that was asked.
    fn sender(&mut self, frame: &mut Frame) -> Option<Endpoint> {
        let named = frame.address.take().map(|(_, endpoint)| endpoint);
        match &mut self.0 {
            Mode::Xudp(_, first) => named.or_else(|| first.clone()),
            Mode::ByDestination(sessions, _) => {
                let place = sessions.iter().position(|(id, _)| *id == frame.id)?;
                if frame.status == Status::End {
                    let ended = sessions.remove(place);
                    return ended.map(|(_, endpoint)| endpoint);
                }
                named.or_else(|| sessions.get(place).map(|(_, endpoint)| endpoint.clone()))
            }
        }
    }
}

impl PacketCodec for UdpFrames {
    fn encode(
        &mut self,
        payload: &[u8],
        address: &Endpoint,
        out: &mut Scratch,
    ) -> Result<(), NoEncoding> {
        let to = Some((Network::Udp, address));
        let (sessions, next) = match &mut self.0 {
            Mode::Xudp(global, first) => {
                let (status, tail) = match first {
                    None => (Status::New, &global[..]),
                    Some(_) => (Status::Keep, &[][..]),
                };
                encode(0, status, to, tail, Some(payload), out)?;
                first.get_or_insert_with(|| address.clone());
                return Ok(());
            }
            Mode::ByDestination(sessions, next) => (sessions, next),
        };
        if let Some((id, _)) = sessions.iter().find(|(_, known)| known == address) {
            return Ok(encode(*id, Status::Keep, None, &[], Some(payload), out)?);
        }
        if sessions.len() >= SESSIONS_MAX
            && let Some((oldest, _)) = sessions.pop_front()
        {
            encode(oldest, Status::End, None, &[], None, out)?;
        }
        let id = *next;
        *next = id.checked_add(1).ok_or(NoEncoding)?;
        encode(id, Status::New, to, &[], Some(payload), out)?;
        sessions.push_back((id, address.clone()));
        Ok(())
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Option<Packet>> {
        loop {
            let Some(mut frame) = decode(incoming.data())? else {
                return Ok(None);
            };
            let sender = match frame.status {
                Status::KeepAlive => None,
                Status::New | Status::Keep | Status::End => self.sender(&mut frame),
            };
            if let (Some(sender), Some(payload)) = (sender, frame.data) {
                return Ok(Some(Packet {
                    address: Some(sender),
                    payload,
                    length: frame.length,
                }));
            }
            incoming.consume(frame.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    fn sent(frames: &mut UdpFrames, payload: &[u8], to: &str) -> Vec<u8> {
        let mut out = Scratch::take(0);
        frames.encode(payload, &at(to), &mut out).unwrap();
        out.data().to_vec()
    }

    fn received(frames: &mut UdpFrames, bytes: &[u8]) -> Option<(Option<Endpoint>, Vec<u8>)> {
        let mut incoming = Scratch::take(0);
        incoming.push(bytes).unwrap();
        let packet = frames.decode(&mut incoming).unwrap()?;
        Some((packet.address, incoming.data()[packet.payload].to_vec()))
    }

    #[test]
    fn xudp_is_one_session_with_an_address_in_each_frame() {
        let mut frames = UdpFrames(Mode::Xudp([9; 8], None));
        assert_eq!(
            sent(&mut frames, b"hi", "1.2.3.4:53"),
            b"\0\x14\0\0\x01\x01\x02\0\x35\x01\x01\x02\x03\x04\x09\x09\x09\x09\x09\x09\x09\x09\0\x02hi"
        );
        assert_eq!(
            sent(&mut frames, b"ho", "1.2.3.4:54"),
            b"\0\x0c\0\0\x02\x01\x02\0\x36\x01\x01\x02\x03\x04\0\x02ho"
        );
        let first = Some((Some(at("1.2.3.4:53")), b"a".to_vec()));
        assert_eq!(received(&mut frames, b"\0\x04\0\0\x02\x01\0\x01a"), first);
        let other = b"\0\x0c\0\0\x02\x01\x02\0\x36\x01\x05\x06\x07\x08\0\x01b";
        let want = Some((Some(at("5.6.7.8:54")), b"b".to_vec()));
        assert_eq!(received(&mut frames, other), want);
    }

    #[test]
    fn each_destination_has_its_session_until_it_ends() {
        let mut frames = UdpFrames::by_destination();
        let begun = sent(&mut frames, b"a", "1.2.3.4:53");
        assert_eq!(
            begun,
            b"\0\x0c\0\x01\x01\x01\x02\0\x35\x01\x01\x02\x03\x04\0\x01a"
        );
        assert_eq!(sent(&mut frames, b"b", "1.2.3.4:54")[3], 2);
        assert_eq!(
            sent(&mut frames, b"c", "1.2.3.4:53"),
            b"\0\x04\0\x01\x02\x01\0\x01c"
        );
        let answer = b"\0\x04\0\x63\x02\x01\0\x01x\0\x04\0\x02\x02\x01\0\x01y";
        let want = Some((Some(at("1.2.3.4:54")), b"y".to_vec()));
        assert_eq!(received(&mut frames, answer), want);
        assert_eq!(received(&mut frames, b"\0\x04\0\x01\x03\0"), None);
        assert_eq!(sent(&mut frames, b"d", "1.2.3.4:53")[3], 3);
    }

    #[test]
    fn the_oldest_session_makes_room() {
        let mut frames = UdpFrames::by_destination();
        for port in 1..=SESSIONS_MAX {
            sent(&mut frames, b"", &format!("1.2.3.4:{port}"));
        }
        let next = sent(&mut frames, b"", "1.2.3.4:9999");
        assert_eq!(&next[..6], b"\0\x04\0\x01\x03\0");
    }

    #[test]
    fn frames_that_are_none_are_refused() {
        assert_eq!(decode(b"\x02\x01"), Err(FrameError::Metadata));
        assert_eq!(decode(b"\0\x03\0\x01\x02"), Err(FrameError::Metadata));
        assert_eq!(decode(b"\0\x04\0\x01\x05\0"), Err(FrameError::Status(5)));
        assert_eq!(
            decode(b"\0\x05\0\x01\x01\0\x03"),
            Err(FrameError::Network(3))
        );
        assert_eq!(decode(b"\0\x04\0\x01\x02\x01\0\x05abcd"), Ok(None));
    }

    proptest! {
        #[test]
        fn random_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Some(frame)) = decode(&bytes) {
                prop_assert!(frame.length <= bytes.len());
            }
        }
    }
}
