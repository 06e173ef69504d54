//! What a foreign broker sends to our MQTT client, over two connections: the client shows only whole
//! messages, never holds more than it may, and answers with packets that are ones.
#![no_main]

use headgate::mqtt::client::{Client, Event, Options, Outgoing};
use headgate::mqtt::codec::{Framed, PropertyWriter, Qos, Version, decode, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let version = [Version::V3, Version::V4, Version::V5][usize::from(first % 3)];
    let options = Options {
        version,
        inflight_max: 4,
        packet_max: 4096,
        clean: first & 4 == 0,
        ..Options::new("fuzz")
    };
    let mut client = Client::new(options);
    let (mut now, mut messages) = (1, 0);
    for half in rest.split_at(rest.len() / 2).0.chunks(64).chain([rest]) {
        let mut out = Vec::new();
        client.open(now, &mut out);
        // Let in, whatever the rest is.
        let greeting: &[u8] = match version {
            Version::V5 => &[0x20, 3, 0, 0, 0],
            _ => &[0x20, 2, 0, 0],
        };
        for piece in [greeting, half] {
            let mut show =
                |event: Event<'_>| messages += usize::from(matches!(event, Event::Message(_)));
            let Ok(taken) = client.receive(now, piece, &mut out, &mut show) else {
                break;
            };
            assert!(taken <= piece.len());
            for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
                if client.has_room() {
                    let message = Outgoing {
                        topic: "t".into(),
                        payload: Box::default(),
                        qos,
                        retain: false,
                        properties: PropertyWriter::default(),
                    };
                    client.publish(now, message, &mut out, &mut |_| {});
                }
            }
            now += 1000;
            let _silent = client.tick(now, &mut out);
        }
        let mut said = &*out;
        while !said.is_empty() {
            let Ok(Framed::Whole(whole)) = frame(said, usize::MAX) else {
                panic!("what the client says is cut short");
            };
            assert!(decode(whole, version).is_ok());
            said = &said[whole.length..];
        }
        client.closed();
    }
    assert!(messages <= 2 * input.len());
});
