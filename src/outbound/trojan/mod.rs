//! `type: trojan`: Trojan over TLS, maybe over WebSocket (trojan-gfw `docs/protocol.md`).
//!
//! `codec` is the wire format of both ends, pure; here the client's end is put together.

pub mod codec;

use std::io;

use self::codec::{Command, Packets, UserKey};
use super::carrier::Carrier;
use super::dial::Node;
use super::options::{NetworkOptions, TrojanOptions};
use super::packets::StreamDatagrams;
use super::prelude::Prelude;
use super::stream_proxy::{StreamProtocol, StreamProxy};
use super::transport::{Transport, TransportError};
use super::{Datagrams, Kind, Stream};
use crate::metadata::Endpoint;

/// A user of a Trojan server.
struct Trojan {
    key: UserKey,
}

/// A Trojan server with checked options.
///
/// # Errors
/// [`TransportError`].
pub fn outbound(node: Node, options: &TrojanOptions) -> Result<StreamProxy, TransportError> {
    let mut tls = options.tls.clone();
    if tls.alpn.is_empty() && options.network == NetworkOptions::Tcp {
        // What a browser would offer, as every client of the protocol does.
        tls.alpn = vec!["h2".into(), "http/1.1".into()];
    }
    let transport = Transport::new(&options.server, Some(&tls), &options.network)?;
    let key = UserKey::of(&options.password);
    Ok(StreamProxy::new(node, transport, Box::new(Trojan { key })))
}

impl Trojan {
    fn open(&self, carrier: Carrier, command: Command, to: &Endpoint) -> io::Result<Prelude> {
        let header = codec::request(&self.key, command, to)?;
        Ok(Prelude::new(carrier, header, None))
    }
}

impl StreamProtocol for Trojan {
    fn kind(&self) -> Kind {
        Kind::Trojan
    }

    fn stream(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Stream> {
        let stream = self.open(carrier, Command::Connect, to)?;
        Ok(Stream::Boxed(Box::new(stream)))
    }

    fn datagrams(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Box<dyn Datagrams>> {
        let stream = self.open(carrier, Command::Associate, to)?;
        let datagrams = StreamDatagrams::new(Box::new(stream), Box::new(Packets), None);
        Ok(Box::new(datagrams))
    }
}
