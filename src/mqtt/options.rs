//! What the configuration says of the broker (contract, section `mqtt:`).

use std::net::SocketAddr;
use std::path::Path;

use super::acl::Rule;
use super::bridge::BridgeOptions;
use super::password::{Secret, Storage};

/// `mqtt:`
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `enable`.
    pub enable: bool,
    /// `management.node`, which stands in topics of `$SYS`.
    pub node: Box<str>,
    /// `listeners`.
    pub listeners: Vec<ListenerOptions>,
    /// `allow-anonymous`.
    pub allow_anonymous: bool,
    /// `users`.
    pub users: Vec<User>,
    /// `password-storage`: how the passwords of users who are added while it runs are kept.
    pub storage: Storage,
    /// `acl`, in order; the first that speaks of a request decides.
    pub acl: Vec<Rule>,
    /// `acl-default`: what holds when no rule speaks.
    pub acl_default: bool,
    /// `response-information` for clients of MQTT 5 that ask for it.
    pub response_information: Option<Box<str>>,
    /// `bridges` to other brokers.
    pub bridges: Vec<BridgeOptions>,
    /// Bounds of what clients may hold.
    pub limits: Limits,
    /// `persistence`: what survives a restart is written to the daemon's directory.
    pub persistence: bool,
    /// `persistence-sync`.
    pub sync: Sync,
    /// `persistence-retained`, seconds: how long further values of a retained topic may wait.
    pub retained_after: u32,
}

/// By what the member of a shared subscription is chosen that gets a message; one that is not
/// connected is passed over while another is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The same as long as he is there.
    Sticky,
    /// The same for a publisher's client identifier.
    HashClientId,
    /// The same for a topic.
    HashTopic,
}

/// `flapping-detect`: whose connections end `count` times within `window` seconds is banned for `ban`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// `count`.
    pub count: u32,
    /// `window`, seconds.
    pub window: u32,
    /// `ban`, seconds.
    pub ban: u32,
}

/// When what is written is forced onto the medium.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Before it is promised: nothing that was acknowledged is lost.
    Strict,
    /// Within a second.
    #[default]
    Batched,
    /// When the system likes.
    Never,
}

/// One entry of `mqtt.listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerOptions {
    /// `name`.
    pub name: Box<str>,
    /// `listen`.
    pub listen: SocketAddr,
    /// `type: ws` or `wss`.
    pub websocket: bool,
    /// `type: tls` or `wss`.
    pub tls: Option<TlsOptions>,
    /// `max-connections`: further ones are closed at once.
    pub connections_max: usize,
    /// `max-connection-rate`, a second: further ones wait; 0: no bound.
    pub connection_rate: u32,
}

/// Where a listener's certificate is, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// `certificate`: the chain, the listener's own first.
    pub certificate: Box<Path>,
    /// `private-key`.
    pub private_key: Box<Path>,
    /// `client-ca`: clients must show a certificate of one of these authorities.
    pub client_ca: Option<Box<Path>>,
}

/// One entry of `mqtt.users`.
#[derive(Clone, Debug)]
pub struct User {
    /// `username`.
    pub name: Box<str>,
    /// `password` or `password-hash`.
    pub secret: Secret,
    /// `superuser`: no rule binds him.
    pub superuser: bool,
}

/// Bounds. What happens beyond each stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `max-packet-size`, bytes: the connection is closed.
    pub packet_bytes_max: usize,
    /// `max-inflight`: further messages wait.
    pub inflight_max: u16,
    /// `max-mqueue`: the oldest waiting message is dropped.
    pub queue_max: usize,
    /// `max-mqueue-bytes` of what waits for a client: the oldest is dropped. One message may be larger.
    pub queue_bytes_max: usize,
    /// `max-awaiting-rel`: the connection is closed.
    pub awaiting_rel_max: u16,
    /// `max-retained`: a message on a further topic is delivered but not kept.
    pub retained_max: usize,
    /// `max-retained-bytes`, as they stand in memory: further ones are not kept.
    pub retained_bytes_max: usize,
    /// `max-delayed`: further messages to `$delayed/…` are refused.
    pub delayed_max: usize,
    /// `session-expiry`, seconds, of MQTT 3 clients that ask for a session.
    pub session_expiry: u32,
    /// `max-sessions`, connected or not: further clients are refused.
    pub sessions_max: usize,
    /// `max-subscriptions` of a client: further ones are refused.
    pub subscriptions_max: usize,
    /// `max-message-rate` of a client, a second: it is not read from until that is made good; 0: no
    /// bound.
    pub message_rate: u32,
    /// `shared-subscription-strategy`.
    pub share: Share,
    /// `flapping-detect`; none: nobody is watched.
    pub flapping: Option<Flapping>,
    /// `max-keep-alive`, seconds; 0: none. Clients of MQTT 5 that want more are told this one.
    pub keep_alive_max: u16,
    /// `acl-deny-reason: unspecified`: a client of MQTT 5 is not told that it is a rule that refuses.
    pub hide_rules: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1024 * 1024,
            inflight_max: 32,
            queue_max: 1000,
            queue_bytes_max: 4 * 1024 * 1024,
            awaiting_rel_max: 100,
            retained_max: 10_000,
            retained_bytes_max: 16 * 1024 * 1024,
            delayed_max: 1000,
            session_expiry: 7200,
            sessions_max: 10_000,
            subscriptions_max: 100_000,
            message_rate: 0,
            share: Share::default(),
            flapping: None,
            keep_alive_max: 0,
            hide_rules: false,
        }
    }
}
