//! WebSocket frames of either end, of a client that only listens, and the answer to an upgrade. Input: which,
//! sizes of the pieces, bytes.
//! However the bytes are cut, the same data comes out up to the same end.
#![no_main]

use headgate::outbound::framed::{Codec, Step};
use headgate::outbound::scratch::Scratch;
use headgate::outbound::transport::upgrade;
use headgate::outbound::transport::websocket::{Frames, Role};
use headgate::websocket::{Incoming, Refused, Said};
use headgate_fuzz::Input;
use headgate_fuzz::network::pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.byte();
    let sizes = input.chunk().to_vec();
    let bytes = input.rest();
    if flags & 2 != 0 {
        let key = [7; 16];
        if let Ok(Some(length)) = upgrade::answer(bytes, (flags & 4 != 0).then_some(&key)) {
            assert!(length <= bytes.len());
        }
        return;
    }
    if flags & 8 != 0 {
        assert!(listen(&pieces(bytes, &sizes)) == listen(&[bytes.to_vec()]));
        return;
    }
    let role = if flags & 1 == 0 {
        Role::Client
    } else {
        Role::Server
    };
    let whole = read(role, &[bytes.to_vec()]);
    assert!(read(role, &pieces(bytes, &sizes)) == whole);
});

/// The data, and whether it ended in an error.
fn read(role: Role, pieces: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let mut frames = Frames::new(role);
    let mut incoming = Scratch::large();
    let mut data = Vec::new();
    for piece in pieces {
        if incoming.push(piece).is_err() {
            return (data, true);
        }
        loop {
            match frames.decode(&mut incoming) {
                Ok(Step::Opened(plain, trailer)) => {
                    data.extend_from_slice(&incoming.data()[..plain]);
                    incoming.consume(plain + trailer);
                }
                Ok(Step::NeedMore(_)) => break,
                Ok(Step::End) => return (data, false),
                Err(_) => return (data, true),
            }
        }
    }
    (data, false)
}

/// What a listener says, and whether it ended in an error.
fn listen(pieces: &[Vec<u8>]) -> (Vec<Said>, bool) {
    let (mut incoming, mut bytes, mut heard) = (Incoming::default(), Vec::new(), Vec::new());
    for piece in pieces {
        bytes.extend_from_slice(piece);
        loop {
            match incoming.next(&mut bytes) {
                Ok(Some(said)) => heard.push(said),
                Ok(None) => break,
                Err(Refused) => return (heard, true),
            }
        }
        assert!(bytes.len() < 140);
    }
    (heard, false)
}
