//! VMess's headers and chunks. Input: options, security, sizes of the pieces, bytes. However chunks are
//! cut, the same data comes out up to the same end.
#![no_main]

use headgate::outbound::framed::Step;
use headgate::outbound::scratch::Scratch;
use headgate::outbound::vmess::body::{Agreement, Chunks, Content, Security};
use headgate::outbound::vmess::header::{self, PREFIX, Request};
use headgate::outbound::vmess::keys::{UserKey, fnv1a};
use headgate_fuzz::Input;
use headgate_fuzz::network::pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let [options, security, flags] = input.array();
    let sizes = input.chunk().to_vec();
    let bytes = input.rest();
    if flags & 1 != 0 {
        let mut summed = bytes.to_vec();
        summed.extend(fnv1a(bytes).to_be_bytes());
        let _request = Request::decode(&summed);
        let user = UserKey::new([1; 16]).unwrap();
        if let Some(prefix) = bytes.first_chunk::<PREFIX>() {
            let _length = header::request_length(&user, prefix);
            let _request = header::open_request(&user, prefix, &mut bytes[PREFIX..].to_vec());
        }
        return;
    }
    let agreement = Agreement {
        key: [1; 16],
        iv: [2; 16],
        options,
        security: Security::from_number(3 + security % 3).unwrap(),
        content: if flags & 2 == 0 {
            Content::Stream
        } else {
            Content::Packets
        },
    };
    let mut sealed = bytes.to_vec();
    if flags & 4 != 0 {
        let mut out = Scratch::take(Chunks::room(bytes.len().min(40_000)));
        let mut sender = Chunks::new(&agreement, agreement.key, agreement.iv);
        sender
            .encode(&bytes[..bytes.len().min(40_000)], &mut out)
            .unwrap();
        sealed = out.data().to_vec();
    }
    let whole = read(&agreement, &[sealed.clone()]);
    assert!(read(&agreement, &pieces(&sealed, &sizes)) == whole);
    if flags & 4 != 0 {
        assert!(bytes[..bytes.len().min(40_000)].starts_with(&whole.0) && !whole.1);
    }
});

/// The data, and whether it ended in an error.
fn read(agreement: &Agreement, pieces: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let mut chunks = Chunks::new(agreement, agreement.key, agreement.iv);
    let mut incoming = Scratch::large();
    let mut data = Vec::new();
    for piece in pieces {
        incoming.reserve(incoming.len() + piece.len());
        if incoming.push(piece).is_err() {
            return (data, true);
        }
        loop {
            match chunks.decode(&mut incoming) {
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
