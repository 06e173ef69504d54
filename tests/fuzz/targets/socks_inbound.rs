//! What clients of the SOCKS inbound send: each message is whole at one length and at no shorter
//! one, no message is waited for beyond the limit, and addresses survive the way out.
#![no_main]

use std::fmt::Debug;

use headgate::inbound::socks::codec::{
    Decoded, MESSAGE_BYTES_MAX, Reply, datagram, greeting, login, reply, reply_datagram, request,
    request_4,
};
use headgate_fuzz::cuts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    framed(data, greeting);
    framed(data, login);
    framed(data, request);
    framed(data, request_4);
    if let Some((to, payload)) = datagram(data) {
        assert!(data.ends_with(payload));
        let again = reply_datagram(&to, payload);
        assert_eq!(datagram(&again), Some((to, payload)));
    }
    if let Some((bytes, port)) = data.split_first_chunk::<16>() {
        let bound = std::net::Ipv6Addr::from(*bytes);
        let bound = (bound, port.len() as u16).into();
        let answer = reply(Reply::Succeeded, bound);
        // A reply has the form of a request.
        let (again, length) = request(&answer).unwrap().unwrap();
        assert_eq!((again.destination, length), (bound.into(), answer.len()));
    }
});

fn framed<'a, T: Debug + PartialEq>(data: &'a [u8], decode: impl Fn(&'a [u8]) -> Decoded<T>) {
    match decode(data) {
        Ok(Some((message, length))) => {
            assert!(length <= data.len() && length <= MESSAGE_BYTES_MAX);
            assert_eq!(decode(&data[..length]), Ok(Some((message, length))));
            for cut in cuts(length, 0).filter(|cut| *cut < length) {
                assert_eq!(decode(&data[..cut]), Ok(None));
            }
        }
        Ok(None) => assert!(data.len() < MESSAGE_BYTES_MAX, "waits for ever"),
        Err(_) => {}
    }
}
