//! Bodies at the HTTP inbound: cuts make no difference, and where the controllers' decoder of the
//! chunked coding ends, this one does too.
#![no_main]

use headgate::controllers::http::chunked::Chunked;
use headgate::inbound::http::body::{Body, Framing};
use headgate_fuzz::{Input, cuts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let framing = match input.byte() % 4 {
        0 => Framing::UntilClose,
        1 => Framing::Length(u64::from_be_bytes(input.array())),
        _ => Framing::Chunked,
    };
    let bytes = input.rest();
    let mut body = Body::new(framing);
    let whole = body.take(bytes);
    if let Ok(length) = whole {
        assert!(length <= bytes.len() && (length == bytes.len() || body.is_done()));
        for cut in cuts(bytes.len(), 0) {
            let mut body = Body::new(framing);
            let mut taken = body.take(&bytes[..cut]).unwrap();
            if taken == cut {
                taken += body.take(&bytes[cut..]).unwrap();
            }
            assert_eq!(taken, length);
        }
    }
    if framing != Framing::Chunked {
        return;
    }
    let (mut decoder, mut decoded) = (Chunked::default(), Vec::new());
    if let Ok(length) = decoder.decode(bytes, &mut decoded)
        && decoder.is_done()
    {
        assert_eq!(whole, Ok(length));
        assert!(body.is_done());
    }
});
