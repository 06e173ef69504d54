//! How connections begin and end, and with them sessions (3.1, 3.2, 3.14, 4.1).

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::rc::Rc;

use super::publish::OWN_TOPICS;
use super::{Broker, NO_LISTENER};
use crate::mqtt::acl::{Access, Client};
use crate::mqtt::auth::Login;
use crate::mqtt::bridge::PREFIX;
use crate::mqtt::codec::property::id as property;
use crate::mqtt::codec::{
    ConnAck, Connect, Packet, Properties, PropertyWriter, Reason, Version, encode,
};
use crate::mqtt::hook::{Event, Interest};
use crate::mqtt::message::Message;
use crate::mqtt::metrics::Metric;
use crate::mqtt::options::Limits;
use crate::mqtt::session::{ALIASES_MAX, LastWill, LinkId, Session};
use crate::mqtt::topic;
use crate::mqtt::topic::tree::SessionId;
use crate::mqtt::{NEVER, Time, seconds};

/// Who the driver let in.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// As whom; `None`: anonymous.
    pub username: Option<Box<str>>,
    /// No rule binds him.
    pub superuser: bool,
    /// From where.
    pub address: SocketAddr,
    /// By which listener.
    pub listener: u16,
}

/// The CONNACK of a refusal; empty where MQTT 3 has no word for it.
#[must_use]
pub fn refusal(version: Version, reason: Reason) -> Vec<u8> {
    let mut bytes = Vec::new();
    let code = match version {
        Version::V5 => Some(reason.0),
        Version::V3 | Version::V4 => reason.return_code(),
    };
    if let Some(code) = code {
        let ack = ConnAck {
            session_present: false,
            reason: Reason(code),
            properties: Properties::default(),
        };
        encode(&Packet::ConnAck(ack), version, &mut bytes);
    }
    bytes
}

/// The keep-alive that a client is told to use in place of its own.
fn imposed_keep_alive(connect: &Connect<'_>, max: u16) -> Option<u16> {
    let asked = connect.keep_alive;
    let too_long = max > 0 && (asked == 0 || asked > max);
    (too_long && connect.version == Version::V5).then_some(max)
}

/// Seconds that a client's session is to outlive its connection.
fn expiry(connect: &Connect<'_>, limits: &Limits) -> u32 {
    let wanted = connect.properties.number(property::SESSION_EXPIRY);
    match connect.version {
        Version::V5 => wanted.unwrap_or(0),
        Version::V3 | Version::V4 if connect.clean => 0,
        Version::V3 | Version::V4 => limits.session_expiry,
    }
}

/// What CONNACK says of the broker, and of what it makes of the client's wishes.
fn greeting(
    limits: &Limits,
    assigned: Option<&str>,
    keep_alive: Option<u16>,
    information: Option<&str>,
) -> PropertyWriter {
    let mut properties = PropertyWriter::default();
    if let Some(assigned) = assigned {
        properties.text(property::ASSIGNED_CLIENT_ID, assigned);
    }
    properties.u16(property::RECEIVE_MAXIMUM, limits.awaiting_rel_max);
    properties.u16(property::ALIAS_MAXIMUM, ALIASES_MAX);
    if let Ok(size) = u32::try_from(limits.packet_bytes_max) {
        properties.u32(property::MAXIMUM_PACKET, size);
    }
    if let Some(seconds) = keep_alive {
        properties.u16(property::SERVER_KEEP_ALIVE, seconds);
    }
    if let Some(text) = information {
        properties.text(property::RESPONSE_INFORMATION, text);
    }
    properties
}

impl Broker {
    /// What is known of a client before its password was checked.
    pub fn login(&mut self, now: Time, connect: &Connect<'_>, address: SocketAddr) -> Login {
        self.metrics.add(Metric::ConnectReceived, 1);
        let time = self.unix_ms(now) / 1000;
        let (client_id, username) = (connect.client_id, connect.username);
        if self.bans.hold(client_id, username, address.ip(), time) {
            return Login::Refused(Reason::BANNED);
        }
        self.users.login(username, connect.password)
    }

    /// Counts a client that was refused.
    pub fn refused(&mut self, reason: Reason) {
        self.metrics.add(Metric::ConnackSent, 1);
        self.metrics.add(Metric::ConnackError, 1);
        if matches!(reason, Reason::BAD_CREDENTIALS | Reason::NOT_AUTHORIZED) {
            self.metrics.add(Metric::ConnackAuthError, 1);
            self.metrics.add(Metric::ClientAuthFailure, 1);
        }
    }

    /// Begins a connection of a client that was admitted; CONNACK is queued.
    ///
    /// # Errors
    /// Why it is refused; the connection is not known to the broker then.
    pub fn connect(
        &mut self,
        now: Time,
        link: LinkId,
        connect: &Connect<'_>,
        who: Admitted,
    ) -> Result<SessionId, Reason> {
        if connect.properties.text(property::AUTH_METHOD).is_some() {
            return Err(Reason::BAD_AUTH_METHOD);
        }
        if connect.client_id.starts_with(PREFIX) && who.listener != NO_LISTENER {
            return Err(Reason::BAD_CLIENT_ID);
        }
        let assigned = self.assigned(connect)?;
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let will = self.will(now, connect, client_id, &who)?;
        let (id, present) = self.session_for(now, connect.clean, client_id, &who)?;
        let limits = self.limits;
        let wanted = connect.properties.number(property::REQUEST_RESPONSE) == Some(1);
        let information = self.response_information.clone().filter(|_| wanted);
        let Some(session) = self.session(id) else {
            return Err(Reason::UNSPECIFIED);
        };
        session.username = who.username;
        session.superuser = who.superuser;
        session.address = who.address;
        session.listener = who.listener;
        session.bridge = connect.bridge;
        session.clean = connect.clean;
        session.version = connect.version;
        session.connected = now;
        let imposed = imposed_keep_alive(connect, limits.keep_alive_max);
        session.keep_alive = imposed.unwrap_or(connect.keep_alive);
        session.heard = now;
        session.expiry = expiry(connect, &limits);
        session.will = will.map(Box::new);
        session.attach(link, connect.properties, &limits);
        let properties = greeting(
            &limits,
            assigned.as_deref(),
            imposed,
            information.as_deref(),
        );
        let ack = ConnAck {
            // MQTT 3.1 has no such flag; there the bit is reserved.
            session_present: present && connect.version != Version::V3,
            reason: Reason::SUCCESS,
            properties: properties.finish(),
        };
        session.received.packets += 1;
        let anonymous = session.username.is_none();
        self.say(id, &Packet::ConnAck(ack));
        self.note_connected(id);
        self.schedule(id);
        self.stats.connections.rise();
        self.metrics.add(Metric::ClientConnected, 1);
        self.metrics.add(
            if anonymous {
                Metric::ClientAnonymous
            } else {
                Metric::ClientAuthSuccess
            },
            1,
        );
        self.tell_connected(now, id);
        Ok(id)
    }

    fn tell_connected(&mut self, now: Time, id: SessionId) {
        self.notify(now, Interest::CONNECTED, |broker, show| {
            if let Some(session) = broker.peek(id) {
                show(&Event::Connected { session });
            }
        });
        self.tell_presence(now, id, None);
    }

    /// A name for a client without one (3.1.3.1); `None`: it has one.
    fn assigned(&mut self, connect: &Connect<'_>) -> Result<Option<Box<str>>, Reason> {
        if !connect.client_id.is_empty() {
            return Ok(None);
        }
        let allowed = match connect.version {
            Version::V3 => false,
            Version::V4 => connect.clean,
            Version::V5 => true,
        };
        if !allowed {
            return Err(Reason::BAD_CLIENT_ID);
        }
        self.named += 1;
        // Keyed with random keys: nobody guesses another's name.
        let random = self.keys.hash_one(self.named);
        Ok(Some(format!("auto-{random:016x}").into()))
    }

    fn will(
        &self,
        now: Time,
        connect: &Connect<'_>,
        client_id: &str,
        who: &Admitted,
    ) -> Result<Option<LastWill>, Reason> {
        let Some(will) = &connect.will else {
            return Ok(None);
        };
        if !topic::is_name(will.topic) {
            return Err(Reason::TOPIC_INVALID);
        }
        let client = Client {
            client_id,
            username: who.username.as_deref(),
            address: who.address.ip(),
        };
        let meant = super::delayed::meant(will.topic);
        let own = meant.starts_with(OWN_TOPICS);
        let allowed = who.superuser || self.acl.allows(client, Access::Publish, meant);
        if own || !allowed {
            return Err(Reason::NOT_AUTHORIZED);
        }
        let flags = (will.qos, will.retain);
        let message = Message::new(
            now,
            will.topic,
            will.properties,
            will.payload,
            flags,
            // No-local is for what the client publishes itself; a will is the broker's word.
            SessionId::MAX,
        )
        .ok_or(Reason::PACKET_TOO_LARGE)?;
        Ok(Some(LastWill {
            message,
            delay: will.properties.number(property::WILL_DELAY).unwrap_or(0),
        }))
    }

    /// The client's session, taken over or new, and whether it was there.
    fn session_for(
        &mut self,
        now: Time,
        clean: bool,
        client_id: &str,
        who: &Admitted,
    ) -> Result<(SessionId, bool), Reason> {
        if let Some(&id) = self.by_client.get(client_id) {
            // Another user's session is not for the taking: it may hold what he alone may read.
            let other = self
                .session(id)
                .is_some_and(|old| old.username != who.username);
            let live = self.session(id).is_some_and(|old| old.link.is_some());
            self.close(now, id, Reason::TAKEN_OVER);
            if clean || other {
                if self.peek(id).is_some() {
                    self.metrics.add(Metric::SessionDiscarded, 1);
                }
                self.end(now, id);
            } else if live && self.peek(id).is_some() {
                self.metrics.add(Metric::SessionTakenOver, 1);
            }
        }
        if let Some(&id) = self.by_client.get(client_id) {
            self.metrics.add(Metric::SessionResumed, 1);
            return Ok((id, true));
        }
        if self.by_client.len() >= self.limits.sessions_max {
            return Err(Reason::SERVER_BUSY);
        }
        let client_id: Rc<str> = client_id.into();
        let session = Some(Box::new(Session::new(
            Rc::clone(&client_id),
            who.address,
            now,
        )));
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.sessions.push(None);
                SessionId::try_from(self.sessions.len() - 1).map_err(|_| Reason::SERVER_BUSY)?
            }
        };
        if let Some(place) = self.sessions.get_mut(id as usize) {
            *place = session;
        }
        self.by_client.insert(client_id, id);
        self.metrics.add(Metric::SessionCreated, 1);
        self.stats.sessions.rise();
        Ok((id, false))
    }

    /// DISCONNECT came: the will is not said, unless it is asked for (3.14.4).
    pub(super) fn disconnected(
        &mut self,
        now: Time,
        id: SessionId,
        reason: Reason,
        properties: Properties<'_>,
    ) {
        let Some(session) = self.session(id) else {
            return;
        };
        if let Some(expiry) = properties.number(property::SESSION_EXPIRY) {
            if session.expiry == 0 && expiry > 0 {
                self.close(now, id, Reason::PROTOCOL_ERROR);
                return;
            }
            session.expiry = expiry;
        }
        // What is still to be sent is let go: the client reads no more.
        if reason == Reason::SUCCESS {
            session.will = None;
        }
        if let Some(link) = session.link.take() {
            self.effects.push(super::Effect::Close(link, Vec::new()));
        }
        self.lost(now, id, reason.cause());
    }

    /// A session's connection is gone, for a reason in EMQX's words. Without a DISCONNECT before, its
    /// will is said.
    pub fn lost(&mut self, now: Time, id: SessionId, cause: &'static str) {
        let Some(session) = self.session(id) else {
            return;
        };
        if session.lost != NEVER {
            return;
        }
        session.detach(now);
        let listener = session.listener;
        self.stats.connections.fall();
        self.metrics.add(Metric::ClientDisconnected, 1);
        if let Some(listener) = self.listeners.get_mut(usize::from(listener)) {
            listener.closed(cause);
        }
        self.notify(now, Interest::DISCONNECTED, |broker, show| {
            if let Some(session) = broker.peek(id) {
                let reason = cause;
                show(&Event::Disconnected { session, reason });
            }
        });
        self.tell_presence(now, id, Some(cause));
        let client_id = self.peek(id).map(|session| Rc::clone(&session.client_id));
        if let Some(client_id) = client_id {
            self.count_end(now, &client_id);
        }
        let Some(session) = self.session(id) else {
            return;
        };
        if session.expiry == 0 {
            self.end(now, id);
            return;
        }
        self.note(id, false, |ledger| ledger.changed = true);
        let Some(session) = self.session(id) else {
            return;
        };
        match &session.will {
            Some(will) if will.delay > 0 => {
                session.will_due = now.saturating_add(seconds(will.delay));
            }
            Some(_) => self.say_will(now, id),
            None => {}
        }
        self.schedule(id);
    }

    pub(super) fn say_will(&mut self, now: Time, id: SessionId) {
        let Some(session) = self.session(id) else {
            return;
        };
        session.will_due = NEVER;
        if let Some(will) = session.will.take() {
            let (publisher, mut message) = (session.publisher(), will.message);
            if message.expires != NEVER {
                // It counts from now, not from CONNECT (3.1.3.2.4).
                message.expires += now.saturating_sub(session.connected);
            }
            if let Err(message) = self.delay(now, message, &|_| Some(Rc::clone(&publisher))) {
                self.take_in(now, message, &publisher);
            }
        }
    }

    /// A session's end: its will is said now at the latest, its subscriptions go.
    pub(super) fn end(&mut self, now: Time, id: SessionId) {
        self.say_will(now, id);
        let Some(session) = self.sessions.get_mut(id as usize).and_then(Option::take) else {
            return;
        };
        self.note_ended(id, &session);
        for node in session.nodes {
            self.tree.remove(node, None, id);
            self.stats.subscriptions.fall();
        }
        for (node, group) in session.shares {
            self.tree.remove(node, Some(&group), id);
            self.stats.subscriptions.fall();
            self.stats.shared.fall();
        }
        self.stats.routes.set(self.tree.routes());
        self.stats.sessions.fall();
        self.metrics.add(Metric::SessionTerminated, 1);
        self.by_client.remove(&session.client_id);
        self.free.push(id);
    }
}
