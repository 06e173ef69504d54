//! Sockets with the options that a router needs: marks, interfaces, transparency.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrIn, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::uio::readv;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::{clock, own_dials};

/// How a socket of ours leaves the router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Bind to this interface (`SO_BINDTODEVICE`).
    pub interface: Option<Box<str>>,
    /// Firewall mark (`SO_MARK`), so that our own rules and the user's leave it alone; 0: none.
    pub mark: u32,
    /// TCP fast open (`TCP_FASTOPEN_CONNECT`): data may ride on the SYN.
    pub fast_open: bool,
}

impl Egress {
    /// Puts the options on a socket that is not connected yet.
    ///
    /// # Errors
    /// What the kernel says; a mark needs `CAP_NET_ADMIN`.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        if self.mark != 0 {
            setsockopt(socket, sockopt::Mark, &self.mark)?;
        }
        if let Some(interface) = &self.interface {
            setsockopt(socket, sockopt::BindToDevice, &(&**interface).into())?;
        }
        Ok(())
    }
}

/// Opens a TCP connection to `address` by way of `egress`; no time-out of its own.
///
/// # Errors
/// What the kernel says.
pub async fn connect_tcp(address: SocketAddr, egress: &Egress) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    egress.apply(&socket)?;
    socket.set_nodelay(true)?;
    if egress.fast_open {
        // A kernel without fast open (or with it switched off) connects in the usual way.
        let _usual = setsockopt(&socket, sockopt::TcpFastOpenConnect, &true);
    }
    let stream = socket.connect(address).await?;
    own_dials::note(stream.local_addr()?, address, clock::now());
    Ok(stream)
}

/// An unconnected UDP socket of the family of `local`, bound to it.
///
/// # Errors
/// What the kernel says.
pub fn bind_udp(local: SocketAddr, egress: &Egress) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(local)?;
    egress.apply(&socket)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Ends our side of a stream: the peer reads the end, and may go on sending.
pub fn shutdown_write(socket: &impl AsFd) {
    // Fails only on a stream that is gone already.
    let _ = nix::sys::socket::shutdown(socket.as_fd().as_raw_fd(), Shutdown::Write);
}

/// Sends to a client, whose address may be of another family than the socket.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::WouldBlock`] when the socket is full.
pub fn send_to_client(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
    let to = match (to, socket.local_addr()?) {
        (SocketAddr::V4(v4), SocketAddr::V6(_)) => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
        }
        (to, _) => to,
    };
    socket.try_send_to(bytes, to)
}

/// Makes the close of this stream a reset: the peer learns that it was cut, not finished.
pub fn reset_on_close(socket: &impl AsFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = setsockopt(socket, sockopt::Linger, &linger);
}

/// Sends at once what the socket takes; 0 when it takes nothing now.
///
/// # Errors
/// What the socket says, `WouldBlock` excepted.
pub fn send_now(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    match send(
        socket.as_fd().as_raw_fd(),
        bytes,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
    ) {
        Err(Errno::EAGAIN) => Ok(0),
        sent => Ok(sent?),
    }
}

/// Receives at once; 0 at the end of the stream.
///
/// # Errors
/// `WouldBlock` when nothing is there, or what the socket says.
pub fn receive_now(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(
        socket.as_fd().as_raw_fd(),
        buffer,
        MsgFlags::MSG_DONTWAIT,
    )?)
}

/// As [`receive_now`], into one place after the other. For a socket that does not block.
///
/// # Errors
/// As [`receive_now`].
pub fn receive_parts_now(socket: &impl AsFd, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    Ok(readv(socket, parts)?)
}

/// Looks at what a stream has received, without taking it; 0 at its end.
///
/// # Errors
/// `WouldBlock` when nothing is there, or what the socket says.
pub fn peek_now(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(
        socket.as_fd().as_raw_fd(),
        buffer,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK,
    )?)
}

/// A UDP socket that exchanges datagrams with `server` alone.
///
/// # Errors
/// What the kernel says.
pub fn connect_udp(server: SocketAddr, egress: &Egress) -> io::Result<UdpSocket> {
    let local = if server.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let socket = std::net::UdpSocket::bind(local)?;
    egress.apply(&socket)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// A socket of the DHCP client's port, which another client on this machine may hold as well, that may
/// broadcast on the interface of `egress`.
///
/// # Errors
/// What the kernel says; it needs `CAP_NET_BIND_SERVICE`.
pub fn bind_dhcp_client(egress: &Egress) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Broadcast, &true)?;
    egress.apply(&fd)?;
    bind(
        fd.as_raw_fd(),
        &SockaddrIn::new(0, 0, 0, 0, DHCP_CLIENT_PORT),
    )?;
    UdpSocket::from_std(fd.into())
}

/// RFC 2131 section 4.1.
const DHCP_CLIENT_PORT: u16 = 68;

/// An unconnected UDP socket for both families on one port of its own: IPv4 addresses are
/// IPv4-mapped on it (RFC 3493 section 3.7). An IPv4 socket where the kernel has no IPv6.
///
/// # Errors
/// What the kernel says.
pub fn bind_udp_dual(egress: &Egress) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let Ok(fd) = socket(AddressFamily::Inet6, SockType::Datagram, flags, None) else {
        return bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), egress);
    };
    setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    egress.apply(&fd)?;
    // Bound by the first datagram: the kernel picks a port that is free in both families.
    UdpSocket::from_std(fd.into())
}
