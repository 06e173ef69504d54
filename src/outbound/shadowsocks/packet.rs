//! Shadowsocks datagrams, to and from bytes, and the client's view of a 2022 session.
//!
//! Pure: time, salts and nonces are arguments (proxy-protocols.md 2.4, 3.2 to 3.4).

use std::fmt;
use std::ops::Range;

use subtle::ConstantTimeEq;

use super::method::Secret;
use super::tcp::CLOCK_SKEW_MAX;
use super::window::Window;
use crate::metadata::Endpoint;
use crate::outbound::crypto::{Forged, Key, NONCE, XNONCE, open_x, seal_x};
use crate::outbound::scratch::{Full, Scratch};
use crate::outbound::socks_address::{self, AddressError};
use crate::wire::{Reader, Truncated};

/// The separate header of SIP022: session id and packet id.
pub const HEADER: usize = 16;

/// Type of what clients send.
pub const CLIENT: u8 = 0;
/// Type of what servers send.
pub const SERVER: u8 = 1;

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// Somebody else's bytes.
    Forged,
    /// Too short, or its fields do not fit.
    Truncated,
    /// Not from a server.
    NotServer,
    /// The clocks differ too much, or it is old.
    Clock,
    /// Meant for another session.
    OtherSession,
    /// Came before, or too late to know.
    Replayed,
    /// The sender's address is none.
    Address(AddressError),
    /// Too long to be sent.
    Full,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forged => f.write_str("datagram does not authenticate"),
            Self::Truncated => f.write_str("datagram is truncated"),
            Self::NotServer => f.write_str("datagram is not from a server"),
            Self::Clock => f.write_str("server's clock differs by more than 30 s"),
            Self::OtherSession => f.write_str("datagram of another session"),
            Self::Replayed => f.write_str("datagram was replayed"),
            Self::Address(error) => error.fmt(f),
            Self::Full => f.write_str("datagram is too long"),
        }
    }
}

impl std::error::Error for PacketError {}

impl From<Forged> for PacketError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}

impl From<Truncated> for PacketError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

impl From<AddressError> for PacketError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

impl From<Full> for PacketError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// SIP004: appends the datagram of `payload` to `target` (in SOCKS5 form), `salt` never used before.
///
/// # Errors
/// [`PacketError::Full`].
pub fn seal(
    secret: &Secret,
    salt: &[u8],
    target: &[u8],
    payload: &[u8],
    out: &mut Scratch,
) -> Result<(), PacketError> {
    out.push(salt)?;
    out.push(target)?;
    out.push(payload)?;
    let body = out.data_mut().get_mut(salt.len()..).unwrap_or_default();
    let tag = secret.subkey(salt)?.seal(&[0; NONCE], body)?;
    Ok(out.push(&tag)?)
}

/// SIP004: decrypts in place; the sender, and where in `packet` the payload stands.
///
/// # Errors
/// [`PacketError`]; drop the datagram.
pub fn open(secret: &Secret, packet: &mut [u8]) -> Result<(Endpoint, Range<usize>), PacketError> {
    let salt_length = secret.salt_length();
    let (salt, body) = packet
        .split_at_mut_checked(salt_length)
        .ok_or(PacketError::Truncated)?;
    let plain = secret.subkey(salt)?.open(&[0; NONCE], body)?;
    let mut reader = Reader::new(plain);
    let sender = socks_address::decode(&mut reader)?;
    let start = salt_length + reader.position();
    Ok((sender, start..salt_length + plain.len()))
}

/// The client's half of a 2022 session.
pub struct Session {
    id: [u8; 8],
    /// The body key; none where ChaCha seals whole packets with the pre-shared key.
    key: Option<Key>,
    servers: Servers,
}

/// The server's halves: a restarted server begins a new one while old datagrams still arrive.
#[derive(Default)]
struct Servers {
    newest: Option<Server>,
    previous: Option<Server>,
}

struct Server {
    id: [u8; 8],
    key: Option<Key>,
    window: Window,
}

impl Session {
    /// A session with this random id.
    ///
    /// # Errors
    /// [`PacketError::Forged`] never, given keys that were checked.
    pub fn new(secret: &Secret, id: [u8; 8]) -> Result<Self, PacketError> {
        Ok(Self {
            key: body_key(secret, &id)?,
            id,
            servers: Servers::default(),
        })
    }

    /// SIP022: appends the datagram. `packet_id` counts from 0; `nonce` is random (ChaCha only).
    ///
    /// # Errors
    /// [`PacketError::Full`].
    pub fn seal(
        &self,
        secret: &Secret,
        numbers: &Numbers,
        target: &[u8],
        payload: &[u8],
        out: &mut Scratch,
    ) -> Result<(), PacketError> {
        let mut header = [0; HEADER];
        let (id, packet_id) = header.split_at_mut(8);
        id.copy_from_slice(&self.id);
        packet_id.copy_from_slice(&numbers.packet_id.to_be_bytes());
        let body = |out: &mut Scratch| -> Result<(), PacketError> {
            out.push(&[CLIENT])?;
            out.push(&numbers.unix_time.to_be_bytes())?;
            out.push(&[0, 0])?;
            out.push(target)?;
            Ok(out.push(payload)?)
        };
        let Some(((hide, _), key)) = secret.header_keys().zip(self.key.as_ref()) else {
            out.push(&numbers.nonce)?;
            out.push(&header)?;
            body(out)?;
            let text = out.data_mut().get_mut(XNONCE..).unwrap_or_default();
            let tag = seal_x(secret.psk(), &numbers.nonce, text)?;
            return Ok(out.push(&tag)?);
        };
        let nonce = body_nonce(&header);
        let identities = secret.datagram_identities(&header)?;
        hide.encrypt(&mut header);
        out.push(&header)?;
        out.push(&identities)?;
        let start = HEADER + identities.len();
        body(out)?;
        let text = out.data_mut().get_mut(start..).unwrap_or_default();
        let tag = key.seal(&nonce, text)?;
        Ok(out.push(&tag)?)
    }

    /// SIP022: decrypts in place; the sender, and where in `packet` the payload stands.
    ///
    /// # Errors
    /// [`PacketError`]; drop the datagram.
    pub fn open(
        &mut self,
        secret: &Secret,
        unix_time: u64,
        packet: &mut [u8],
    ) -> Result<(Endpoint, Range<usize>), PacketError> {
        let Some((_, show)) = secret.header_keys() else {
            let (nonce, sealed) = packet
                .split_first_chunk_mut::<XNONCE>()
                .ok_or(PacketError::Truncated)?;
            let plain = open_x(secret.psk(), nonce, sealed)?;
            let (header, body) = plain
                .split_first_chunk::<HEADER>()
                .ok_or(PacketError::Truncated)?;
            let (sender, range) = self.body(body, unix_time)?;
            self.servers.accept(*header, None)?;
            let shift = XNONCE + HEADER;
            return Ok((sender, range.start + shift..range.end + shift));
        };
        let (header, sealed) = packet
            .split_first_chunk_mut::<HEADER>()
            .ok_or(PacketError::Truncated)?;
        show.decrypt(header);
        let (id, _) = split_header(header);
        let nonce = body_nonce(header);
        let (plain, fresh) = match self.servers.key(id) {
            Some(key) => (key.open(&nonce, sealed)?, None),
            None => {
                let key = body_key(secret, &id)?.ok_or(PacketError::Forged)?;
                (key.open(&nonce, sealed)?, Some(key))
            }
        };
        let (sender, range) = self.body(plain, unix_time)?;
        self.servers.accept(*header, fresh)?;
        Ok((sender, range.start + HEADER..range.end + HEADER))
    }

    /// Checks the server's header and finds the payload behind it.
    fn body(&self, plain: &[u8], unix_time: u64) -> Result<(Endpoint, Range<usize>), PacketError> {
        let mut reader = Reader::new(plain);
        if reader.u8()? != SERVER {
            return Err(PacketError::NotServer);
        }
        if reader.u64()?.abs_diff(unix_time) > CLOCK_SKEW_MAX {
            return Err(PacketError::Clock);
        }
        if !bool::from(reader.take(8)?.ct_eq(&self.id)) {
            return Err(PacketError::OtherSession);
        }
        let padding = usize::from(reader.u16()?);
        reader.take(padding)?;
        let sender = socks_address::decode(&mut reader)?;
        Ok((sender, reader.position()..plain.len()))
    }
}

/// What each datagram of a session has of its own.
pub struct Numbers {
    /// From 0, one more each time.
    pub packet_id: u64,
    /// Seconds since 1970.
    pub unix_time: u64,
    /// Random, for ChaCha.
    pub nonce: [u8; XNONCE],
}

impl Servers {
    fn key(&self, id: [u8; 8]) -> Option<&Key> {
        let known = [&self.newest, &self.previous].into_iter().flatten();
        known
            .filter(|server| server.id == id)
            .find_map(|server| server.key.as_ref())
    }

    /// Counts a datagram that authenticated; a server session not seen before becomes the
    /// newest, and the one before the newest is forgotten.
    fn accept(&mut self, header: [u8; HEADER], key: Option<Key>) -> Result<(), PacketError> {
        let (id, packet_id) = split_header(&header);
        let known = |server: &Option<Server>| server.as_ref().is_some_and(|s| s.id == id);
        if !known(&self.newest) && !known(&self.previous) {
            self.previous = self.newest.take();
            let window = Window::default();
            self.newest = Some(Server { id, key, window });
        }
        let known = [&mut self.newest, &mut self.previous].into_iter().flatten();
        let server = known.into_iter().find(|server| server.id == id);
        let window = &mut server.ok_or(PacketError::OtherSession)?.window;
        if window.accept(packet_id) {
            Ok(())
        } else {
            Err(PacketError::Replayed)
        }
    }
}

/// The body key of a session; ChaCha has none.
fn body_key(secret: &Secret, id: &[u8; 8]) -> Result<Option<Key>, PacketError> {
    let keyed = secret.header_keys().map(|_| secret.subkey(id)).transpose();
    Ok(keyed?)
}

/// The last twelve bytes of the plain separate header.
#[must_use]
pub fn body_nonce(header: &[u8; HEADER]) -> [u8; NONCE] {
    header.last_chunk().copied().unwrap_or_default()
}

/// Session and number of a plain separate header.
#[must_use]
pub fn split_header(header: &[u8; HEADER]) -> ([u8; 8], u64) {
    let id = header.first_chunk().copied().unwrap_or_default();
    let packet_id = header.last_chunk().copied().unwrap_or_default();
    (id, u64::from_be_bytes(packet_id))
}

#[cfg(test)]
mod tests {
    use crate::encoding::{BASE64, HEX};
    use proptest::prelude::*;

    use super::*;

    const TIME: u64 = 1_700_000_000;
    const TARGET: [u8; 7] = [1, 1, 2, 3, 4, 0, 53];

    fn counting(from: u8, length: usize) -> Vec<u8> {
        (from..).take(length).collect()
    }

    fn secret_of_2022(cipher: &str, keys: &[Vec<u8>]) -> Secret {
        let keys: Vec<_> = keys.iter().map(|key| BASE64.encode(key)).collect();
        Secret::new(cipher, &keys.join(":")).unwrap()
    }

    fn id() -> [u8; 8] {
        [0, 1, 2, 3, 4, 5, 6, 7]
    }

    #[track_caller]
    fn check_2022(secret: &Secret, want: &str) {
        let session = Session::new(secret, id()).unwrap();
        let numbers = Numbers {
            packet_id: 1,
            unix_time: TIME,
            nonce: counting(0, XNONCE).try_into().unwrap(),
        };
        let mut out = Scratch::large();
        session
            .seal(secret, &numbers, &TARGET, b"hi", &mut out)
            .unwrap();
        assert_eq!(HEX.encode(out.data()), want);
    }

    // Vectors of proxy-protocols.md 14, from a client that spoke to real servers.

    #[test]
    fn datagrams_of_the_aead_edition_match_the_vector() {
        let secret = Secret::new("aes-128-gcm", "test").unwrap();
        let mut out = Scratch::large();
        seal(&secret, &counting(0, 16), &TARGET, b"hi", &mut out).unwrap();
        let want = "c55d8205c7271d909d7d257c80112600bfd8754cc2b81dcc77";
        assert_eq!(HEX.encode(&out.data()[16..]), want);
        let (sender, payload) = open(&secret, out.data_mut()).unwrap();
        assert_eq!(sender.to_string(), "1.2.3.4:53");
        assert_eq!(&out.data()[payload], b"hi");
    }

    #[test]
    fn datagrams_of_the_2022_edition_match_the_vectors() {
        let (ipsk, upsk) = (counting(0, 16), counting(0x40, 16));
        let aes = "2022-blake3-aes-128-gcm";
        check_2022(
            &secret_of_2022(aes, std::slice::from_ref(&ipsk)),
            "1019c78180555051d98aa1bf0d3dae532c0c93b9da354b1994fdc45a2ac8d4cd5612fbc0387c677f666110dd8f4d7f4cb7efbd38",
        );
        check_2022(
            &secret_of_2022(aes, &[ipsk, upsk]),
            "1019c78180555051d98aa1bf0d3dae534df56e9c51a19f15974731fdeefe258fa63c300ffff5285b354c1013cbd856d9728bc7feb937ee9ae83fd6ec78caf8266a2603a2",
        );
        check_2022(
            &secret_of_2022("2022-blake3-chacha20-poly1305", &[counting(0, 32)]),
            "000102030405060708090a0b0c0d0e0f10111213141516179ec30d7c94d78ba9334426cecb52a8e94b4728a5fdb34e1a7f1a3fb73caff65d5e33de8d0bc984ae00a8e43c43752c9d7c3119c9",
        );
    }

    /// A datagram of the server session `server` to the client session `client`.
    fn reply(
        secret: &Secret,
        server: [u8; 8],
        packet_id: u64,
        client: [u8; 8],
        time: u64,
    ) -> Vec<u8> {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&server);
        header[8..].copy_from_slice(&packet_id.to_be_bytes());
        let mut body = vec![SERVER];
        body.extend_from_slice(&time.to_be_bytes());
        body.extend_from_slice(&client);
        body.extend_from_slice(&[0, 3, 9, 9, 9]);
        body.extend_from_slice(&TARGET);
        body.extend_from_slice(b"yes");
        let Some((_, show)) = secret.header_keys() else {
            let nonce = [7; XNONCE];
            let mut text = [&header[..], &body].concat();
            let tag = seal_x(secret.psk(), &nonce, &mut text).unwrap();
            return [&nonce[..], &text, &tag].concat();
        };
        let key = body_key(secret, &server).unwrap().unwrap();
        let tag = key.seal(&body_nonce(&header), &mut body).unwrap();
        show.encrypt(&mut header);
        [&header[..], &body, &tag].concat()
    }

    fn both() -> [Secret; 2] {
        [
            secret_of_2022(
                "2022-blake3-aes-256-gcm",
                &[counting(0, 32), counting(9, 32)],
            ),
            secret_of_2022("2022-blake3-chacha20-poly1305", &[counting(0, 32)]),
        ]
    }

    #[test]
    fn replies_are_opened_once() {
        for secret in both() {
            let mut session = Session::new(&secret, id()).unwrap();
            let packet = reply(&secret, [1; 8], 0, id(), TIME);
            let mut first = packet.clone();
            let (sender, payload) = session.open(&secret, TIME, &mut first).unwrap();
            assert_eq!(sender.to_string(), "1.2.3.4:53");
            assert_eq!(&first[payload], b"yes");
            let again = session.open(&secret, TIME, &mut packet.clone());
            assert_eq!(again, Err(PacketError::Replayed));
        }
    }

    #[test]
    fn a_restarted_server_is_heard_beside_the_old_one() {
        for secret in both() {
            let mut session = Session::new(&secret, id()).unwrap();
            for (server, packet_id) in [(1, 5), (2, 0), (1, 6), (2, 1)] {
                let mut packet = reply(&secret, [server; 8], packet_id, id(), TIME);
                assert!(session.open(&secret, TIME, &mut packet).is_ok());
            }
        }
    }

    #[test]
    fn replies_to_others_or_from_other_times_are_dropped() {
        for secret in both() {
            let mut session = Session::new(&secret, id()).unwrap();
            let mut check = |client, time, want| {
                let mut packet = reply(&secret, [1; 8], 0, client, time);
                assert_eq!(session.open(&secret, TIME, &mut packet), Err(want));
            };
            check([9; 8], TIME, PacketError::OtherSession);
            check(id(), TIME - 31, PacketError::Clock);
            check(id(), TIME + 31, PacketError::Clock);
        }
    }

    proptest! {
        #[test]
        fn random_datagrams_are_dropped_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for secret in both() {
                let mut session = Session::new(&secret, id()).unwrap();
                prop_assert!(session.open(&secret, TIME, &mut bytes.clone()).is_err());
            }
            let secret = Secret::new("aes-128-gcm", "test").unwrap();
            prop_assert!(open(&secret, &mut bytes.clone()).is_err());
        }

        #[test]
        fn authentic_nonsense_is_dropped_without_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let secret = secret_of_2022("2022-blake3-chacha20-poly1305", &[counting(0, 32)]);
            let session = Session::new(&secret, id()).unwrap();
            let _parsed = session.body(&body, TIME);
        }
    }
}
