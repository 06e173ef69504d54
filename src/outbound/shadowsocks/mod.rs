//! `type: ss`: Shadowsocks with AEAD ciphers (SIP004) and of the 2022 edition (SIP022, SIP023).
//!
//! `method` turns `cipher` and `password` into keys; `tcp` and `packet` are the wire formats,
//! pure; `stream` and `udp` drive them.

pub mod method;
pub mod obfs;
pub mod packet;
pub mod plugin;
pub mod stream;
pub mod tcp;
pub mod udp;
pub mod window;

use std::fmt;
use std::io;
use std::sync::Arc;

use self::method::{MethodError, Secret};
use self::plugin::Plugin;
use self::udp::ShadowsocksDatagrams;
use super::dial::Node;
use super::options::{ServerAddress, ShadowsocksOptions};
use super::transport::TransportError;
use super::{BoxFuture, Datagrams, Kind, Outbound, Stream, Traits, socks_address};
use crate::metadata::Metadata;

/// A Shadowsocks server.
pub struct Shadowsocks {
    node: Node,
    server: ServerAddress,
    secret: Arc<Secret>,
    plugin: Plugin,
}

/// What is wrong with the options of a server.
#[derive(Debug)]
pub enum ShadowsocksError {
    /// `cipher` or `password`.
    Method(MethodError),
    /// `plugin-opts`.
    Plugin(TransportError),
}

impl fmt::Display for ShadowsocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(error) => error.fmt(f),
            Self::Plugin(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ShadowsocksError {}

impl Shadowsocks {
    /// A server with checked options.
    ///
    /// # Errors
    /// [`ShadowsocksError`].
    pub fn new(node: Node, options: &ShadowsocksOptions) -> Result<Self, ShadowsocksError> {
        let secret = Secret::new(&options.cipher, &options.password);
        let plugin = Plugin::new(&options.server, options.plugin.as_ref());
        Ok(Self {
            node,
            server: options.server.clone(),
            secret: Arc::new(secret.map_err(ShadowsocksError::Method)?),
            plugin: plugin.map_err(ShadowsocksError::Plugin)?,
        })
    }
}

impl Outbound for Shadowsocks {
    fn name(&self) -> &Arc<str> {
        &self.node.name
    }

    fn kind(&self) -> Kind {
        Kind::Shadowsocks
    }

    fn udp(&self) -> bool {
        self.node.udp
    }

    fn traits(&self) -> Traits {
        self.node.traits.clone()
    }

    fn dialer(&self) -> Option<Arc<dyn Outbound>> {
        self.node.dialer.carrier()
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async {
            let mut target = Vec::with_capacity(socks_address::ENCODED_MAX);
            socks_address::encode(&metadata.destination(), &mut target)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            target.shrink_to_fit();
            let carrier = self.plugin.connect(&self.node.dialer).await?;
            let stream = stream::connect(carrier, &self.secret, target)?;
            Ok(Stream::Shedding(Box::new(stream)))
        })
    }

    fn associate<'a>(
        &'a self,
        _metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async {
            if !self.node.udp {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let packets = self.node.dialer.open_datagrams(&self.server).await?;
            let datagrams: Box<dyn Datagrams> =
                Box::new(ShadowsocksDatagrams::new(packets, &self.secret)?);
            Ok(datagrams)
        })
    }
}
