//! QUIC Initial packets. The first byte chooses: datagrams as they come, packets of any frames
//! under the right keys, or a hello cut into frames out of order, which must give the name that
//! the whole hello gives.
#![no_main]

use headgate::sniff::quic::{DATAGRAMS_MAX, Initial};
use headgate::sniff::{Sniffed, tls};
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use ring::aead::quic::{AES_128, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut initial = Initial::default();
    match input.byte() % 3 {
        0 => {
            let mut datagrams = 0;
            while !input.is_empty() && initial.datagram(input.long_chunk()) == Sniffed::NeedMore {
                datagrams += 1;
                assert!(datagrams < DATAGRAMS_MAX);
            }
        }
        1 => {
            let keys = Keys::new(input.byte() & 1 == 1, input.take(8));
            let mut datagram = Vec::new();
            while !input.is_empty() {
                let how = input.byte();
                datagram.extend(keys.packet(how, input.long_chunk()));
                if how & 0x80 != 0 {
                    continue;
                }
                if initial.datagram(&datagram) != Sniffed::NeedMore {
                    return;
                }
                datagram.clear();
            }
        }
        _ => hello(&mut initial, &mut input),
    }
});

/// Sends a hello in frames of up to 63 times 64 bytes, in an order that the input chooses.
fn hello(initial: &mut Initial, input: &mut Input<'_>) {
    let keys = Keys::new(input.byte() & 1 == 1, input.take(8));
    let order = input.chunk();
    let hello = input.rest();
    let size = hello.len() / 60 + 1;
    let mut parts: Vec<(usize, &[u8])> = hello
        .chunks(size)
        .enumerate()
        .map(|(i, part)| (i * size, part))
        .collect();
    for (i, with) in order.iter().enumerate().take(parts.len()) {
        let with = usize::from(*with) % parts.len();
        parts.swap(i, with);
    }
    if hello.is_empty() || hello.len() > 4000 {
        return;
    }
    let whole = tls::client_hello(hello);
    let per_packet = parts.len().div_ceil(DATAGRAMS_MAX - 1);
    for (n, frames) in parts.chunks(per_packet).enumerate() {
        let mut payload = Vec::new();
        for (offset, content) in frames {
            payload.extend([6, 0x80, 0, (offset >> 8) as u8, *offset as u8]);
            payload.extend([0x40 | (content.len() >> 8) as u8, content.len() as u8]);
            payload.extend_from_slice(content);
        }
        let got = initial.datagram(&keys.packet(n as u8 & 0x0f, &payload));
        if got != Sniffed::NeedMore {
            return assert_eq!(got, whole);
        }
    }
    assert_eq!(whole, Sniffed::NeedMore);
}

/// A client's Initial keys (RFC 9001 section 5.2, RFC 9369 section 3.3).
struct Keys {
    v2: bool,
    id: Vec<u8>,
    packet: LessSafeKey,
    iv: [u8; 12],
    header: HeaderProtectionKey,
}

impl Keys {
    fn new(v2: bool, id: &[u8]) -> Self {
        let salt: [u8; 20] = if v2 {
            *b"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9"
        } else {
            *b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a"
        };
        let quic = if v2 { "quicv2" } else { "quic" };
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(id);
        let secret =
            hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &expand::<32>(&secret, "client in"));
        let key: [u8; 16] = expand(&secret, &format!("{quic} key"));
        let header: [u8; 16] = expand(&secret, &format!("{quic} hp"));
        Self {
            v2,
            id: id.to_vec(),
            packet: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap()),
            iv: expand(&secret, &format!("{quic} iv")),
            header: HeaderProtectionKey::new(&AES_128, &header).unwrap(),
        }
    }

    /// An Initial packet with a number of four bytes.
    fn packet(&self, number: u8, frames: &[u8]) -> Vec<u8> {
        let (first, version) = if self.v2 {
            (0xd3, 0x6b33_43cf_u32)
        } else {
            (0xc3, 1)
        };
        let mut packet = vec![first];
        packet.extend(version.to_be_bytes());
        packet.push(self.id.len() as u8);
        packet.extend_from_slice(&self.id);
        packet.extend([0, 0]);
        // The sample begins four bytes behind the packet number: an empty packet has no room.
        let mut sealed = frames.to_vec();
        sealed.resize(frames.len().max(4), 0);
        packet.extend((0x8000_0000 | (sealed.len() + 20) as u32).to_be_bytes());
        let number_at = packet.len();
        packet.extend([0, 0, 0, number & 0x7f]);
        let mut nonce = self.iv;
        nonce[11] ^= number & 0x7f;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.packet
            .seal_in_place_append_tag(nonce, Aad::from(&packet), &mut sealed)
            .unwrap();
        packet.extend(sealed);
        let mask = self
            .header
            .new_mask(&packet[number_at + 4..number_at + 20])
            .unwrap();
        packet[0] ^= mask[0] & 0x0f;
        for (byte, mask) in packet[number_at..number_at + 4].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
        packet
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand<const N: usize>(secret: &hkdf::Prk, label: &str) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let info = [&[0, N as u8, label.len() as u8], label.as_bytes(), &[0]];
    let mut out = [0; N];
    secret
        .expand(&info, Length(N))
        .unwrap()
        .fill(&mut out)
        .unwrap();
    out
}
