//! Trojan's datagrams as either end reads them. Input: a stream of them.
//! What was read, written again, is read alike.
#![no_main]

use headgate::outbound::packets::PacketCodec;
use headgate::outbound::scratch::Scratch;
use headgate::outbound::trojan::codec::Packets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = Scratch::large();
    if rest.push(data).is_err() {
        return;
    }
    while let Ok(Some(packet)) = Packets.decode(&mut rest) {
        let payload = rest.data()[packet.payload].to_vec();
        let address = packet.address.unwrap();
        let mut again = Scratch::large();
        if Packets.encode(&payload, &address, &mut again).is_ok() {
            let read = Packets.decode(&mut again).unwrap().unwrap();
            assert_eq!(read.address, Some(address));
            assert_eq!(again.data()[read.payload], payload);
        }
        rest.consume(packet.length);
    }
});
