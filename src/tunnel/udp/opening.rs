//! The beginning of a UDP session: what is it called, where may it go, open the way.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use super::{Open, Session, pick};
use crate::metadata::Metadata;
use crate::outbound::{IpVersion, Purpose};
use crate::platform::clock;
use crate::sniff::quic::Initial;
use crate::sniff::{self, Reading};
use crate::tunnel::Tunnel;
use crate::tunnel::dispatch::{Refusal, log_decision, name_destination};
use crate::tunnel::routing::{Routing, Sniffer};
use crate::tunnel::sniffer;

/// How often, and at what distance, a hello that spans datagrams is looked for: a client sends them
/// in one burst.
const LOOKS: usize = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Decides for the session by its first datagrams and opens its association; `None` when it goes
/// nowhere, which is logged.
pub(super) async fn open(
    tunnel: &Tunnel,
    session: &Session,
    mut metadata: Metadata,
) -> Option<Open> {
    let routing = tunnel.routing();
    match try_open(tunnel, session, &routing, &mut metadata).await {
        Ok(open) => Some(open),
        Err(refusal) => {
            let (source, destination) = (metadata.source, metadata.destination());
            log::info!("[UDP] {source} --> {destination} refused: {refusal}");
            None
        }
    }
}

async fn try_open(
    tunnel: &Tunnel,
    session: &Session,
    routing: &Routing,
    metadata: &mut Metadata,
) -> Result<Open, Refusal> {
    let asked = metadata
        .destination_ip
        .map(|address| SocketAddr::new(address, metadata.destination_port));
    let names = &tunnel.names;
    name_destination(&**names, metadata)?;
    if sniffer::wanted(&routing.sniffer, metadata) {
        let reading = read(session, metadata.destination_port, &routing.sniffer).await;
        sniffer::enter(&routing.sniffer, metadata, reading);
    }
    // Rules see an address for UDP (clash-api.md 4.1): the datagrams are sent to one in any case.
    if let (Some(host), None) = (metadata.host.clone(), metadata.destination_ip) {
        let found = names.resolve(&host, IpVersion::Dual, Purpose::Rule).await;
        let like = asked.map_or(metadata.source.ip(), |asked| asked.ip());
        metadata.destination_ip = found.ok().and_then(|found| pick(&found, like));
    }
    let decision = tunnel.decide(routing, &**names, metadata).await?;
    log_decision(routing, metadata, &decision);
    let associated = decision.node.associate(metadata).await;
    let datagrams = associated.map_err(Refusal::Failed)?;
    if let (Some(asked), Some(real)) = (asked, metadata.destination_ip)
        && asked.ip() != real
    {
        let real = SocketAddr::new(real, asked.port());
        session.state().named.push((asked, real));
    }
    let rule = routing.rule_names(&decision);
    let direct = decision.node.kind().is_direct();
    let start = clock::unix_time();
    let metadata = metadata.clone();
    let pace = tunnel.pacing().of(metadata.inbound_user.as_ref());
    let connection = tunnel
        .connections
        .open(metadata, decision.chain, rule, start);
    Ok(Open {
        datagrams,
        connection,
        direct,
        pace,
    })
}

/// Reads the name from the datagrams that wait.
async fn read(session: &Session, port: u16, sniffer: &Sniffer) -> Reading {
    let (mut initial, mut seen) = (Initial::default(), 0);
    for _ in 0..LOOKS {
        let fresh: Vec<Box<[u8]>> = {
            let state = session.state();
            let waiting = state.waiting.iter().skip(seen);
            waiting.map(|(_, payload)| payload.clone()).collect()
        };
        seen += fresh.len();
        for datagram in fresh {
            match sniff::udp(&mut initial, &datagram, port, &sniffer.options) {
                Reading::NeedMore => {}
                reading => return reading,
            }
        }
        sleep(LOOK_AGAIN).await;
    }
    Reading::Nothing
}
