//! What a server of sing-mux sends: padding, heads of smux and yamux, datagrams. Input: which, sizes of the
//! pieces, bytes. However the bytes are cut, the same data comes out.
#![no_main]

use headgate::outbound::framed::{Codec, Step};
use headgate::outbound::mux::sing::frame::Dialect;
use headgate::outbound::mux::sing::request::{Packets, Padding, answer_length};
use headgate::outbound::packets::PacketCodec;
use headgate::outbound::scratch::Scratch;
use headgate_fuzz::Input;
use headgate_fuzz::network::pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let which = input.byte();
    let sizes = input.chunk().to_vec();
    let bytes = &input.rest()[..input.rest().len().min(8000)];
    match which & 3 {
        0 => assert!(read(&pieces(bytes, &sizes)) == read(&[bytes.to_vec()])),
        1 => datagrams(bytes),
        2 => heads(Dialect::Smux, bytes),
        _ => heads(Dialect::Yamux, bytes),
    }
    if let Ok(Some(length)) = answer_length(bytes) {
        assert!(length <= bytes.len());
    }
});

fn read(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut padding = Padding::default();
    let mut incoming = Scratch::large();
    let mut data = Vec::new();
    for piece in pieces {
        incoming.push(piece).expect("room for 8000 bytes");
        while let Ok(Step::Opened(plain, _)) = padding.decode(&mut incoming) {
            data.extend_from_slice(&incoming.data()[..plain]);
            incoming.consume(plain);
        }
    }
    data
}

fn datagrams(bytes: &[u8]) {
    let mut incoming = Scratch::large();
    incoming.push(bytes).expect("room for 8000 bytes");
    while let Ok(Some(packet)) = Packets.decode(&mut incoming) {
        let whole = incoming.data()[..packet.length].to_vec();
        let payload = incoming.data()[packet.payload].to_vec();
        let address = packet.address.expect("every datagram has one");
        let mut again = Scratch::large();
        // A literal in the form of a name is written as what it spells.
        if Packets.encode(&payload, &address, &mut again).is_ok() {
            assert!(again.len() <= whole.len() + 16);
        }
        incoming.consume(packet.length);
    }
}

fn heads(dialect: Dialect, mut bytes: &[u8]) {
    while let Ok(Some(head)) = dialect.decode(bytes) {
        bytes = &bytes[dialect.head_bytes()..];
        let payload = (head.payload as usize).min(bytes.len());
        let mut out = Vec::new();
        let taken = dialect.data(head.stream, &bytes[..payload], &mut out);
        let again = dialect.decode(&out).expect("our own head").expect("whole");
        assert_eq!((again.stream, again.payload as usize), (head.stream, taken));
        bytes = &bytes[payload..];
    }
}
