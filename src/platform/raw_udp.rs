//! UDP replies from addresses that are not ours: a captured client must hear from the address that
//! it wrote to.
//!
//! Binding a transparent socket to each such address costs a descriptor a peer, and where the
//! address is the router's own (hijacked DNS) it would sit beside dnsmasq's and take its packets.
//! A raw socket (`raw(7)`) sends with any source and receives nothing. It does not fragment, so a
//! reply beyond the link's size goes through a transparent socket that lives for one send.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, bind,
    sendto, setsockopt, socket, sockopt,
};

use super::transparent::set_transparent;

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;

/// Sends datagrams with a chosen source, for both families.
#[derive(Debug)]
pub struct RawUdp {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
    mark: u32,
}

impl RawUdp {
    /// Opens a raw socket for each family, which send with `mark` (0: none). A family that the
    /// kernel lacks is left out.
    ///
    /// # Errors
    /// What the kernel says of IPv4; needs `CAP_NET_RAW`.
    pub fn open(mark: u32) -> io::Result<Self> {
        let raw = |family| -> io::Result<OwnedFd> {
            let fd = open_raw(family)?;
            if mark != 0 {
                setsockopt(&fd, sockopt::Mark, &mark)?;
            }
            Ok(fd)
        };
        Ok(Self {
            v4: Some(raw(AddressFamily::Inet)?),
            v6: raw(AddressFamily::Inet6).ok(),
            mark,
        })
    }

    /// Sends `payload` to `to` as if `from` had sent it.
    ///
    /// # Errors
    /// `InvalidInput` when the families differ or the payload is no datagram, `WouldBlock` when the
    /// link's queue is full, or what the kernel says.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let sent = match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                let packet = packet_v4(from, to, payload).ok_or(io::ErrorKind::InvalidInput)?;
                let fd = self.v4.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                // A raw socket's port is the protocol's business, not the address's.
                sendto(
                    fd.as_raw_fd(),
                    &packet,
                    &SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0)),
                    MsgFlags::MSG_DONTWAIT,
                )
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                let packet = packet_v6(from, to, payload).ok_or(io::ErrorKind::InvalidInput)?;
                let fd = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                let address = SocketAddrV6::new(*to.ip(), 0, 0, to.scope_id());
                sendto(
                    fd.as_raw_fd(),
                    &packet,
                    &SockaddrIn6::from(address),
                    MsgFlags::MSG_DONTWAIT,
                )
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::EMSGSIZE) => self.send_fragmented(from, to, payload),
            Err(error) => Err(error.into()),
        }
    }

    fn send_fragmented(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let family = if from.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        set_transparent(&fd, from.is_ipv4())?;
        if self.mark != 0 {
            setsockopt(&fd, sockopt::Mark, &self.mark)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
        sendto(
            fd.as_raw_fd(),
            payload,
            &SockaddrStorage::from(to),
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(())
    }
}

/// A raw socket whose packets bring their own IP header.
fn open_raw(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes three integers and returns a new descriptor or -1.
    let fd = unsafe { libc::socket(family as libc::c_int, flags, libc::IPPROTO_RAW) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nothing else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// RFC 791 and RFC 768. The kernel fills in the IP header's checksum and identification.
fn packet_v4(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let total = u16::try_from(V4_HEADER + UDP_HEADER + payload.len()).ok()?;
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend([0x45, 0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0]);
    packet.extend([64, UDP, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let pseudo = pseudo_v4(*from.ip(), *to.ip());
    push_udp(&mut packet, from.port(), to.port(), payload, pseudo)?;
    Some(packet)
}

/// RFC 8200 and RFC 768.
fn packet_v6(from: SocketAddrV6, to: SocketAddrV6, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let mut packet = Vec::with_capacity(V6_HEADER + usize::from(length));
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([UDP, 64]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let pseudo = pseudo_v6(*from.ip(), *to.ip());
    push_udp(&mut packet, from.port(), to.port(), payload, pseudo)?;
    Some(packet)
}

fn push_udp(packet: &mut Vec<u8>, from: u16, to: u16, payload: &[u8], pseudo: u32) -> Option<()> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let sum = pseudo
        + u32::from(UDP)
        + u32::from(length)
        + u32::from(from)
        + u32::from(to)
        + u32::from(length);
    // An all-zero checksum would mean "none" (RFC 768).
    let checksum = match fold(sum.checked_add(sum_words(payload))?) {
        0 => 0xffff,
        sum => sum,
    };
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend(checksum.to_be_bytes());
    packet.extend(payload);
    Some(())
}

fn pseudo_v4(from: Ipv4Addr, to: Ipv4Addr) -> u32 {
    sum_words(&from.octets()) + sum_words(&to.octets())
}

fn pseudo_v6(from: Ipv6Addr, to: Ipv6Addr) -> u32 {
    sum_words(&from.octets()) + sum_words(&to.octets())
}

/// The sum of 16-bit words, RFC 1071; a datagram has at most 32,768 of them, so 32 bits hold it.
fn sum_words(bytes: &[u8]) -> u32 {
    let (pairs, last) = bytes.as_chunks::<2>();
    let words: u32 = pairs
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    words + last.first().map_or(0, |byte| u32::from(*byte) << 8)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    let sum = sum as u16;
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checking a packet with the same algorithm over header and payload must give zero.
    #[test]
    fn checksums_verify() {
        let from = "192.0.2.1:53".parse().unwrap();
        let to = "198.51.100.7:40000".parse().unwrap();
        for payload in [&b""[..], b"x", b"hello world", &[0xff; 1301]] {
            let packet = packet_v4(from, to, payload).unwrap();
            let udp = &packet[V4_HEADER..];
            let sum = pseudo_v4(*from.ip(), *to.ip())
                + u32::from(UDP)
                + u32::try_from(udp.len()).unwrap()
                + sum_words(udp);
            assert_eq!(fold(sum), 0);
        }
        let from = "[2001:db8::1]:53".parse().unwrap();
        let to = "[2001:db8::7]:40000".parse().unwrap();
        let packet = packet_v6(from, to, b"hello").unwrap();
        let udp = &packet[V6_HEADER..];
        let sum = pseudo_v6(*from.ip(), *to.ip())
            + u32::from(UDP)
            + u32::try_from(udp.len()).unwrap()
            + sum_words(udp);
        assert_eq!(fold(sum), 0);
    }

    #[test]
    fn what_no_datagram_holds_is_refused() {
        let address = "192.0.2.1:53".parse().unwrap();
        assert!(packet_v4(address, address, &vec![0; 65_508]).is_none());
        assert!(packet_v4(address, address, &vec![0; 65_507]).is_some());
    }
}
