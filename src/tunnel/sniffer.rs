//! Whether a flow is sniffed, and its first bytes brought to the sniffers (clash-api.md 4.6).
//!
//! A plain socket is peeked at, so that nothing is taken from it and the relay may splice it; from
//! any other stream the bytes are read and put back in front.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::metadata::{DnsMode, InboundType, Metadata, Network};
use crate::outbound::{ByteStream, Stream};
use crate::platform::socket;
use crate::sniff::{self, Reading, TCP_BYTES_MAX};

use super::prefixed::Prefixed;
use super::routing::Sniffer;

/// How long a client may take to speak. Longer than one that speaks first needs, short enough that a
/// protocol in which the server speaks first (on a sniffed port) hardly feels it; the flow then goes
/// on without a name, where mihomo closes it.
const WAIT: Duration = Duration::from_millis(300);

/// Between looks at a hello that has come in part. Peeking leaves the socket readable, so there is
/// no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The first look; nearly every hello fits.
const FIRST_LOOK: usize = 4096;

/// Whether this flow is to be sniffed. One of our own is not: whoever talks to the site that REALITY shows
/// would lead it wherever the name in his hello says.
#[must_use]
pub fn wanted(sniffer: &Sniffer, metadata: &Metadata) -> bool {
    let options = &sniffer.options;
    if metadata.inbound_type == InboundType::Inner {
        return false;
    }
    if !options.enable || !options.covers(metadata.network, metadata.destination_port) {
        return false;
    }
    let skipped = options
        .skip_source
        .iter()
        .any(|prefix| prefix.contains(metadata.source.ip()))
        || metadata.destination_ip.is_some_and(|ip| {
            options
                .skip_destination
                .iter()
                .any(|prefix| prefix.contains(ip))
        });
    if skipped {
        return false;
    }
    match &metadata.host {
        None => options.parse_pure_ip,
        Some(host) => {
            (metadata.dns_mode == DnsMode::RedirHost && options.force_dns_mapping)
                || sniffer.force_domain.contains(host)
        }
    }
}

/// Enters a name that a sniffer read. Whether it was taken.
pub fn enter(sniffer: &Sniffer, metadata: &mut Metadata, reading: Reading) -> bool {
    let Reading::Host {
        name,
        override_destination,
    } = reading
    else {
        return false;
    };
    if sniffer.skip_domain.contains(&name) {
        return false;
    }
    if override_destination {
        metadata.host = Some(name.clone());
        metadata.dns_mode = DnsMode::Normal;
        // TCP is dialled by name; a datagram keeps its address.
        if metadata.network == Network::Tcp {
            metadata.destination_ip = None;
        }
    }
    metadata.sniffed_host = Some(name);
    true
}

/// Reads the name from a stream's first bytes.
pub async fn read(client: &mut Stream, port: u16, options: &sniff::Options) -> Reading {
    let read = async {
        match client {
            Stream::Tcp(stream) => peek(stream, port, options).await,
            Stream::Boxed(stream) => {
                let mut bytes = Vec::new();
                let reading = gather(stream.as_mut(), &mut bytes, port, options).await;
                (reading, bytes)
            }
            Stream::Shedding(stream) => {
                let mut bytes = Vec::new();
                let reading = gather(stream.as_mut(), &mut bytes, port, options).await;
                (reading, bytes)
            }
            Stream::Closed | Stream::Silent => (Reading::Nothing, Vec::new()),
        }
    };
    let (reading, bytes) = read.await;
    match client {
        Stream::Boxed(stream) if !bytes.is_empty() => {
            let rest = std::mem::replace(stream, Box::new(tokio::io::empty()));
            *stream = Box::new(Prefixed::new(bytes.into(), rest));
        }
        Stream::Shedding(stream) => stream.put_back(bytes),
        _ => {}
    }
    reading
}

async fn peek(stream: &TcpStream, port: u16, options: &sniff::Options) -> (Reading, Vec<u8>) {
    let looks = async {
        stream.readable().await.ok()?;
        let (mut bytes, mut seen) = (vec![0; FIRST_LOOK], 0);
        loop {
            let n = match socket::peek_now(stream, &mut bytes) {
                Ok(0) => return None,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return None,
            };
            if n > seen {
                seen = n;
                match sniff::tcp(bytes.get(..n).unwrap_or_default(), port, options) {
                    Reading::NeedMore => {}
                    reading => return Some(reading),
                }
            }
            if n == bytes.len() {
                if n >= TCP_BYTES_MAX {
                    return None;
                }
                bytes.resize(TCP_BYTES_MAX, 0);
            } else {
                sleep(LOOK_AGAIN).await;
            }
        }
    };
    let reading = timeout(WAIT, looks).await.ok().flatten();
    (reading.unwrap_or(Reading::Nothing), Vec::new())
}

async fn gather(
    stream: &mut dyn ByteStream,
    bytes: &mut Vec<u8>,
    port: u16,
    options: &sniff::Options,
) -> Reading {
    let reads = async {
        let mut chunk = [0; 2048];
        while bytes.len() < TCP_BYTES_MAX {
            let Ok(n @ 1..) = stream.read(&mut chunk).await else {
                break;
            };
            bytes.extend(chunk.get(..n).unwrap_or_default());
            match sniff::tcp(bytes, port, options) {
                Reading::NeedMore => {}
                reading => return reading,
            }
        }
        Reading::Nothing
    };
    timeout(WAIT, reads).await.unwrap_or(Reading::Nothing)
}
