//! `type: vless`: VLESS version 0. It encrypts nothing itself: that is TLS's part.
//!
//! `codec` is the wire format of both ends, pure; here the client's end is put together.

pub mod codec;

use std::io;

use self::codec::{Command, Packets};
use super::carrier::Carrier;
use super::dial::Node;
use super::mux::frames::UdpFrames;
use super::mux::packet_address;
use super::options::{PacketEncoding, VlessOptions};
use super::packets::{PacketCodec, StreamDatagrams};
use super::prelude::Prelude;
use super::stream_proxy::{StreamProtocol, StreamProxy};
use super::transport::Transport;
use super::vmess::VmessError;
use super::vmess::keys::parse_id;
use super::{Datagrams, Kind, Stream};
use crate::metadata::Endpoint;

/// A user of a VLESS server.
struct Vless {
    id: [u8; 16],
    packets: PacketEncoding,
}

/// A VLESS server with checked options.
///
/// # Errors
/// [`VmessError`]: both have ids and transports.
pub fn outbound(node: Node, options: &VlessOptions) -> Result<StreamProxy, VmessError> {
    let transport = Transport::new(&options.server, options.tls.as_ref(), &options.network)?;
    let protocol = Vless {
        id: parse_id(&options.id).ok_or(VmessError::Id)?,
        packets: options.packets,
    };
    Ok(StreamProxy::new(node, transport, Box::new(protocol)))
}

impl Vless {
    fn open(&self, carrier: Carrier, command: &Command) -> io::Result<Prelude> {
        let header = codec::request(&self.id, "", command)?;
        Ok(Prelude::new(carrier, header, Some(codec::answer_length)))
    }
}

impl StreamProtocol for Vless {
    fn kind(&self) -> Kind {
        Kind::Vless
    }

    fn stream(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Stream> {
        let stream = self.open(carrier, &Command::Stream(to.clone()))?;
        Ok(Stream::Boxed(Box::new(stream)))
    }

    fn datagrams(&self, carrier: Carrier, _to: &Endpoint) -> io::Result<Box<dyn Datagrams>> {
        let (command, codec): (_, Box<dyn PacketCodec>) = match self.packets {
            PacketEncoding::PacketAddress => (
                Command::Packets(packet_address::target()),
                Box::new(Packets::addressed()),
            ),
            PacketEncoding::Xudp => (Command::Mux, Box::new(UdpFrames::xudp()?)),
            PacketEncoding::Plain => (Command::Mux, Box::new(UdpFrames::by_destination())),
        };
        let stream = self.open(carrier, &command)?;
        Ok(Box::new(StreamDatagrams::new(
            Box::new(stream),
            codec,
            None,
        )))
    }
}
