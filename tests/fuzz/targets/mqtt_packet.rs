//! What clients send the broker: CONNECT, then packets of the version that it names. Input: bytes.
//! Packets in pieces are the same packets; what is read, written again, is read alike; the broker
//! takes any of them and stays sound.
#![no_main]

use std::net::SocketAddr;

use headgate::mqtt::broker::{Admitted, Broker};
use headgate::mqtt::codec::{Framed, Packet, Version, decode, encode, frame};
use headgate::mqtt::options::{Limits, Options};
use libfuzzer_sys::fuzz_target;

const BYTES_MAX: usize = 4096;
const NOW: u64 = 1 << 40;

fuzz_target!(|data: &[u8]| {
    let options = Options {
        acl_default: true,
        limits: Limits {
            queue_max: 20,
            retained_max: 20,
            sessions_max: 4,
            ..Limits::default()
        },
        ..Options::default()
    };
    let mut broker = Broker::new(&options);
    let mut session = None;
    let (mut rest, mut version, mut now, mut link) = (data, Version::V4, NOW, 0);
    while let Ok(Framed::Whole(whole)) = frame(rest, BYTES_MAX) {
        let length = whole.length;
        assert!(length <= rest.len());
        // One byte less is not whole.
        assert!(!matches!(
            frame(&rest[..length - 1], BYTES_MAX),
            Ok(Framed::Whole(_))
        ));
        let Ok(packet) = decode(whole, version) else {
            return;
        };
        if let Packet::Connect(connect) = &packet {
            version = connect.version;
        }
        again(&packet, version);
        now += 1000;
        match (&packet, session) {
            // Another client, or the same again.
            (Packet::Connect(connect), _) => {
                let who = Admitted {
                    username: connect.username.map(Box::from),
                    superuser: false,
                    address: SocketAddr::from(([192, 0, 2, 1], 1)),
                    listener: 0,
                };
                link += 1;
                session = broker.connect(now, link, connect, who).ok();
            }
            (packet, Some(id)) => broker.receive(now, id, packet),
            (_, None) => return,
        }
        broker.tick(now);
        broker.effects().clear();
        if let Some(id) = session {
            let mut out = Vec::new();
            for _ in 0..50 {
                broker.transmit(now, id, &mut out, 1000);
                if !broker.has_more(id) {
                    break;
                }
            }
        }
        rest = &rest[length..];
    }
});

fn again(packet: &Packet<'_>, version: Version) {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes);
    let Ok(Framed::Whole(whole)) = frame(&bytes, usize::MAX) else {
        panic!("what was written is not whole");
    };
    assert_eq!(whole.length, bytes.len());
    assert_eq!(decode(whole, version).as_ref(), Ok(packet));
}
