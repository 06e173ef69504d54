//! A UDP socket of a server that answers from the address that was asked.
//!
//! Bound to one address a socket does so by itself. Bound to all of them the kernel would choose by
//! the route to the client, and a client that asked another address of ours drops the answer; so each
//! datagram's destination is read with it and set on the answer (ip(7), RFC 3542 section 6).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The socket.
pub struct AnsweringUdp {
    socket: UdpSocket,
    /// It is bound to all addresses.
    wildcard: bool,
}

/// Whom to answer, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The client.
    pub client: SocketAddr,
    asked: Asked,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    TheOnly,
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl AnsweringUdp {
    /// Takes a socket that is bound to `address`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(socket: UdpSocket, address: SocketAddr) -> io::Result<Self> {
        let wildcard = address.ip().is_unspecified();
        if wildcard && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if wildcard {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket, wildcard })
    }

    /// Waits until there may be a datagram.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Receives a datagram that is there already: its length and its sender.
    ///
    /// # Errors
    /// `WouldBlock`, or what the kernel says.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Asker)> {
        if !self.wildcard {
            let (length, client) = self.socket.try_recv_from(buffer)?;
            let asked = Asked::TheOnly;
            return Ok((length, Asker { client, asked }));
        }
        self.socket.try_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(buffer)];
            let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
            let fd = self.socket.as_raw_fd();
            let message = recvmsg::<SockaddrStorage>(
                fd,
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let client = message.address.as_ref().and_then(client);
            let client = client.ok_or(io::ErrorKind::InvalidData)?;
            let asked = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info)),
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info)),
                _ => None,
            });
            let asked = asked.unwrap_or(Asked::TheOnly);
            Ok((message.bytes, Asker { client, asked }))
        })
    }

    /// Answers at once.
    ///
    /// # Errors
    /// `WouldBlock`, or what the kernel says.
    pub fn try_answer(&self, bytes: &[u8], asker: &Asker) -> io::Result<()> {
        self.socket
            .try_io(Interest::WRITABLE, || self.send(bytes, asker))
    }

    /// Answers when the socket takes it.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn answer(&self, bytes: &[u8], asker: &Asker) -> io::Result<()> {
        self.socket
            .async_io(Interest::WRITABLE, || self.send(bytes, asker))
            .await
    }

    fn send(&self, bytes: &[u8], asker: &Asker) -> io::Result<()> {
        let mut asked = asker.asked;
        // The answer's interface is the route's to say, but for addresses that hold on one link only.
        let control = match &mut asked {
            Asked::TheOnly => None,
            Asked::V4(info) => {
                info.ipi_ifindex = 0;
                Some(ControlMessage::Ipv4PacketInfo(info))
            }
            Asked::V6(info) => {
                let [first, second, ..] = info.ipi6_addr.s6_addr;
                if (first, second & 0xc0) != (0xfe, 0x80) {
                    info.ipi6_ifindex = 0;
                }
                Some(ControlMessage::Ipv6PacketInfo(info))
            }
        };
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control.as_slice(),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            Some(&SockaddrStorage::from(asker.client)),
        )?;
        Ok(())
    }
}

fn client(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4: &SockaddrIn| SocketAddr::V4((*v4).into()));
    v4.or_else(|| {
        let v6: Option<&SockaddrIn6> = address.as_sockaddr_in6();
        v6.map(|v6| SocketAddr::V6((*v6).into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered_from(listen: &str, asked: &str) -> String {
        let socket = UdpSocket::bind(listen).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = AnsweringUdp::new(socket, listen.parse().unwrap()).unwrap();
        let client = UdpSocket::bind(if asked.contains(':') {
            "[::1]:0"
        } else {
            "127.0.0.1:0"
        });
        let client = client.await.unwrap();
        client.send_to(b"?", (asked, port)).await.unwrap();
        let mut buffer = [0; 8];
        let (length, asker) = loop {
            server.readable().await.unwrap();
            match server.try_receive(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => break received.unwrap(),
            }
        };
        assert_eq!(asker.client.port(), client.local_addr().unwrap().port());
        server.answer(&buffer[..length], &asker).await.unwrap();
        let (_, from) = client.recv_from(&mut buffer).await.unwrap();
        from.ip().to_string()
    }

    #[tokio::test]
    async fn the_answer_comes_from_the_address_that_was_asked() {
        for listen in ["0.0.0.0:0", "[::]:0"] {
            assert_eq!(answered_from(listen, "127.0.0.7").await, "127.0.0.7");
        }
        assert_eq!(answered_from("[::]:0", "::1").await, "::1");
        assert_eq!(answered_from("127.0.0.8:0", "127.0.0.8").await, "127.0.0.8");
    }
}
