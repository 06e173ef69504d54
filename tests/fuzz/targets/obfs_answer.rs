//! What a server of simple-obfs answers. Input: which disguise, sizes of the pieces, bytes. However the
//! bytes are cut, the same data comes out.
#![no_main]

use headgate::outbound::framed::{Codec, Step};
use headgate::outbound::scratch::Scratch;
use headgate::outbound::shadowsocks::obfs::{Disguise, Obfs};
use headgate_fuzz::Input;
use headgate_fuzz::network::pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let disguise = match input.byte() & 1 {
        0 => Disguise::Http,
        _ => Disguise::Tls,
    };
    let sizes = input.chunk().to_vec();
    // An endless head ends the stream wherever it was cut.
    let bytes = &input.rest()[..input.rest().len().min(8000)];
    let whole = read(disguise, &[bytes.to_vec()]);
    assert!(read(disguise, &pieces(bytes, &sizes)) == whole);
});

fn read(disguise: Disguise, pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut obfs = Obfs::new(disguise, "front.test");
    let mut incoming = Scratch::large();
    let mut data = Vec::new();
    for piece in pieces {
        if incoming.push(piece).is_err() {
            return data;
        }
        while let Ok(Step::Opened(plain, _)) = obfs.decode(&mut incoming) {
            data.extend_from_slice(&incoming.data()[..plain]);
            incoming.consume(plain);
        }
    }
    data
}
