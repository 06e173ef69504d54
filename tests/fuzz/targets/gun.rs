//! gRPC's messages around a byte stream. Input: sizes of the pieces, bytes. However the bytes are cut, the
//! same data comes out up to the same end; what is written reads back.
#![no_main]

use bytes::Bytes;
use headgate::outbound::transport::gun::{self, Messages};
use headgate_fuzz::Input;
use headgate_fuzz::network::pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let sizes = input.chunk().to_vec();
    let bytes = input.rest();
    let whole = read(&[bytes.to_vec()]);
    assert!(whole.0.len() <= bytes.len());
    assert!(read(&pieces(bytes, &sizes)) == whole);
    let (message, taken) = gun::message(bytes, bytes.len());
    assert!(read(&[message.to_vec()]) == (bytes[..taken].to_vec(), Some(true)));
});

/// The data, and whether it may end there; `None`: it broke.
fn read(pieces: &[Vec<u8>]) -> (Vec<u8>, Option<bool>) {
    let mut messages = Messages::default();
    let mut data = Vec::new();
    for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match messages.take(&mut piece) {
                Ok(payload) if payload.is_empty() => break,
                Ok(payload) => data.extend_from_slice(&payload),
                Err(_) => return (data, None),
            }
        }
    }
    (data, Some(messages.may_end()))
}
