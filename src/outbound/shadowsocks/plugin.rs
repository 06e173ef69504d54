//! Plugins of Shadowsocks (SIP003), built in: `obfs`, and `v2ray-plugin` over WebSocket.
//!
//! They change how streams reach the server; datagrams go to it as they are.

use std::io;

use super::obfs::{Disguise, Obfs};
use crate::metadata::{Endpoint, Network};
use crate::outbound::carrier::Carrier;
use crate::outbound::dial::Dialer;
use crate::outbound::framed::{Codec, Framed, Step};
use crate::outbound::mux::frames::{self, Status};
use crate::outbound::options::{NetworkOptions, PluginOptions, ServerAddress};
use crate::outbound::scratch::Scratch;
use crate::outbound::transport::{Transport, TransportError};

/// Data of a frame that we send at most.
const FRAME_MAX: usize = 16 * 1024;

/// How streams reach the server.
pub struct Plugin {
    transport: Transport,
    around: Around,
}

enum Around {
    Nothing,
    Obfs(Disguise, Box<str>),
    /// v2ray-plugin's own multiplexing, of which one session is used.
    Mux,
}

impl Plugin {
    /// Streams to `server` by way of `options`; without them, plainly.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new(
        server: &ServerAddress,
        options: Option<&PluginOptions>,
    ) -> Result<Self, TransportError> {
        let plain = || Transport::new(server, None, &NetworkOptions::Tcp);
        Ok(match options {
            None => Self {
                transport: plain()?,
                around: Around::Nothing,
            },
            Some(PluginOptions::Obfs { disguise, host }) => Self {
                transport: plain()?,
                around: Around::Obfs(*disguise, host.clone()),
            },
            Some(PluginOptions::V2ray {
                tls,
                websocket,
                mux,
            }) => {
                let network = NetworkOptions::WebSocket(websocket.clone());
                Self {
                    transport: Transport::new(server, tls.as_ref(), &network)?,
                    around: if *mux { Around::Mux } else { Around::Nothing },
                }
            }
        })
    }

    /// A stream to the server.
    ///
    /// # Errors
    /// What the transport says.
    pub async fn connect(&self, dialer: &Dialer) -> io::Result<Carrier> {
        let carrier = self.transport.connect(dialer).await?;
        let codec: Box<dyn Codec> = match &self.around {
            Around::Nothing => return Ok(carrier),
            Around::Obfs(disguise, host) => Box::new(Obfs::new(*disguise, host)),
            Around::Mux => Box::new(OneSession { begun: false }),
        };
        Ok(Carrier::Boxed(Box::new(Framed::bare(carrier, codec))))
    }
}

/// One stream in mux.cool's frames.
struct OneSession {
    begun: bool,
}

impl Codec for OneSession {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        let mut sent = 0;
        for part in payload.chunks(FRAME_MAX) {
            let room = out.spare().len().saturating_sub(frames::room(0));
            let part = part.get(..room).unwrap_or(part);
            if part.is_empty() {
                break;
            }
            // The plugin at the other end knows where everything goes.
            let to = Endpoint::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
            let (status, to) = match self.begun {
                true => (Status::Keep, None),
                false => (Status::New, Some((Network::Tcp, &to))),
            };
            frames::encode(0, status, to, &[], Some(part), out)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.begun = true;
            sent += part.len();
        }
        Ok(sent)
    }

    fn room(&self, payload: usize) -> usize {
        payload + (payload / FRAME_MAX + 1) * frames::room(0)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        loop {
            let Some(frame) = frames::decode(incoming.data())? else {
                return Ok(Step::NeedMore(Scratch::LARGEST - 1024));
            };
            match frame.data {
                Some(data) if frame.status != Status::KeepAlive && !data.is_empty() => {
                    incoming.consume(data.start);
                    return Ok(Step::Opened(data.len(), 0));
                }
                _ => incoming.consume(frame.length),
            }
            if frame.status == Status::End {
                return Ok(Step::End);
            }
        }
    }

    fn half_closes(&self) -> bool {
        false
    }

    fn may_end(&self) -> bool {
        true
    }
}
