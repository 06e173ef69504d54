//! The client's end of a VMess connection, for streams and for datagrams.

use std::io;
use std::sync::Arc;

use super::body::{CHUNK_FRAME, Chunks};
use super::header::{self, HEADER_MAX, Numbers, PREFIX, Request};
use super::keys::{UserKey, answer_key};
use crate::metadata::Endpoint;
use crate::outbound::framed::{Codec, Shape, Step};
use crate::outbound::mux::packet_address;
use crate::outbound::packets::{NoEncoding, Packet, PacketCodec};
use crate::outbound::random;
use crate::outbound::scratch::Scratch;
use crate::platform::clock;

/// A connection's state, whichever way it is driven.
pub(super) struct Client {
    /// Taken when the request goes.
    request: Option<Box<(Arc<UserKey>, Request)>>,
    sending: Chunks,
    receiving: Receiving,
}

enum Receiving {
    /// The answer's header, which repeats the number.
    Header(Box<Request>),
    /// Chunks.
    Body(Box<Chunks>),
}

/// Random bytes of a request.
pub(super) fn numbers() -> io::Result<Numbers> {
    let mut random = [0; 28];
    random::fill(&mut random)?;
    let (first, rest) = random.split_at(4);
    let (second, third) = rest.split_at(8);
    let mut numbers = Numbers {
        unix_time: clock::unix_time().as_secs(),
        random: [0; 4],
        nonce: [0; 8],
        padding: [0; 16],
    };
    numbers.random.copy_from_slice(first);
    numbers.nonce.copy_from_slice(second);
    numbers.padding.copy_from_slice(third);
    Ok(numbers)
}

impl Client {
    pub(super) fn new(user: &Arc<UserKey>, request: Request) -> Self {
        let agreement = request.agreement;
        let answered = Request {
            command: header::Command::Mux,
            ..request
        };
        Self {
            sending: Chunks::new(&agreement, agreement.key, agreement.iv),
            receiving: Receiving::Header(Box::new(answered)),
            request: Some(Box::new((Arc::clone(user), request))),
        }
    }

    /// Puts the request first, once.
    fn begin(&mut self, out: &mut Scratch) -> io::Result<()> {
        if let Some(waiting) = self.request.take() {
            let (user, request) = *waiting;
            request.seal(&user, &numbers()?, out)?;
        }
        Ok(())
    }

    /// The next chunk, behind the answer's header.
    fn next(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        loop {
            match &mut self.receiving {
                Receiving::Body(chunks) => return chunks.decode(incoming),
                Receiving::Header(request) => {
                    let (agreement, echo) = (request.agreement, request.echo);
                    if let Some(need) = header::open_answer(&agreement, echo, incoming)? {
                        return Ok(Step::NeedMore(need));
                    }
                    let (key, iv) = (answer_key(&agreement.key), answer_key(&agreement.iv));
                    self.receiving = Receiving::Body(Box::new(Chunks::new(&agreement, key, iv)));
                }
            }
        }
    }
}

impl Codec for Client {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        self.begin(out)?;
        self.sending.encode(payload, out)
    }

    fn room(&self, payload: usize) -> usize {
        let request = if self.request.is_some() {
            PREFIX + HEADER_MAX
        } else {
            0
        };
        request + Chunks::room(payload)
    }

    fn shape(&self) -> Option<Shape> {
        Some(self.sending.shape())
    }

    fn enframe(&mut self, data: usize, out: &mut Scratch) -> io::Result<()> {
        self.sending.enframe(data, out)
    }

    fn owes_request(&self) -> bool {
        self.request.is_some()
    }

    fn finish(&mut self, out: &mut Scratch) -> io::Result<()> {
        self.sending.finish(out)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        self.next(incoming)
    }

    fn may_end(&self) -> bool {
        match &self.receiving {
            Receiving::Header(_) => true,
            Receiving::Body(chunks) => chunks.may_end(),
        }
    }

    fn rest_sending(&mut self) {
        self.sending.rest();
    }

    fn rest_receiving(&mut self) {
        if let Receiving::Body(chunks) = &mut self.receiving {
            chunks.rest();
        }
    }
}

/// A datagram a chunk, each with its address before it (packetaddr).
pub(super) struct AddressedPackets(pub(super) Client);

impl PacketCodec for AddressedPackets {
    fn encode(
        &mut self,
        payload: &[u8],
        address: &Endpoint,
        out: &mut Scratch,
    ) -> Result<(), NoEncoding> {
        let mut packet = Scratch::take(payload.len() + CHUNK_FRAME);
        packet_address::encode(address, &mut packet)?;
        packet.push(payload)?;
        self.0.begin(out).map_err(|_| NoEncoding)?;
        self.0
            .sending
            .push(packet.data(), out)
            .map_err(|_| NoEncoding)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Option<Packet>> {
        match self.0.next(incoming)? {
            Step::Opened(length, trailer) => {
                let data = incoming.data().get(..length).unwrap_or_default();
                let (address, start) = packet_address::decode(data)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                Ok(Some(Packet {
                    address: Some(address),
                    payload: start..length,
                    length: length + trailer,
                }))
            }
            Step::NeedMore(_) => Ok(None),
            Step::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::outbound::carrier::Carrier;
    use crate::outbound::framed::Framed;
    use crate::outbound::layer::{Shedding, Source};
    use crate::outbound::vmess::body::{
        Agreement, CHUNKED, Content, MASKED, PADDED, SEALED_SIZE, Security,
    };

    /// Both directions' chunks without what goes first.
    struct Bare {
        sending: Chunks,
        receiving: Chunks,
    }

    impl Codec for Bare {
        fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
            self.sending.encode(payload, out)
        }

        fn room(&self, payload: usize) -> usize {
            Chunks::room(payload)
        }

        fn shape(&self) -> Option<Shape> {
            Some(self.sending.shape())
        }

        fn enframe(&mut self, data: usize, out: &mut Scratch) -> io::Result<()> {
            self.sending.enframe(data, out)
        }

        fn finish(&mut self, out: &mut Scratch) -> io::Result<()> {
            self.sending.finish(out)
        }

        fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
            self.receiving.decode(incoming)
        }

        fn may_end(&self) -> bool {
            self.receiving.may_end()
        }
    }

    fn framed(carrier: impl crate::outbound::ByteStream + 'static, options: u8) -> Framed {
        let agreement = Agreement {
            key: [1; 16],
            iv: [2; 16],
            options,
            security: Security::Aes128Gcm,
            content: Content::Stream,
        };
        let chunks = || Chunks::new(&agreement, agreement.key, agreement.iv);
        let codec = Bare {
            sending: chunks(),
            receiving: chunks(),
        };
        Framed::bare(Carrier::Boxed(Box::new(carrier)), Box::new(codec))
    }

    #[tokio::test]
    async fn what_is_pulled_from_a_socket_arrives_whole_padded_or_not() {
        let text: Vec<u8> = (0..251).cycle().take(400_000).collect();
        for more in [0, MASKED, MASKED | PADDED, MASKED | PADDED | SEALED_SIZE] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dialling = TcpStream::connect(listener.local_addr().unwrap());
            let (client, accepted) = tokio::join!(dialling, listener.accept());
            let (mut client, source) = (client.unwrap(), accepted.unwrap().0);
            let (near, far) = duplex(100_000);
            let (mut near, mut far) = (framed(near, CHUNKED | more), framed(far, CHUNKED | more));
            let saying = async {
                client.write_all(&text).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let pulling = async {
                let mut pulled = 0;
                loop {
                    let pull = poll_fn(|cx| near.poll_pull(cx, Source::Socket(&source)));
                    match pull.await.unwrap() {
                        Some(0) => break,
                        n => pulled += n.unwrap(),
                    }
                }
                near.shutdown().await.unwrap();
                pulled
            };
            let mut read = Vec::new();
            let ((), pulled, heard) = tokio::join!(saying, pulling, far.read_to_end(&mut read));
            assert_eq!((pulled, heard.unwrap()), (text.len(), text.len()));
            assert!(read == text);
        }
    }
}
