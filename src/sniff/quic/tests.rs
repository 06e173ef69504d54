//! Tests of the QUIC sniffer: the standards' own packets, and hellos made by rustls.

use proptest::prelude::*;
use ring::aead::quic::HeaderProtectionKey;

use super::super::tls::tests::rustls_hello;
use super::*;

/// The CRYPTO frame of RFC 9001 appendix A.2, the same in RFC 9369 appendix A.2.
const CRYPTO_FRAME: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578\
    616d706c652e636f6dff01000100000a00080006001d00170018001000070005\
    04616c706e000500050100000000003300260024001d00209370b2c9caa47fba\
    baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400\
    0d0010000e0403050306030203080408050806002d00020101001c0002400100\
    3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000\
    75300901100f088394c8f03e51570806048000ffff";

const DESTINATION_ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Protects a packet as a client does: `header` ends with the packet number of four bytes.
fn protect(header: &[u8], payload: &[u8], origin: &Origin) -> Vec<u8> {
    let keys = Keys::derive(origin).unwrap();
    let number_at = header.len() - 4;
    let mut nonce = keys.iv;
    for (nonce, byte) in nonce[8..].iter_mut().zip(&header[number_at..]) {
        *nonce ^= byte;
    }
    let mut sealed = payload.to_vec();
    keys.packet
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(header),
            &mut sealed,
        )
        .unwrap();
    let mut packet = [header, &sealed].concat();
    mask(&mut packet, number_at, &keys.header);
    packet
}

fn mask(packet: &mut [u8], number_at: usize, key: &HeaderProtectionKey) {
    let mask = key
        .new_mask(&packet[number_at + 4..number_at + 20])
        .unwrap();
    packet[0] ^= mask[0] & 0x0f;
    for (byte, mask) in packet[number_at..number_at + 4].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

fn origin(version: Version, id: &[u8]) -> Origin {
    Origin {
        version,
        id: id.into(),
    }
}

/// An Initial packet to `id` with the keys of `origin`, padded as the standard asks.
fn initial(id: &[u8], origin: &Origin, number: u8, frames: &[u8]) -> Vec<u8> {
    let mut payload = frames.to_vec();
    payload.resize(frames.len().max(1000), 0);
    let mut header = match origin.version {
        Version::V1 => vec![0xc3, 0, 0, 0, 1],
        Version::V2 => vec![0xd3, 0x6b, 0x33, 0x43, 0xcf],
    };
    header.push(u8::try_from(id.len()).unwrap());
    header.extend_from_slice(id);
    header.extend([0, 0]); // no source ID, no token
    let length = u16::try_from(4 + payload.len() + 16).unwrap() | 0x4000;
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, number]);
    protect(&header, &payload, origin)
}

fn crypto(offset: usize, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![6];
    for value in [offset, content.len()] {
        frame.extend((u16::try_from(value).unwrap() | 0x4000).to_be_bytes());
    }
    frame.extend_from_slice(content);
    frame
}

fn hello(name: &str) -> Vec<u8> {
    rustls_hello(name)[5..].to_vec()
}

fn host(name: &str) -> Sniffed {
    Sniffed::Host(name.into())
}

/// Seals the standard's plain packet, compares it with what the standard prints of the sealed
/// one (its tag covers every byte), and reads the name from it.
#[track_caller]
fn check_vector(version: Version, header: &str, front: &str, back: &str) {
    let mut payload = unhex(CRYPTO_FRAME);
    payload.resize(1162, 0);
    let packet = protect(&unhex(header), &payload, &origin(version, &DESTINATION_ID));
    assert_eq!(packet.len(), 1200);
    assert!(packet.starts_with(&unhex(front)));
    assert!(packet.ends_with(&unhex(back)));
    assert_eq!(Initial::default().datagram(&packet), host("example.com"));
}

#[test]
fn the_packet_of_rfc_9001_appendix_a_2_names_example_com() {
    check_vector(
        Version::V1,
        "c300000001088394c8f03e5157080000449e00000002",
        "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11",
        "e221af44860018ab0856972e194cd934",
    );
}

#[test]
fn the_packet_of_rfc_9369_appendix_a_2_names_example_com() {
    check_vector(
        Version::V2,
        "d36b3343cf088394c8f03e5157080000449e00000002",
        "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485",
        "a18b2faa745b6fe189cf772a9f84cbfc",
    );
}

#[test]
fn crypto_frames_come_in_any_order_between_other_frames() {
    let hello = hello("www.example.org");
    let keys = origin(Version::V1, b"somewhere");
    let frames = [
        crypto(100, &hello[100..]),
        vec![1, 0, 0, 2, 5, 0, 1, 0, 0, 0, 3, 1, 0, 0, 0, 1, 1, 1],
        crypto(0, &hello[..60]),
        crypto(50, &hello[50..110]),
    ]
    .concat();
    let packet = initial(b"somewhere", &keys, 0, &frames);
    assert_eq!(
        Initial::default().datagram(&packet),
        host("www.example.org")
    );
}

#[test]
fn a_hello_may_span_coalesced_packets_and_datagrams() {
    let hello = hello("www.example.org");
    let keys = origin(Version::V2, b"abcdefgh");
    let part = |number: u8, at: usize, end: usize| {
        initial(b"abcdefgh", &keys, number, &crypto(at, &hello[at..end]))
    };
    let mut state = Initial::default();
    let two = [part(1, 80, hello.len()), part(2, 20, 80)].concat();
    assert_eq!(state.datagram(&two), Sniffed::NeedMore);
    // A repetition and somebody else's datagram change nothing.
    assert_eq!(state.datagram(&two), Sniffed::NeedMore);
    assert_eq!(state.datagram(b"\x40 short header"), Sniffed::NeedMore);
    assert_eq!(state.datagram(&part(0, 0, 20)), host("www.example.org"));
}

#[test]
fn later_packets_carry_the_servers_id_and_keep_the_first_keys() {
    let hello = hello("www.example.org");
    let keys = origin(Version::V1, b"clients-choice");
    let mut state = Initial::default();
    let first = initial(b"clients-choice", &keys, 0, &crypto(0, &hello[..30]));
    assert_eq!(state.datagram(&first), Sniffed::NeedMore);
    let second = initial(b"servers", &keys, 1, &crypto(30, &hello[30..]));
    assert_eq!(state.datagram(&second), host("www.example.org"));
}

#[test]
fn after_a_retry_the_hello_begins_anew() {
    let (old, new) = (hello("a.example.org"), hello("www.example.org"));
    let mut state = Initial::default();
    let first = initial(
        b"first",
        &origin(Version::V1, b"first"),
        0,
        &crypto(0, &old[..30]),
    );
    assert_eq!(state.datagram(&first), Sniffed::NeedMore);
    let keys = origin(Version::V1, b"from the retry");
    let again = initial(b"from the retry", &keys, 1, &crypto(0, &new));
    assert_eq!(state.datagram(&again), host("www.example.org"));
}

#[test]
fn what_is_not_quic_tells_nothing_at_once() {
    for bytes in [
        &b""[..],
        b"\x12\x34\x01\x00\x00\x01",
        b"\xc0\x00\x00\x00\x00\x00\x00",
        b"\xc0\xff\x00\x00\x1d\x08",
        b"\xc0\x00\x00\x00\x01\xff",
    ] {
        assert_eq!(Initial::default().datagram(bytes), Sniffed::Nothing);
    }
    // An Initial header around bytes that do not open.
    let mut packet = initial(b"id", &origin(Version::V1, b"id"), 0, &crypto(0, b"\x01"));
    *packet.last_mut().unwrap() ^= 1;
    assert_eq!(Initial::default().datagram(&packet), Sniffed::Nothing);
}

#[test]
fn a_client_that_never_says_its_name_is_given_up() {
    let keys = origin(Version::V1, b"id");
    let mut state = Initial::default();
    let packet = initial(b"id", &keys, 0, &crypto(0, b"\x01"));
    for _ in 1..DATAGRAMS_MAX {
        assert_eq!(state.datagram(&packet), Sniffed::NeedMore);
    }
    assert_eq!(state.datagram(&packet), Sniffed::Nothing);
}

#[test]
fn bytes_and_frames_kept_are_bounded() {
    let keys = origin(Version::V1, b"id");
    let far = initial(b"id", &keys, 0, &crypto(HELLO_BYTES_MAX - 1, b"x"));
    let mut state = Initial::default();
    assert_eq!(state.datagram(&far), Sniffed::NeedMore);
    let beyond = [6, 0x80, 0, 0x40, 0, 1, 0];
    let beyond = initial(b"id", &keys, 1, &beyond);
    assert_eq!(state.datagram(&beyond), Sniffed::Nothing);

    let crumbs: Vec<u8> = (0..CHUNKS_MAX)
        .flat_map(|at| crypto(2 * at, b"x"))
        .collect();
    let mut state = Initial::default();
    state.datagram(&initial(b"id", &keys, 0, &crumbs));
    let one_more = initial(b"id", &keys, 1, &crypto(5000, b"x"));
    assert_eq!(state.datagram(&one_more), Sniffed::Nothing);
    assert!(state.chunks.len() <= CHUNKS_MAX && state.crypto_bytes <= CRYPTO_BYTES_MAX);
}

proptest! {
    #[test]
    fn random_datagrams_never_panic(
        head in prop_oneof![Just(vec![]), Just(vec![0xc0, 0, 0, 0, 1]), Just(vec![0xd0, 0x6b, 0x33, 0x43, 0xcf])],
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut state = Initial::default();
        let datagram = [head, bytes].concat();
        let _ = state.datagram(&datagram);
        let _ = state.datagram(&datagram);
    }

    #[test]
    fn random_frames_never_panic(frames in proptest::collection::vec(any::<u8>(), 0..200)) {
        let keys = origin(Version::V1, b"id");
        let mut state = Initial::default();
        let _ = state.datagram(&initial(b"id", &keys, 0, &frames));
        prop_assert!(state.crypto_bytes <= 1000, "more than the packet held");
    }

    #[test]
    fn any_cut_of_a_hello_in_any_order_gives_its_name(
        cuts in proptest::collection::vec(1usize..150, 0..8),
        seed in any::<u64>(),
    ) {
        let hello = hello("www.example.org");
        let mut edges: Vec<usize> = cuts.into_iter().filter(|at| *at < hello.len()).collect();
        edges.extend([0, hello.len()]);
        edges.sort_unstable();
        edges.dedup();
        let mut parts: Vec<(usize, usize)> = edges.windows(2).map(|w| (w[0], w[1])).collect();
        parts.sort_by_key(|(at, _)| (*at as u64).wrapping_mul(seed | 1) >> 7);
        let keys = origin(Version::V1, b"id");
        let mut state = Initial::default();
        let mut answer = Sniffed::NeedMore;
        for (number, (at, end)) in parts.into_iter().enumerate() {
            prop_assert_eq!(&answer, &Sniffed::NeedMore);
            let frames = crypto(at, &hello[at..end]);
            let packet = initial(b"id", &keys, u8::try_from(number).unwrap(), &frames);
            answer = state.datagram(&packet);
            if answer != Sniffed::NeedMore {
                break;
            }
        }
        prop_assert_eq!(answer, host("www.example.org"));
    }
}
