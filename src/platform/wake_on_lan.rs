//! Wakes devices: the magic packet of Wake-on-LAN (AMD publication 20213), six bytes of ones and sixteen
//! times the device's Ethernet address, to everybody on each network of the router's own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use super::interfaces;
use crate::metadata::Mac;

/// The discard port, where nobody minds.
const PORT: u16 = 9;

/// The magic packet.
#[must_use]
pub fn packet(mac: Mac) -> Vec<u8> {
    [[0xff; 6]]
        .into_iter()
        .chain([mac.0; 16])
        .flatten()
        .collect()
}

/// Sends it on every network but those towards the Internet; on how many.
///
/// # Errors
/// What the kernel says, when it went out nowhere.
pub fn wake(mac: Mac) -> io::Result<usize> {
    let packet = packet(mac);
    let (mut sent, mut failure) = (0, None);
    for ours in interfaces::addresses()? {
        let IpAddr::V4(own) = ours.address else {
            continue;
        };
        let length = u32::from(ours.network.length());
        if ours.uplink || own.is_loopback() || length > 30 {
            continue;
        }
        let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(own.to_bits() | host_bits);
        let sending = UdpSocket::bind((own, 0)).and_then(|socket| {
            socket.set_broadcast(true)?;
            socket.send_to(&packet, (broadcast, PORT))
        });
        match sending {
            Ok(_) => sent += 1,
            Err(error) => failure = Some(error),
        }
    }
    match (sent, failure) {
        (0, Some(error)) => Err(error),
        (0, None) => Err(io::ErrorKind::AddrNotAvailable.into()),
        _ => Ok(sent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_ones_and_the_address_sixteen_times() {
        let packet = packet(Mac([1, 2, 3, 4, 5, 6]));
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..8], [255, 255, 255, 255, 255, 255, 1, 2]);
        assert_eq!(packet[96..], [1, 2, 3, 4, 5, 6]);
    }
}
