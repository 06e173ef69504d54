//! sing-mux as a client (mihomo's `smux`): streams and associations of any proxy in few connections to it.
//!
//! `frame` and `request` are the wire format, pure; `session` drives smux and yamux, and HTTP/2 is that of
//! the transports. An outbound is wrapped: it carries the sessions as it would carry any stream.

pub mod frame;
pub mod request;
mod session;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::timeout;

use self::frame::Dialect;
use self::request::{Packets, Padding, Protocol, SESSION_HOST, SESSION_PORT};
use self::session::Frames;
use crate::metadata::{Endpoint, Host, InboundType, Metadata, Network};
use crate::outbound::carrier::Carrier;
use crate::outbound::dial::{DIAL_TIMEOUT, DialError};
use crate::outbound::framed::Framed;
use crate::outbound::options::MuxOptions;
use crate::outbound::packets::StreamDatagrams;
use crate::outbound::prelude::Prelude;
use crate::outbound::sessions::{Session, Sessions};
use crate::outbound::transport::http2::{Asking, Http2};
use crate::outbound::{BoxFuture, Datagrams, Kind, Outbound, Stream, Traits};

/// A node whose flows share connections.
pub struct Multiplexed {
    inner: Arc<dyn Outbound>,
    options: MuxOptions,
    sessions: Sessions,
    asking: Arc<Asking>,
}

impl Multiplexed {
    /// The flows of `inner` in sessions.
    #[must_use]
    pub fn new(inner: Arc<dyn Outbound>, options: MuxOptions) -> Self {
        Self {
            inner,
            options,
            sessions: Sessions::new(options.limits),
            asking: Arc::new(Asking::connect("localhost")),
        }
    }

    /// A session in a new connection.
    async fn begin(&self) -> io::Result<Arc<dyn Session>> {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let to = Endpoint {
            host: Host::parse(SESSION_HOST).ok_or(io::ErrorKind::InvalidInput)?,
            port: SESSION_PORT,
        };
        let name = Arc::from("INNER");
        let metadata = Metadata::new(Network::Tcp, InboundType::Inner, &name, nobody, to);
        let stream = self.inner.connect(&metadata).await?;
        let carrier = Carrier::of(stream).ok_or(DialError::DialerRejects)?;
        let MuxOptions {
            protocol, padding, ..
        } = self.options;
        let head = request::session(protocol, padding)?;
        let mut carrier = Carrier::Boxed(Box::new(Prelude::new(carrier, head, None)));
        if padding {
            let padded = Framed::bare(carrier, Box::<Padding>::default());
            carrier = Carrier::Boxed(Box::new(padded));
        }
        Ok(match protocol {
            Protocol::Smux => Arc::new(Frames::begin(carrier, Dialect::Smux)),
            Protocol::Yamux => Arc::new(Frames::begin(carrier, Dialect::Yamux)),
            Protocol::H2mux => Arc::new(Http2::begin(carrier, Arc::clone(&self.asking)).await?),
        })
    }

    /// A stream of a session, which asks for `to`.
    async fn open(&self, to: &Endpoint, datagrams: bool) -> io::Result<Prelude> {
        let head = request::stream(to, datagrams)?;
        let begin = || -> BoxFuture<'_, io::Result<Arc<dyn Session>>> { Box::pin(self.begin()) };
        let opening = Box::pin(self.sessions.stream(&begin));
        let stream = match timeout(DIAL_TIMEOUT, opening).await {
            Ok(stream) => stream?,
            Err(_elapsed) => return Err(DialError::TimedOut.into()),
        };
        let carrier = Carrier::Boxed(stream);
        Ok(Prelude::new(carrier, head, Some(request::answer_length)))
    }
}

impl Outbound for Multiplexed {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }

    fn kind(&self) -> Kind {
        self.inner.kind()
    }

    fn udp(&self) -> bool {
        self.inner.udp()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn dialer(&self) -> Option<Arc<dyn Outbound>> {
        self.inner.dialer()
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async {
            let stream = self.open(&metadata.destination(), false).await?;
            Ok(Stream::Boxed(Box::new(stream)))
        })
    }

    fn associate<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        if self.options.only_tcp {
            return self.inner.associate(metadata);
        }
        Box::pin(async {
            if !self.inner.udp() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let stream = self.open(&metadata.destination(), true).await?;
            let datagrams = StreamDatagrams::new(Box::new(stream), Box::new(Packets), None);
            Ok(Box::new(datagrams) as Box<dyn Datagrams>)
        })
    }
}
