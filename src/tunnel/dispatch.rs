//! The road of one stream: what is it called, where may it go, dial, relay.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::metadata::{DnsMode, Metadata, Network};
use crate::outbound::{BoxFuture, IpVersion, Purpose, Stream};
use crate::platform::blocking::blocking;
use crate::platform::{clock, own_dials, process, socket};

use super::Tunnel;
use super::connections::Connections;
use super::flow::Dispatch;
use super::names::{Hosts, Mapping, Names};
use super::pacing::Paced;
use super::relay::relay;
use super::routing::{Decision, Mode, Routing, Step};
use super::sniffer;

/// How long REJECT-DROP keeps a client waiting, as mihomo does.
const SILENCE: Duration = Duration::from_secs(60);

/// Aliases of aliases in `hosts`.
const ALIASES_MAX: usize = 8;

/// Why a flow goes nowhere.
#[derive(Debug)]
pub enum Refusal {
    /// A fake address that was never given out, or was forgotten.
    FakeUnknown(IpAddr),
    /// It comes from ourselves: a proxy of ours leads back here.
    Loop,
    /// The user has moved all that he may this month.
    OverQuota,
    /// The device is blocked for a while.
    Blocked,
    /// The rules name no way out.
    NoWay,
    /// Others need its seat.
    NoRoom,
    /// The way out failed.
    Failed(io::Error),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FakeUnknown(address) => write!(f, "fake address {address} stands for no name"),
            Self::Loop => {
                f.write_str("it came back from ourselves: a proxy leads to this machine's own port")
            }
            Self::OverQuota => f.write_str("the user's monthly quota is used up"),
            Self::Blocked => f.write_str("the device is blocked"),
            Self::NoWay => f.write_str("no outbound takes it"),
            Self::NoRoom => f.write_str("cut to make room for others"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl Dispatch for Tunnel {
    fn stream(&self, metadata: Metadata, client: Stream) -> BoxFuture<'_, ()> {
        Box::pin(self.serve_stream(metadata, client))
    }

    fn datagram(
        &self,
        source: std::net::SocketAddr,
        to: crate::metadata::Endpoint,
        payload: &[u8],
        reply: &Arc<dyn super::flow::ReplySink>,
        describe: &dyn Fn() -> Metadata,
    ) {
        self.sessions
            .datagram(self, source, to, payload, reply, describe);
    }
}

impl Tunnel {
    /// Relays one accepted stream until it ends. Failures are the client's to see (a reset) and the
    /// log's to name.
    pub async fn serve_stream(&self, mut metadata: Metadata, mut client: Stream) {
        let routing = self.routing();
        let turn = self.admission.prepare(metadata.source.ip());
        let prepared = Box::pin(self.prepare(&routing, &mut metadata, &mut client));
        let decided = turn.limit(prepared).await;
        let (decision, remote) = match decided.unwrap_or(Err(Refusal::NoRoom)) {
            Ok(ready) => ready,
            Err(refusal) => {
                let level = match refusal {
                    Refusal::Loop => log::Level::Warn,
                    Refusal::NoRoom => log::Level::Debug,
                    _ => log::Level::Info,
                };
                log::log!(
                    level,
                    "[TCP] {} --> {} refused: {refusal}",
                    metadata.source,
                    metadata.destination()
                );
                if let Stream::Tcp(socket) = &client {
                    socket::reset_on_close(socket);
                }
                return;
            }
        };
        match remote {
            Stream::Closed => return,
            // Nobody is kept waiting in a seat that others need.
            Stream::Silent if self.admission.is_crowded() => return,
            Stream::Silent => {
                let _silence = turn.limit(tokio::time::sleep(SILENCE)).await;
                return;
            }
            Stream::Tcp(_) | Stream::Boxed(_) | Stream::Shedding(_) => {}
        }
        let rule = routing.rule_names(&decision);
        drop(routing);
        let connection = self
            .connections
            .open(metadata, decision.chain, rule, clock::unix_time());
        if let Stream::Tcp(socket) = &remote
            && let Ok(address) = socket.peer_addr()
        {
            let _first = connection.remote.set(address.ip().to_canonical());
        }
        drop(decision.node);
        // The caller may drop this future in the middle; the flow is over then all the same.
        let _entry = Entry {
            connections: &self.connections,
            id: connection.id,
        };
        drop(turn);
        let pace = self.pacing.of(connection.metadata.inbound_user.as_ref());
        let client = Paced::stream(client, pace);
        let ended = relay(client, remote, &connection, &self.connections).await;
        if let Err(error) = ended {
            log::debug!(
                "[TCP] {} --> {}: {error}",
                connection.metadata.source,
                connection.metadata.destination()
            );
        }
    }

    /// Opens a stream of the daemon's own (a download) by the listener's proxy, the mode or the rules.
    /// It is not among the connections.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn open(&self, mut metadata: Metadata) -> Result<Stream, Refusal> {
        let routing = self.routing();
        let decision = self.decide(&routing, &*self.names, &mut metadata).await?;
        log_decision(&routing, &metadata, &decision);
        drop(routing);
        let opened = decision.node.connect(&metadata).await;
        opened.map_err(Refusal::Failed)
    }

    /// Everything before the relay; boxed by the caller, so that its memory is given back then.
    async fn prepare(
        &self,
        routing: &Routing,
        metadata: &mut Metadata,
        client: &mut Stream,
    ) -> Result<(Decision, Stream), Refusal> {
        if own_dials::is_ours(metadata.source, clock::now()) {
            return Err(Refusal::Loop);
        }
        let names = &self.names;
        let named = name_destination(&**names, metadata);
        let mut sniffed = false;
        if sniffer::wanted(&routing.sniffer, metadata) {
            let port = metadata.destination_port;
            let reading = sniffer::read(client, port, &routing.sniffer.options).await;
            sniffed = sniffer::enter(&routing.sniffer, metadata, reading);
        }
        if let (Err(refusal), false) = (named, sniffed) {
            return Err(refusal);
        }
        let decision = self.decide(routing, &**names, metadata).await?;
        log_decision(routing, metadata, &decision);
        let dialled = decision.node.connect(metadata).await;
        routing.dialled(&decision, dialled.as_ref().err());
        match dialled {
            Ok(remote) => Ok((decision, remote)),
            Err(error) => Err(Refusal::Failed(error)),
        }
    }

    /// Whether somebody asks for Ethernet addresses.
    fn wants_mac(&self, routing: &Routing) -> bool {
        let connections = &self.connections;
        let counted = connections.is_watched() || connections.history().is_some();
        counted || routing.needs().mac || self.blocked.any()
    }

    /// Looks up what rules ask of the device.
    pub(super) fn look_up_device(&self, routing: &Routing, metadata: &mut Metadata) {
        let (needs, address) = (routing.needs(), metadata.source.ip());
        if metadata.source_mac.is_none() && self.wants_mac(routing) {
            metadata.source_mac = self.devices.mac_of(address);
        }
        if needs.host && metadata.source_host.is_none() {
            metadata.source_host = self.devices.name_of(address, metadata.source_mac);
        }
    }

    /// Decides by the rules, resolving the host when one of them needs its address.
    pub(super) async fn decide(
        &self,
        routing: &Routing,
        names: &dyn Names,
        metadata: &mut Metadata,
    ) -> Result<Decision, Refusal> {
        if self.quotas.bars(metadata.inbound_user.as_deref()) {
            return Err(Refusal::OverQuota);
        }
        let address = metadata.source.ip();
        if metadata.source_mac.is_none() && self.wants_mac(routing) {
            metadata.source_mac = match self.devices.mac_of(address) {
                Some(mac) => Some(mac),
                None => self.devices.seek(address).await,
            };
        }
        self.look_up_device(routing, metadata);
        if self
            .blocked
            .covers(address, metadata.source_mac, clock::now)
        {
            return Err(Refusal::Blocked);
        }
        if routing.find_process && routing.needs().process && metadata.process.is_none() {
            let (network, source) = (metadata.network, metadata.source);
            let looking = blocking(move || process::owner(network, source));
            metadata.process = looking.await.ok().flatten().map(Arc::new);
        }
        let (mut from, mut may_resolve) = (
            0,
            metadata.host.is_some() && metadata.destination_ip.is_none(),
        );
        loop {
            match routing.decide(metadata, from, may_resolve) {
                None => return Err(Refusal::NoWay),
                Some(Step::Done(decision)) => {
                    // Nothing was asked where the listener or the mode decides.
                    if metadata.special_proxy.is_none() && routing.mode == Mode::Rule {
                        routing.tally.count(decision.rule, clock::unix_time());
                    }
                    return Ok(decision);
                }
                Some(Step::Resolve(index)) => {
                    (from, may_resolve) = (index, false);
                    if let Some(host) = metadata.host.clone() {
                        let found = names.resolve(&host, IpVersion::Dual, Purpose::Rule).await;
                        metadata.destination_ip =
                            found.ok().and_then(|addresses| addresses.first().copied());
                    }
                }
            }
        }
    }
}

/// Gives the destination its name: by fake address, by what our DNS answered, by `hosts`
/// (clash-api.md 4.1, steps 2 to 2d).
pub(super) fn name_destination(names: &dyn Names, metadata: &mut Metadata) -> Result<(), Refusal> {
    if let (None, Some(address)) = (&metadata.host, metadata.destination_ip) {
        match names.map(address) {
            Mapping::Unknown => {}
            Mapping::FakeUnknown => return Err(Refusal::FakeUnknown(address)),
            Mapping::Fake(name) => {
                metadata.host = Some(name);
                metadata.destination_ip = None;
                metadata.dns_mode = DnsMode::FakeIp;
            }
            Mapping::Real(name) => {
                metadata.host = Some(name);
                metadata.dns_mode = if names.fake_mode() {
                    DnsMode::FakeIp
                } else {
                    DnsMode::RedirHost
                };
            }
        }
    }
    for _ in 0..ALIASES_MAX {
        let Some(host) = &metadata.host else { break };
        match names.hosts(host) {
            Hosts::Unlisted => break,
            Hosts::Alias(name) => metadata.host = Some(name),
            Hosts::Address(address) => {
                metadata.destination_ip = Some(address);
                metadata.dns_mode = DnsMode::Hosts;
                break;
            }
        }
    }
    Ok(())
}

impl Routing {
    /// Type and payload of the rule that decided, for the APIs.
    pub(super) fn rule_names(&self, decision: &Decision) -> Option<(&'static str, Box<str>)> {
        let line = self.rule(decision.rule?)?;
        Some((line.kind, line.payload.into()))
    }
}

pub(super) fn log_decision(routing: &Routing, metadata: &Metadata, decision: &Decision) {
    if !log::log_enabled!(log::Level::Info) {
        return;
    }
    let network = match metadata.network {
        Network::Tcp => "TCP",
        Network::Udp => "UDP",
    };
    let rule = match routing.rule_names(decision) {
        Some((kind, payload)) if payload.is_empty() => kind.to_owned(),
        Some((kind, payload)) => format!("{kind}({payload})"),
        None => routing.mode.as_str().to_owned(),
    };
    log::info!(
        "[{network}] {} --> {} match {rule} using {}",
        metadata.source,
        metadata.destination(),
        decision.chain.join(" < ")
    );
}

/// A flow's place in the table of connections, given up when the flow ends.
struct Entry<'a> {
    connections: &'a Connections,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.connections.remove(self.id);
    }
}
