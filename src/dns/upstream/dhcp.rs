//! `dhcp://interface`: the servers that DHCP names on an interface (RFC 2131, RFC 2132 section 3.8).
//!
//! Asks as a client that looks for an address and takes none of the offers: the interface keeps its
//! own. What was named is used for `FRESH_TIME`, and asked for again when none of it answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Asked, Failure, Reach, udp};
use crate::metadata::Mac;
use crate::platform::clock;

/// How long named servers are used without asking again.
const FRESH_TIME: Duration = Duration::from_secs(300);
/// How long an offer is waited for before the question is sent again.
const OFFER_TIME: Duration = Duration::from_millis(1500);
/// Servers used of one offer.
const SERVERS_MAX: usize = 4;
/// Where DHCP servers listen.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), 67);
/// The DNS port.
const PORT: u16 = 53;

/// Table: what DHCP said on one interface.
pub(super) struct Lease {
    interface: Box<str>,
    named: Mutex<Option<(Vec<SocketAddr>, Instant)>>,
}

impl Lease {
    pub(super) fn new(interface: &str) -> Self {
        Self {
            interface: interface.into(),
            named: Mutex::const_new(None),
        }
    }

    /// Asks the servers of the interface, all at once.
    pub(super) async fn ask(&self, asked: Asked<'_>, reach: &Reach) -> Result<Vec<u8>, Failure> {
        let servers = self.servers(reach).await?;
        let exchange =
            |server: &SocketAddr| udp::exchange_with(asked, reach, *server, Some(&self.interface));
        let mut exchanges: FuturesUnordered<_> = servers.iter().map(exchange).collect();
        let mut failure = Failure::NoServers;
        while let Some(outcome) = exchanges.next().await {
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(cause) => failure = cause,
            }
        }
        *self.named.lock().await = None;
        Err(failure)
    }

    async fn servers(&self, reach: &Reach) -> Result<Vec<SocketAddr>, Failure> {
        let mut named = self.named.lock().await;
        if let Some((servers, until)) = &*named
            && clock::now() < *until
        {
            return Ok(servers.clone());
        }
        let servers = self.discover(reach).await?;
        *named = Some((servers.clone(), clock::now() + FRESH_TIME));
        Ok(servers)
    }

    async fn discover(&self, reach: &Reach) -> Result<Vec<SocketAddr>, Failure> {
        // Written by the kernel; bounded by its format.
        let path = format!("/sys/class/net/{}/address", self.interface);
        let mac = std::fs::read_to_string(path)?;
        let mac = mac.trim().parse::<Mac>();
        let mac = mac.map_err(|_| Failure::Io(io::ErrorKind::Unsupported))?;
        let mut id = [0; 4];
        let random = SystemRandom::new().fill(&mut id);
        random.map_err(|_| Failure::Io(io::ErrorKind::Other))?;
        let socket = reach.egress.dhcp(&self.interface)?;
        let question = discovery(id, mac);
        loop {
            socket.send_to(&question, SERVER).await?;
            if let Ok(servers) = timeout(OFFER_TIME, receive(&socket, id)).await {
                return servers;
            }
        }
    }
}

async fn receive(socket: &UdpSocket, id: [u8; 4]) -> Result<Vec<SocketAddr>, Failure> {
    loop {
        socket.readable().await?;
        let mut buffer = [0; 1500];
        match socket.try_recv(&mut buffer) {
            Ok(length) => {
                let offer = servers(buffer.get(..length).unwrap_or_default(), id);
                if let Some(servers) = offer {
                    return Ok(servers);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Length of the fixed fields (RFC 2131 section 2).
const FIXED_BYTES: usize = 236;
/// What begins the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Option codes (RFC 2132) and the message type that looks for servers.
const OPTION_PAD: u8 = 0;
const OPTION_DNS: u8 = 6;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_PARAMETERS: u8 = 55;
const OPTION_END: u8 = 255;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;

/// DHCPDISCOVER, to be answered by broadcast.
fn discovery(id: [u8; 4], mac: Mac) -> Vec<u8> {
    let mut out = vec![1, 1, 6, 0];
    out.extend_from_slice(&id);
    // No seconds, the broadcast flag, no addresses.
    out.extend_from_slice(&[0, 0, 0x80, 0]);
    out.resize(28, 0);
    out.extend_from_slice(&mac.0);
    out.resize(FIXED_BYTES, 0);
    out.extend_from_slice(&COOKIE);
    out.extend_from_slice(&[OPTION_MESSAGE_TYPE, 1, DISCOVER]);
    out.extend_from_slice(&[OPTION_PARAMETERS, 1, OPTION_DNS, OPTION_END]);
    // Some servers drop what is shorter than BOOTP's 300 bytes.
    out.resize(300, 0);
    out
}

/// The name servers of an offer to `id`. `None`: another message, or it names none.
#[must_use]
pub fn servers(message: &[u8], id: [u8; 4]) -> Option<Vec<SocketAddr>> {
    if message.first() != Some(&2) || message.get(4..8)? != id {
        return None;
    }
    let mut options = message.get(FIXED_BYTES..)?.strip_prefix(&COOKIE)?;
    let (mut offer, mut found) = (false, Vec::new());
    while let Some((&code, rest)) = options.split_first() {
        match code {
            OPTION_PAD => {
                options = rest;
                continue;
            }
            OPTION_END => break,
            _ => {}
        }
        let (&length, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(length.into())?;
        match code {
            OPTION_MESSAGE_TYPE => offer = value == [OFFER],
            OPTION_DNS => {
                let octets = value
                    .chunks_exact(4)
                    .filter_map(|four| four.first_chunk::<4>());
                found
                    .extend(octets.map(|four| SocketAddr::new(Ipv4Addr::from(*four).into(), PORT)));
            }
            _ => {}
        }
        options = rest;
    }
    found.truncate(SERVERS_MAX);
    (offer && !found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(kind: u8, dns: &[u8]) -> Vec<u8> {
        let mut message = vec![2, 1, 6, 0, 1, 2, 3, 4];
        message.resize(FIXED_BYTES, 0);
        message.extend(COOKIE);
        message.extend([
            OPTION_PAD,
            OPTION_MESSAGE_TYPE,
            1,
            kind,
            1,
            4,
            255,
            255,
            255,
            0,
        ]);
        message.extend([OPTION_DNS, u8::try_from(dns.len()).unwrap()]);
        message.extend(dns);
        message.push(OPTION_END);
        message
    }

    #[test]
    fn an_offer_names_its_servers() {
        let found = servers(&offer(OFFER, &[192, 0, 2, 1, 192, 0, 2, 2]), [1, 2, 3, 4]);
        let shown: Vec<String> = found.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1:53", "192.0.2.2:53"]);
        assert_eq!(servers(&offer(OFFER, &[192, 0, 2, 1]), [1, 2, 3, 5]), None);
        assert_eq!(servers(&offer(6, &[192, 0, 2, 1]), [1, 2, 3, 4]), None);
        assert_eq!(servers(&offer(OFFER, &[192, 0, 2]), [1, 2, 3, 4]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 236usize..260, byte: u8, cut in 0usize..30) {
            let mut message = offer(OFFER, &[192, 0, 2, 1]);
            if let Some(place) = message.get_mut(at) { *place = byte; }
            message.truncate(message.len() - cut);
            let _ = servers(&message, [1, 2, 3, 4]);
        }
    }
}
