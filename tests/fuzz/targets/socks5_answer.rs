//! What a SOCKS5 proxy answers to CONNECT and UDP ASSOCIATE, and the datagrams it relays.
//! Input: flags, sizes of the pieces, the answer, datagrams.
#![no_main]

use headgate::inbound::socks::codec;
use headgate::metadata::{Endpoint, Host};
use headgate::outbound::options::{Credentials, ServerAddress, Socks5Options};
use headgate::outbound::socks5::Socks5;
use headgate::outbound::{Outbound, Stream};
use headgate_fuzz::Input;
use headgate_fuzz::network::{Wire, flow, pieces, received, run};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.byte();
    let sizes = input.chunk().to_vec();
    let answer = input.long_chunk().to_vec();
    let mut packets = Vec::new();
    while !input.is_empty() {
        packets.push(input.long_chunk().to_vec());
    }
    let said = answer.clone();
    let wire = Wire::new(Box::new(move |_| pieces(&said, &sizes)), packets.clone());
    let options = Socks5Options {
        server: ServerAddress {
            host: "192.0.2.1".into(),
            port: 1080,
        },
        credentials: (flags & 1 != 0).then(|| Credentials {
            username: "u".into(),
            password: "p".into(),
            ..Credentials::default()
        }),
        tls: None,
    };
    let proxy = Socks5::new(wire.node(), &options).unwrap();
    run(async {
        if flags & 2 == 0 {
            if let Ok(Stream::Boxed(mut stream)) = proxy.connect(&flow()).await {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                // Choice, perhaps a login, and at least the shortest reply were taken.
                assert!(answer.ends_with(&rest) && answer.len() >= rest.len() + 9);
            }
        } else if let Ok(datagrams) = proxy.associate(&flow()).await {
            let got = received(&*datagrams).await;
            let mut wanted = packets
                .iter()
                .filter_map(|packet| match codec::datagram(packet)? {
                    (
                        Endpoint {
                            host: Host::Ip(ip),
                            port,
                        },
                        payload,
                    ) if payload.len() <= 1500 => Some(((ip, port).into(), payload.to_vec())),
                    _ => None,
                });
            assert!(
                got.iter()
                    .all(|one| wanted.by_ref().any(|each| each == *one))
            );
        }
    });
});
