//! VLESS's requests and datagrams, mux.cool's frames, and the flow's blocks. Input: which, bytes.
//! What was read, written again, is read alike.
#![no_main]

use headgate::outbound::mux::frames::{self, UdpFrames};
use headgate::outbound::packets::PacketCodec;
use headgate::outbound::scratch::Scratch;
use headgate::outbound::vless::codec::{self, Packets};
use headgate::outbound::vless::vision::{Inner, Padder, Unpadder, Way};
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let which = input.byte();
    let bytes = input.rest();
    let mut incoming = Scratch::large();
    if incoming.push(bytes).is_err() {
        return;
    }
    match which % 6 {
        0 => {
            if let Ok(Some(request)) = codec::decode_request(bytes) {
                assert!(request.length <= bytes.len());
                let flow = String::from_utf8_lossy(request.flow);
                let again = codec::request(&request.id, &flow, &request.command).unwrap();
                let read = codec::decode_request(&again).unwrap().unwrap();
                assert_eq!((read.id, read.command), (request.id, request.command));
            }
        }
        1 => {
            if let Ok(Some(frame)) = frames::decode(bytes) {
                assert!(frame.length <= bytes.len());
                let address = frame.address.as_ref().map(|(network, at)| (*network, at));
                let data = frame.data.clone().map(|range| &bytes[range]);
                let mut out = Scratch::large();
                if frames::encode(frame.id, frame.status, address, &[], data, &mut out).is_ok() {
                    let read = frames::decode(out.data()).unwrap().unwrap();
                    assert_eq!((read.id, read.status), (frame.id, frame.status));
                    assert_eq!(read.address, frame.address);
                }
            }
        }
        2 => drain(&mut UdpFrames::by_destination(), &mut incoming),
        3 => drain(&mut Packets::fixed(), &mut incoming),
        4 => vision(bytes, usize::from(which / 6) + 1),
        _ => drain(&mut Packets::addressed(), &mut incoming),
    }
});

/// What two ends say to each other in pieces of that size arrives; and whatever else comes is survived.
fn vision(bytes: &[u8], size: usize) {
    let id = [7; 16];
    let _refused = Unpadder::new(id).open(&mut bytes.to_vec());
    let _refused = Unpadder::new(id).open(&mut [&id, bytes].concat());
    let (mut padder, mut unpadder) = (Padder::new(id), Unpadder::new(id));
    let mut inner = Inner::default();
    let (mut rest, mut got) = (bytes, Vec::new());
    while !rest.is_empty() {
        let mut wire = rest.to_vec();
        let mut sent = rest.len();
        if padder.way() == Way::Padded {
            let piece = &rest[..size.min(rest.len())];
            inner.look(piece);
            let mut out = Scratch::large();
            sent = padder
                .pad(&inner, piece, &|limit| Ok(size as u16 % limit), &mut out)
                .unwrap();
            wire = out.data().to_vec();
        }
        assert!(sent > 0);
        let n = unpadder.open(&mut wire).unwrap();
        got.extend_from_slice(&wire[..n]);
        assert_eq!(unpadder.way(), padder.way());
        rest = &rest[sent..];
    }
    assert_eq!(got, bytes);
}

fn drain(codec: &mut dyn PacketCodec, incoming: &mut Scratch) {
    while let Ok(Some(packet)) = codec.decode(incoming) {
        assert!(packet.payload.end <= packet.length && packet.length <= incoming.len());
        incoming.consume(packet.length);
    }
}
