//! VLESS's requests and datagrams, and mux.cool's frames. Input: which, bytes.
//! What was read, written again, is read alike.
#![no_main]

use headgate::outbound::mux::frames::{self, UdpFrames};
use headgate::outbound::packets::PacketCodec;
use headgate::outbound::scratch::Scratch;
use headgate::outbound::vless::codec::{self, Packets};
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
    match which % 5 {
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
        _ => drain(&mut Packets::addressed(), &mut incoming),
    }
});

fn drain(codec: &mut dyn PacketCodec, incoming: &mut Scratch) {
    while let Ok(Some(packet)) = codec.decode(incoming) {
        assert!(packet.payload.end <= packet.length && packet.length <= incoming.len());
        incoming.consume(packet.length);
    }
}
