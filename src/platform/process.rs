//! Which program of this machine has a socket, by `/proc`. Slow: it reads the table of sockets and
//! looks into every process; done only for connections of this machine, when a rule asks.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt;

use crate::metadata::{Network, Process};

/// The program whose socket is at `address`. Blocks.
#[must_use]
pub fn owner(network: Network, address: SocketAddr) -> Option<Process> {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    // The address of a LAN device is none of ours, and cannot be bound.
    UdpSocket::bind((address.ip(), 0)).ok()?;
    let tables = match network {
        Network::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Network::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let (uid, inode) = tables.iter().find_map(|table| {
        let lines = BufReader::new(File::open(table).ok()?).lines();
        lines
            .map_while(Result::ok)
            .find_map(|line| entry(&line, address))
    })?;
    let path = executable(inode).unwrap_or_default();
    Some(Process { uid, path })
}

/// Owner and inode of a line of the table of sockets, if it is the socket at `address`. A datagram
/// socket may be bound to no address in particular.
fn entry(line: &str, address: SocketAddr) -> Option<(u32, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (host, port) = fields.nth(1)?.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != address.port() {
        return None;
    }
    let host = host_of(host)?;
    if host != address.ip() && !host.is_unspecified() {
        return None;
    }
    let uid = fields.nth(5)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok().filter(|inode| *inode != 0)?;
    Some((uid, inode))
}

/// An address as the table writes it: words of 32 bits in the machine's order.
fn host_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes = <[u8; 16]>::try_from(words.concat()).ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// The executable of the process that has the socket `inode` open.
fn executable(inode: u64) -> Option<Box<str>> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut numbered = processes.filter(|entry| {
        let name = entry.file_name();
        name.as_bytes().iter().all(u8::is_ascii_digit)
    });
    let has = |entry: &fs::DirEntry| {
        let open = fs::read_dir(entry.path().join("fd")).ok()?;
        let mut links = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        links
            .any(|link| link.as_os_str() == wanted.as_str())
            .then_some(())
    };
    let owner = numbered.find(|entry| has(entry).is_some())?;
    let path = fs::read_link(owner.path().join("exe")).ok()?;
    Some(path.to_string_lossy().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn our_own_sockets_are_ours() {
        let own = std::env::current_exe().unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        for (network, address) in [
            (Network::Udp, udp.local_addr().unwrap()),
            (Network::Tcp, tcp.local_addr().unwrap()),
        ] {
            let owner = owner(network, address).unwrap();
            assert_eq!(*owner.path, *own.to_string_lossy());
            assert_eq!(owner.uid, nix::unistd::getuid().as_raw());
        }
        assert_eq!(owner(Network::Tcp, "192.0.2.1:1".parse().unwrap()), None);
    }
}
