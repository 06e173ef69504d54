//! A connection to rtnetlink that carries the four kinds of message that we read and write.
//!
//! The crate rtnetlink opens and drives the socket and netlink-packet-route encodes and decodes. Only
//! the crate's own `Handle` is not used: it decodes every message that there is, links of forty kinds
//! and traffic control among them, which is half a megabyte of code that a router would never run.

use std::io;

use futures_util::{Stream, StreamExt};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{NeighbourMessage, NeighbourState};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    Parseable,
};
use rtnetlink::proto::{Connection, ConnectionHandle, NetlinkCodec, new_connection};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use super::RouteError;

/// Message types of rtnetlink(7), from `linux/rtnetlink.h`.
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

/// The subject of a message.
#[derive(Clone, Debug)]
pub(in crate::platform) enum Subject {
    /// An address of an interface.
    Address(AddressMessage),
    /// A route.
    Route(RouteMessage),
    /// An entry of the neighbour table.
    Neighbour(NeighbourMessage),
    /// A policy rule.
    Rule(RuleMessage),
    /// Anything else, or the end of something: it says that there was a change, and no more.
    Change,
}

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::platform) enum Verb {
    /// Add it; an error where it is there.
    Add,
    /// Remove it.
    Delete,
    /// List those that are like it.
    Dump,
}

/// One message of rtnetlink, without its header.
#[derive(Clone, Debug)]
pub(in crate::platform) struct Message {
    kind: u16,
    subject: Subject,
}

impl Message {
    fn new(verb: Verb, subject: Subject) -> Self {
        let (add, delete, get) = match &subject {
            Subject::Address(_) => (RTM_NEWADDR, 0, RTM_GETADDR),
            Subject::Route(_) => (RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE),
            Subject::Neighbour(_) => (RTM_NEWNEIGH, 0, RTM_GETNEIGH),
            Subject::Rule(_) => (RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE),
            Subject::Change => (0, 0, 0),
        };
        let kind = match verb {
            Verb::Add => add,
            Verb::Delete => delete,
            Verb::Dump => get,
        };
        Self { kind, subject }
    }

    fn body(&self) -> Option<&dyn Emitable> {
        match &self.subject {
            Subject::Address(message) => Some(message),
            Subject::Route(message) => Some(message),
            Subject::Neighbour(message) => Some(message),
            Subject::Rule(message) => Some(message),
            Subject::Change => None,
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body().map_or(0, Emitable::buffer_len)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(body) = self.body() {
            body.emit(buffer);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let subject = match header.message_type {
            RTM_NEWADDR => Subject::Address(AddressMessage::parse(payload)?),
            RTM_NEWROUTE => Subject::Route(RouteMessage::parse(payload)?),
            RTM_NEWNEIGH => Subject::Neighbour(NeighbourMessage::parse(payload)?),
            RTM_DELNEIGH => {
                let mut message = NeighbourMessage::parse(payload)?;
                message.header.state = NeighbourState::Failed;
                Subject::Neighbour(message)
            }
            RTM_NEWRULE => Subject::Rule(RuleMessage::parse(payload)?),
            _ => Subject::Change,
        };
        Ok(Self {
            kind: header.message_type,
            subject,
        })
    }
}

/// Drives the socket; to be spawned.
pub(in crate::platform) type Driver = Connection<Message, TokioSocket, NetlinkCodec>;

/// Asks the kernel.
#[derive(Clone, Debug)]
pub(in crate::platform) struct Requests(ConnectionHandle<Message>);

/// Connects and joins `groups`: what drives the socket, where to ask, and what the kernel tells unasked
/// (`None`: messages got lost).
///
/// # Errors
/// What the kernel says of the socket.
pub(in crate::platform) fn open(
    groups: &[MulticastGroup],
) -> io::Result<(
    Driver,
    Requests,
    impl Stream<Item = Option<Subject>> + use<>,
)> {
    let (mut driver, handle, messages) = new_connection::<Message>(NETLINK_ROUTE)?;
    let mask = groups
        .iter()
        .fold(0_u32, |mask, group| mask | 1 << (*group as u32 - 1));
    let socket = driver.socket_mut().socket_mut();
    socket.bind(&SocketAddr::new(0, mask))?;
    // Makes the kernel heed the filters of dump requests.
    socket.set_netlink_get_strict_chk(true)?;
    let told = messages.filter_map(|(message, _)| async {
        match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(Some(message.subject)),
            NetlinkPayload::Overrun(_) => Some(None),
            _ => None,
        }
    });
    Ok((driver, Requests(handle), told))
}

impl Requests {
    /// Asks, and collects what is answered: the entries of a dump, nothing for the rest.
    ///
    /// # Errors
    /// [`RouteError`].
    pub(in crate::platform) async fn ask(
        &self,
        verb: Verb,
        subject: Subject,
    ) -> Result<Vec<Subject>, RouteError> {
        let mut message = NetlinkMessage::from(Message::new(verb, subject));
        message.header.flags = NLM_F_REQUEST
            | match verb {
                Verb::Add => NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE,
                Verb::Delete => NLM_F_ACK,
                Verb::Dump => NLM_F_DUMP,
            };
        let kernel = SocketAddr::new(0, 0);
        let mut answers = self
            .0
            .request(message, kernel)
            .map_err(|error| RouteError::Netlink(error.to_string().into()))?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.push(message.subject),
                NetlinkPayload::Error(error) => {
                    if let Some(code) = error.code {
                        let errno = Errno::from_raw(code.get().wrapping_neg());
                        return Err(RouteError::Refused(errno));
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}
