//! `type: vless`: VLESS version 0. It encrypts nothing itself: that is TLS's part.
//!
//! `codec` and `vision` are the wire format of both ends, pure; here the client's end is put together.

pub mod codec;
pub mod stream;
pub mod vision;

use std::io;

use self::codec::{Command, Packets};
use self::stream::Vision;
use super::carrier::Carrier;
use super::dial::Node;
use super::mux::frames::UdpFrames;
use super::mux::packet_address;
use super::options::{NetworkOptions, PacketEncoding, VlessFlow, VlessOptions};
use super::packets::{PacketCodec, StreamDatagrams};
use super::prelude::{HeaderLength, Prelude};
use super::stream_proxy::{StreamProtocol, StreamProxy};
use super::transport::Transport;
use super::vmess::VmessError;
use super::vmess::keys::parse_id;
use super::{ByteStream, Datagrams, Kind, Stream};
use crate::metadata::Endpoint;

/// A user of a VLESS server.
struct Vless {
    id: [u8; 16],
    packets: PacketEncoding,
    flow: VlessFlow,
}

/// A VLESS server with checked options.
///
/// # Errors
/// [`VmessError`]: both have ids and transports.
pub fn outbound(node: Node, options: &VlessOptions) -> Result<StreamProxy, VmessError> {
    let mut transport = Transport::new(&options.server, options.tls.as_ref(), &options.network)?;
    if options.flow != VlessFlow::Plain {
        if options.tls.is_none() || options.network != NetworkOptions::Tcp {
            return Err(VmessError::Flow);
        }
        transport.may_be_left();
    }
    let protocol = Vless {
        id: parse_id(&options.id).ok_or(VmessError::Id)?,
        packets: options.packets,
        flow: options.flow,
    };
    Ok(StreamProxy::new(node, transport, Box::new(protocol)))
}

impl Vless {
    fn open(&self, carrier: Carrier, command: &Command) -> io::Result<Stream> {
        let answer: Option<HeaderLength> = Some(codec::answer_length);
        if self.flow == VlessFlow::Plain {
            let header = codec::request(&self.id, "", command)?;
            return Ok(Prelude::new(carrier, header, answer).into_stream());
        }
        let header = codec::request(&self.id, vision::FLOW, command)?;
        match carrier {
            Carrier::Layer(layer) if layer.is_tls13() => {
                let stream = Vision::new(layer, self.id, header, answer);
                Ok(Stream::Shedding(Box::new(stream)))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the flow needs TLS 1.3, which the server does not speak",
            )),
        }
    }
}

impl StreamProtocol for Vless {
    fn kind(&self) -> Kind {
        Kind::Vless
    }

    fn stream(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Stream> {
        self.open(carrier, &Command::Stream(to.clone()))
    }

    fn datagrams(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Box<dyn Datagrams>> {
        // QUIC would go without the flow's protection, and a browser falls back to TCP.
        if self.flow == VlessFlow::Vision && to.port == 443 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let packets = match self.flow {
            VlessFlow::Plain => self.packets,
            VlessFlow::Vision | VlessFlow::VisionUdp443 => PacketEncoding::Xudp,
        };
        let (command, codec): (_, Box<dyn PacketCodec>) = match packets {
            PacketEncoding::PacketAddress => (
                Command::Packets(packet_address::target()),
                Box::new(Packets::addressed()),
            ),
            PacketEncoding::Xudp => (Command::Mux, Box::new(UdpFrames::xudp()?)),
            PacketEncoding::Plain => (Command::Mux, Box::new(UdpFrames::by_destination())),
        };
        let stream: Box<dyn ByteStream> = match self.open(carrier, &command)? {
            Stream::Boxed(stream) => stream,
            Stream::Shedding(stream) => stream,
            Stream::Tcp(_) | Stream::Closed | Stream::Silent => {
                return Err(io::ErrorKind::Unsupported.into());
            }
        };
        Ok(Box::new(StreamDatagrams::new(stream, codec, None)))
    }
}
