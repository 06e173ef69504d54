//! Sockets that take what the kernel captured: tproxy (TCP and UDP) and NAT redirect (TCP).
//!
//! A transparent TCP socket's own address is the address that the client asked for; a redirected
//! one tells it by `SO_ORIGINAL_DST`; a transparent UDP socket tells it for each datagram in
//! ancillary data. See the kernel's Documentation/networking/tproxy.rst.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn,
    SockaddrIn6, SockaddrStorage, bind, getsockopt, listen, recvmsg, setsockopt, socket, sockopt,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Connections that may wait to be accepted. Below the SYN flood limits of a router, above any
/// page's burst; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Seconds of silence before the kernel asks a captured client whether it still lives.
const KEEPALIVE_IDLE: u32 = 600;

/// A TCP listener, transparent or plain, that may share its address with those of other loops.
/// Accepted sockets inherit no-delay and keep-alive from it, which spares two calls each.
///
/// # Errors
/// What the kernel says; transparency needs `CAP_NET_ADMIN`.
pub fn listen_tcp(address: SocketAddr, transparent: bool) -> io::Result<TcpListener> {
    let fd = open(address, SockType::Stream)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    setsockopt(&fd, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    if transparent {
        set_transparent(&fd, address.is_ipv4())?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))?;
    TcpListener::from_std(fd.into())
}

/// A transparent UDP socket that reports where each datagram was going, and its DSCP.
///
/// # Errors
/// What the kernel says; transparency needs `CAP_NET_ADMIN`.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let fd = open(address, SockType::Datagram)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    set_transparent(&fd, address.is_ipv4())?;
    if address.is_ipv4() {
        setsockopt(&fd, sockopt::Ipv4OrigDstAddr, &true)?;
        setsockopt(&fd, sockopt::IpRecvTos, &true)?;
    } else {
        setsockopt(&fd, sockopt::Ipv6OrigDstAddr, &true)?;
        setsockopt(&fd, sockopt::Ipv6RecvTClass, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    UdpSocket::from_std(fd.into())
}

fn open(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(
        family,
        kind,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if !address.is_ipv4() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(fd)
}

pub(super) fn set_transparent(fd: &impl AsFd, v4: bool) -> io::Result<()> {
    if v4 {
        setsockopt(fd, sockopt::IpTransparent, &true)?;
        return Ok(());
    }
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the whole call, and the option takes one C int, whose
    // address and size are given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_IPV6,
            libc::IPV6_TRANSPARENT,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Where a redirected connection was going before NAT.
///
/// # Errors
/// `NotFound` (`ENOENT`) when it was not redirected: somebody connected to the port itself.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let own = stream.local_addr()?;
    if own.is_ipv4() {
        let raw = getsockopt(stream, sockopt::OriginalDst)?;
        Ok(SocketAddr::V4(SocketAddrV4::from(SockaddrIn::from(raw))))
    } else {
        let raw = getsockopt(stream, sockopt::Ip6tOriginalDst)?;
        let address = SocketAddrV6::from(SockaddrIn6::from(raw));
        Ok(SocketAddr::new(
            IpAddr::V6(*address.ip()).to_canonical(),
            address.port(),
        ))
    }
}

/// One captured datagram, its bytes in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// How many bytes of the buffer it took; longer datagrams are cut.
    pub length: usize,
    /// The client.
    pub source: SocketAddr,
    /// Where it was going.
    pub destination: SocketAddr,
    /// Its differentiated services code point.
    pub dscp: u8,
}

/// Receives one captured datagram at once.
///
/// # Errors
/// `WouldBlock` when none is there; `InvalidData` for one whose destination the kernel did not
/// tell, which is dropped; or what the socket says.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Captured> {
    let mut control = cmsg_space!(libc::sockaddr_in6, libc::c_int, libc::c_int);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let (mut destination, mut traffic_class) = (None, 0);
    for item in message.cmsgs()? {
        match item {
            ControlMessageOwned::Ipv4OrigDstAddr(raw) => {
                destination = Some(SocketAddr::V4(SocketAddrV4::from(SockaddrIn::from(raw))))
            }
            ControlMessageOwned::Ipv6OrigDstAddr(raw) => {
                destination = Some(SocketAddr::V6(SocketAddrV6::from(SockaddrIn6::from(raw))))
            }
            ControlMessageOwned::Ipv4Tos(tos) => traffic_class = tos,
            ControlMessageOwned::Ipv6TClass(class) => {
                traffic_class = u8::try_from(class).unwrap_or(0)
            }
            _ => {}
        }
    }
    let source = message.address.as_ref().and_then(plain_address);
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    Ok(Captured {
        length: message.bytes,
        source,
        destination,
        dscp: traffic_class >> 2,
    })
}

fn plain_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
    }
    storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
}
