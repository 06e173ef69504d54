//! `type: vmess`: VMess with its AEAD header; `alterId` is 0.
//!
//! `keys`, `header` and `body` are the wire format of both ends, pure; `client` drives them.

pub mod body;
mod client;
pub mod header;
pub mod keys;

use std::fmt;
use std::io;
use std::sync::Arc;

use self::body::{Agreement, CHUNKED, Content, MASKED, PADDED, SEALED_SIZE, Security};
use self::client::{AddressedPackets, Client};
use self::header::{Command, Request};
use self::keys::UserKey;
use super::carrier::Carrier;
use super::crypto::has_aes_instructions;
use super::dial::Node;
use super::framed::Framed;
use super::mux::frames::UdpFrames;
use super::mux::packet_address;
use super::options::{PacketEncoding, VmessOptions, VmessSecurity};
use super::packets::StreamDatagrams;
use super::stream_proxy::{StreamProtocol, StreamProxy};
use super::transport::{Transport, TransportError};
use super::{Datagrams, Kind, Stream, random};
use crate::metadata::Endpoint;

/// What is wrong with the options of a VMess or VLESS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmessError {
    /// `uuid` is no id.
    Id,
    /// `flow` of VLESS without TLS, or with a `network` on it.
    Flow,
    /// TLS or `network`.
    Transport(TransportError),
}

impl fmt::Display for VmessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("uuid is neither a UUID nor a text of at most 30 bytes"),
            Self::Flow => f.write_str("a flow needs TLS and network tcp"),
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for VmessError {}

impl From<TransportError> for VmessError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

/// A user of a VMess server.
struct Vmess {
    user: Arc<UserKey>,
    security: Security,
    options: u8,
    packets: PacketEncoding,
}

/// A VMess server with checked options.
///
/// # Errors
/// [`VmessError`].
pub fn outbound(node: Node, options: &VmessOptions) -> Result<StreamProxy, VmessError> {
    let transport = Transport::new(&options.server, options.tls.as_ref(), &options.network)?;
    let id = keys::parse_id(&options.id).ok_or(VmessError::Id)?;
    let (security, mut bits) = match options.security {
        VmessSecurity::Aes128Gcm => (Security::Aes128Gcm, CHUNKED | MASKED),
        VmessSecurity::ChaCha20Poly1305 => (Security::ChaCha20Poly1305, CHUNKED | MASKED),
        VmessSecurity::None => (Security::None, CHUNKED | MASKED),
        VmessSecurity::Zero => (Security::None, 0),
        VmessSecurity::Auto if has_aes_instructions() => (Security::Aes128Gcm, CHUNKED | MASKED),
        VmessSecurity::Auto => (Security::ChaCha20Poly1305, CHUNKED | MASKED),
    };
    if security != Security::None {
        bits |= if options.global_padding { PADDED } else { 0 };
        bits |= if options.authenticated_length {
            SEALED_SIZE
        } else {
            0
        };
    }
    let protocol = Vmess {
        user: Arc::new(UserKey::new(id).map_err(|_| VmessError::Id)?),
        security,
        options: bits,
        packets: options.packets,
    };
    Ok(StreamProxy::new(node, transport, Box::new(protocol)))
}

impl Vmess {
    fn client(&self, command: Command) -> io::Result<Client> {
        let mut random = [0; 33];
        random::fill(&mut random)?;
        let [echo, rest @ ..] = random;
        let (key, iv) = rest.split_at(16);
        let mut agreement = Agreement {
            key: [0; 16],
            iv: [0; 16],
            options: self.options,
            security: self.security,
            content: command.content(),
        };
        agreement.key.copy_from_slice(key);
        agreement.iv.copy_from_slice(iv);
        if agreement.content == Content::Packets {
            // Datagrams need chunks to tell them apart, whatever `zero` says.
            agreement.options |= CHUNKED;
        }
        let request = Request {
            agreement,
            echo,
            command,
        };
        Ok(Client::new(&self.user, request))
    }

    fn open(&self, carrier: Carrier, command: Command) -> io::Result<Framed> {
        Framed::new(carrier, Box::new(self.client(command)?), &[])
    }
}

impl StreamProtocol for Vmess {
    fn kind(&self) -> Kind {
        Kind::Vmess
    }

    fn stream(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Stream> {
        let stream = self.open(carrier, Command::Stream(to.clone()))?;
        Ok(Stream::Shedding(Box::new(stream)))
    }

    fn datagrams(&self, carrier: Carrier, _to: &Endpoint) -> io::Result<Box<dyn Datagrams>> {
        let codec = match self.packets {
            PacketEncoding::PacketAddress => {
                let client = self.client(Command::Packets(packet_address::target()))?;
                let stream = Box::new(carrier);
                let codec = Box::new(AddressedPackets(client));
                return Ok(Box::new(StreamDatagrams::new(stream, codec, None)));
            }
            PacketEncoding::Xudp => UdpFrames::xudp()?,
            PacketEncoding::Plain => UdpFrames::by_destination(),
        };
        let stream = self.open(carrier, Command::Mux)?;
        Ok(Box::new(StreamDatagrams::new(
            Box::new(stream),
            Box::new(codec),
            None,
        )))
    }
}
