//! The server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! Reads the hello from TLS records ([`server_name`], over TCP) or bare ([`client_hello`], as
//! QUIC carries it). It is no TLS stack: it checks lengths and skips what it need not know, so
//! GREASE values and unknown extensions pass, and of an encrypted hello (ECH) the outer name is
//! taken as it stands.
//!
//! Bytes are read in order and each is judged by what stands before it alone: more bytes never
//! change an answer other than [`Sniffed::NeedMore`], however a hello is cut into records and
//! segments. Beyond [`HELLO_BYTES_MAX`] the answer is [`Sniffed::Nothing`].

use std::borrow::Cow;

use super::Sniffed;
use crate::metadata::Host;
use crate::wire::{Reader, Truncated};

/// How much of a stream is looked at, record headers included. Hellos with post-quantum key
/// shares have some 2 KiB; a record's own limit is 16 KiB.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

const RECORD_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST_NAME: u8 = 0;

/// The server name in the first bytes of a TCP stream.
#[must_use]
pub fn server_name(stream: &[u8]) -> Sniffed {
    let seen = stream.get(..HELLO_BYTES_MAX).unwrap_or(stream);
    let (handshake, stopped) = handshake_bytes(seen);
    match client_hello(&handshake) {
        Sniffed::NeedMore if stopped || seen.len() == HELLO_BYTES_MAX => Sniffed::Nothing,
        answer => answer,
    }
}

/// Joins the contents of the handshake records at the front of `stream`. The flag: what follows
/// them is no handshake record, so no more will come.
fn handshake_bytes(stream: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let mut joined = Cow::Borrowed(&[][..]);
    let mut reader = Reader::new(stream);
    loop {
        match record(&mut reader) {
            Ok(content) if joined.is_empty() => joined = Cow::Borrowed(content),
            Ok(content) => joined.to_mut().extend_from_slice(content),
            Err(Stop::Truncated) => return (joined, false),
            Err(Stop::Malformed) => return (joined, true),
        }
        if reader.is_empty() {
            return (joined, false);
        }
    }
}

/// The content of the next record, or as much of it as is there.
fn record<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    if reader.u8()? != RECORD_HANDSHAKE {
        return Err(Stop::Malformed);
    }
    // The legacy version: 3.1 to 3.3 in the field.
    if reader.u8()? != 3 {
        return Err(Stop::Malformed);
    }
    reader.u8()?;
    let length = usize::from(reader.u16()?);
    // RFC 8446 section 5.1: never empty, at most 2^14.
    if length == 0 || length > 1 << 14 {
        return Err(Stop::Malformed);
    }
    let there = length.min(reader.rest().len());
    Ok(reader.take(there)?)
}

/// The server name in a handshake message that begins at the first byte of `handshake`.
#[must_use]
pub fn client_hello(handshake: &[u8]) -> Sniffed {
    match find_name(handshake) {
        Ok(Some(name)) => std::str::from_utf8(name)
            .ok()
            .and_then(Host::parse)
            .map_or(Sniffed::Nothing, Sniffed::from),
        Ok(None) | Err(Stop::Malformed) => Sniffed::Nothing,
        Err(Stop::Truncated) => Sniffed::NeedMore,
    }
}

fn find_name(handshake: &[u8]) -> Result<Option<&[u8]>, Stop> {
    let mut reader = Reader::new(handshake);
    if reader.u8()? != HANDSHAKE_CLIENT_HELLO {
        return Err(Stop::Malformed);
    }
    let length = usize::try_from(reader.u24()?).map_err(|_| Stop::Malformed)?;
    if length > HELLO_BYTES_MAX {
        return Err(Stop::Malformed);
    }
    let mut hello = Field::new(reader.rest(), length);
    hello.take(2 + 32)?; // legacy version, random
    let session_id = usize::from(hello.u8()?);
    hello.take(session_id)?;
    let cipher_suites = usize::from(hello.u16()?);
    hello.take(cipher_suites)?;
    let compression_methods = usize::from(hello.u8()?);
    hello.take(compression_methods)?;
    if hello.left == 0 {
        return Ok(None);
    }
    let length = usize::from(hello.u16()?);
    let mut extensions = hello.inner(length)?;
    while extensions.left > 0 {
        let kind = extensions.u16()?;
        let length = usize::from(extensions.u16()?);
        if kind == EXTENSION_SERVER_NAME {
            return host_name(extensions.inner(length)?);
        }
        extensions.take(length)?;
    }
    Ok(None)
}

/// The first host name of a `ServerNameList`.
fn host_name(mut extension: Field<'_>) -> Result<Option<&[u8]>, Stop> {
    let length = usize::from(extension.u16()?);
    let mut list = extension.inner(length)?;
    while list.left > 0 {
        let kind = list.u8()?;
        let length = usize::from(list.u16()?);
        let name = list.take(length)?;
        if kind == NAME_TYPE_HOST_NAME {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The bytes seen so far cannot be a hello.
    Malformed,
    /// They can; the rest has not come yet.
    Truncated,
}

impl From<Truncated> for Stop {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// A field whose length is declared but whose bytes may not all be there. A read past the
/// declared length is malformed, one past the bytes is truncated.
struct Field<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Field<'a> {
    fn new(bytes: &'a [u8], declared: usize) -> Self {
        Self {
            reader: Reader::new(bytes),
            left: declared,
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        let left = self.left.checked_sub(n).ok_or(Stop::Malformed)?;
        let taken = self.reader.take(n)?;
        self.left = left;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        Ok(Reader::new(self.take(1)?).u8()?)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        Ok(Reader::new(self.take(2)?).u16()?)
    }

    /// A field of `n` bytes within this one, which ends here: nothing is read behind it.
    fn inner(&mut self, n: usize) -> Result<Self, Stop> {
        if n > self.left {
            return Err(Stop::Malformed);
        }
        Ok(Self::new(self.reader.rest(), n))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What rustls sends first to a server of this name: one TLS record.
    pub(in crate::sniff) fn rustls_hello(name: &str) -> Vec<u8> {
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        hello
    }

    /// A hello with the given extensions, as one record.
    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            list.extend_from_slice(content);
        }
        body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        body.extend(list);
        let mut handshake = vec![1, 0];
        handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        handshake.extend(body);
        records(&handshake, 1 << 14)
    }

    /// `handshake` in records of at most `size` bytes.
    fn records(handshake: &[u8], size: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        for part in handshake.chunks(size) {
            stream.extend([22, 3, 1]);
            stream.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            stream.extend_from_slice(part);
        }
        stream
    }

    fn name_extension(name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(name.len()).unwrap();
        let mut content = (length + 3).to_be_bytes().to_vec();
        content.push(0);
        content.extend(length.to_be_bytes());
        content.extend_from_slice(name);
        content
    }

    fn host(name: &str) -> Sniffed {
        Sniffed::Host(name.into())
    }

    #[test]
    fn a_hello_of_rustls_tells_its_name() {
        assert_eq!(
            server_name(&rustls_hello("www.example.org")),
            host("www.example.org")
        );
    }

    #[test]
    fn a_hello_to_an_address_tells_nothing() {
        assert_eq!(server_name(&rustls_hello("192.0.2.1")), Sniffed::Nothing);
        for literal in [&b"192.0.2.1"[..], b"2001:db8::1", b"a b", b"", b"\xff.org"] {
            let stream = hello(&[(0, &name_extension(literal))]);
            assert_eq!(server_name(&stream), Sniffed::Nothing, "{literal:?}");
        }
    }

    #[test]
    fn every_prefix_of_a_hello_needs_more_until_the_name_is_there() {
        let stream = rustls_hello("www.example.org");
        let mut known = false;
        for end in 0..=stream.len() {
            match server_name(&stream[..end]) {
                Sniffed::NeedMore => assert!(!known),
                answer => {
                    assert_eq!(answer, host("www.example.org"));
                    known = true;
                }
            }
        }
        assert!(known);
    }

    #[test]
    fn a_hello_may_span_many_records() {
        let handshake = rustls_hello("split.example.org")[5..].to_vec();
        for size in [1, 2, 3, 50, 100] {
            assert_eq!(
                server_name(&records(&handshake, size)),
                host("split.example.org")
            );
        }
    }

    #[test]
    fn grease_and_unknown_extensions_are_skipped() {
        let name = name_extension(b"Example.ORG.");
        let stream = hello(&[
            (0x0a0a, b""),
            (0xfe0d, &[9; 200]),
            (0xffff, b"x"),
            (0, &name),
            (0x1a1a, b"\0"),
        ]);
        assert_eq!(server_name(&stream), host("example.org"));
    }

    #[test]
    fn a_hello_without_the_extension_tells_nothing() {
        assert_eq!(server_name(&hello(&[(0x0a0a, b"")])), Sniffed::Nothing);
        assert_eq!(server_name(&hello(&[])), Sniffed::Nothing);
    }

    #[test]
    fn other_protocols_are_refused_by_their_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0-x\r\n",
            b"\x16\x02",
            b"\x17\x03\x03",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x00\x04\x02",
        ] {
            assert_eq!(server_name(bytes), Sniffed::Nothing, "{bytes:?}");
        }
        assert_eq!(server_name(b""), Sniffed::NeedMore);
    }

    #[test]
    fn lengths_that_contradict_each_other_tell_nothing() {
        // The name claims to be longer than the list that holds it.
        let stream = hello(&[(0, b"\x00\x06\x00\x00\x09abc")]);
        assert_eq!(server_name(&stream), Sniffed::Nothing);
    }

    #[test]
    fn an_endless_hello_is_given_up_at_the_limit() {
        let mut handshake = vec![1, 0, 0x3f, 0xff, 3, 3];
        handshake.extend([0; 32]);
        handshake.extend([0, 0x3f, 0xd0]);
        handshake.extend([0; HELLO_BYTES_MAX]);
        let stream = records(&handshake, 16);
        assert_eq!(
            server_name(&stream[..HELLO_BYTES_MAX - 1]),
            Sniffed::NeedMore
        );
        assert_eq!(server_name(&stream[..HELLO_BYTES_MAX]), Sniffed::Nothing);
        assert_eq!(server_name(&stream), Sniffed::Nothing);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = server_name(&bytes);
            let _ = client_hello(&bytes);
        }

        #[test]
        fn damaged_hellos_never_panic_and_answers_stay(
            at in 0usize..240,
            value in any::<u8>(),
            size in 1usize..300,
        ) {
            let mut handshake = rustls_hello("www.example.org")[5..].to_vec();
            if let Some(byte) = handshake.get_mut(at) {
                *byte = value;
            }
            let stream = records(&handshake, size);
            let whole = server_name(&stream);
            for end in 0..stream.len() {
                let part = server_name(&stream[..end]);
                prop_assert!(part == Sniffed::NeedMore || part == whole);
            }
        }
    }
}
