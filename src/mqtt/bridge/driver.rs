//! A bridge's task: connects there, then here, and lets the relay pass what comes.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::duplex;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::relay::{Noted, Relay, Taken};
use super::side::{Life, Side, malformed, put_subscribe, read, take};
use super::{BridgeOptions, Leg, client_id, state};
use crate::mqtt::client::{Ended, Patience, write_or_flush};
use crate::mqtt::codec::property::id;
use crate::mqtt::codec::{
    ConnAck, Connect as ConnectPacket, Framed, Packet, PropertyWriter, Qos, Reason, Version,
    decode, encode, frame,
};
use crate::mqtt::options::Limits;
use crate::mqtt::remote::Remote;
use crate::outbound::carrier::Carrier;
use crate::outbound::tls::TlsClient;
use crate::platform::blocking::blocking;
use crate::platform::clock;
use crate::provider::http::{Connect, open_carrier};

/// A broker that is back is found again within ten seconds.
const PATIENCE: Patience = Patience {
    first: Duration::from_millis(500),
    last: Duration::from_secs(8),
};

/// Names, TCP, TLS and CONNACK together.
const OPEN_TIME_MAX: Duration = Duration::from_secs(20);

/// The broker here answers at once.
const LOCAL_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes on their way between the threads, each way.
const LOCAL_BYTES: usize = 64 * 1024;

/// Messages that the other broker may have under way to us.
const INFLIGHT_MAX: u16 = 32;

/// How long the other broker is to keep our session.
const SESSION_SECONDS: u32 = 7 * 24 * 3600;

/// What CONNACK said.
struct Greeting {
    session_present: bool,
    inflight_max: u16,
    taken: Taken,
    keep_alive: u16,
}

struct Bridge {
    options: BridgeOptions,
    limits: Limits,
    broker: Remote,
    way: Arc<dyn Connect>,
    tls: Option<TlsClient>,
    /// Names this broker among others; of the log where there is one.
    identity: Box<str>,
}

/// Keeps a bridge up until it is dropped.
pub(super) async fn run(
    options: BridgeOptions,
    limits: Limits,
    broker: Remote,
    way: Arc<dyn Connect>,
) {
    let tls = match tls_client(&options).await {
        Ok(tls) => tls,
        Err(error) => return log::error!("mqtt bridge {}: {error}", options.name),
    };
    let identity = loop {
        match identity(&broker).await {
            Some(identity) => break identity,
            None => sleep(PATIENCE.first).await,
        }
    };
    let bridge = Bridge {
        options,
        limits,
        broker,
        way,
        tls,
        identity,
    };
    // From here on there is a session that messages wait in.
    while let Err(error) = bridge.begin().await {
        log::warn!("mqtt bridge {}: {error}", bridge.options.name);
        sleep(PATIENCE.first).await;
    }
    let (mut failures, mut said) = (0, String::new());
    loop {
        let mut was_up = false;
        let why = bridge.once(&mut was_up).await;
        if was_up {
            bridge.tell_state("0");
        }
        let why = why.to_string();
        // What goes on for days is said once.
        if was_up || why != said {
            log::warn!("mqtt bridge {}: {why}", bridge.options.name);
            said = why;
        }
        failures = if was_up { 0 } else { failures + 1 };
        sleep(PATIENCE.after(failures)).await;
    }
}

async fn tls_client(options: &BridgeOptions) -> io::Result<Option<TlsClient>> {
    let Some(tls) = &options.tls else {
        return Ok(None);
    };
    let files = options.trust.clone();
    let trust = blocking(move || files.read()).await??;
    let client = TlsClient::new(tls, &options.server.host.to_string());
    let client = client.and_then(|client| client.trusting(trust));
    client.map(Some).map_err(io::Error::other)
}

async fn identity(broker: &Remote) -> Option<Box<str>> {
    let (sender, receiver) = oneshot::channel();
    let told = broker.tell(move |broker, _| {
        let _gone = sender.send(broker.identity());
    });
    if told { receiver.await.ok() } else { None }
}

impl Bridge {
    fn relay(&self, taken: Taken) -> Relay<'_> {
        Relay {
            topics: &self.options.topics,
            version: self.options.version,
            identity: &self.identity,
            taken,
        }
    }

    /// Has the broker here know the session and its subscriptions.
    async fn begin(&self) -> io::Result<()> {
        let relay = self.relay(Taken {
            qos: Qos::ExactlyOnce,
            retain: true,
            packet_bytes: usize::MAX,
        });
        // Nothing is taken yet: with a window of one, one message may come, and is not answered.
        let mut local = self.open_local(&relay, 1, false)?;
        if local.out.is_empty() {
            return Ok(());
        }
        let mut done = false;
        let subscribed = async {
            while !done {
                let unsent = local.out.get(local.written..).unwrap_or_default();
                if unsent.is_empty() {
                    read(&mut local.reader, &mut local.input).await?;
                } else {
                    local.written += write_or_flush(&mut local.writer, unsent).await?;
                }
                take(&mut local.input, Version::V5, usize::MAX, |packet| {
                    done |= matches!(packet, Packet::SubAck(_));
                    Ok(())
                })?;
            }
            Ok(())
        };
        timeout(LOCAL_TIME_MAX, subscribed)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// One connection, from its beginning to its end; why it ended.
    async fn once(&self, was_up: &mut bool) -> io::Error {
        let opened = timeout(OPEN_TIME_MAX, self.open_remote()).await;
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (mut remote, greeting) = match opened {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        let relay = self.relay(greeting.taken);
        let forgotten = !greeting.session_present;
        let mut local = match self.open_local(&relay, greeting.inflight_max, forgotten) {
            Ok(local) => local,
            Err(error) => return error,
        };
        put_subscribe(
            &relay.remote_filters(),
            self.options.version,
            &mut remote.out,
        );
        *was_up = true;
        log::info!(
            "mqtt bridge {}: connected to {}",
            self.options.name,
            self.options.server
        );
        self.tell_state("1");
        match self
            .pass(&relay, &mut remote, &mut local, greeting.keep_alive)
            .await
        {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn open_remote(&self) -> io::Result<(Side, Greeting)> {
        let options = &self.options;
        let proxy = options.proxy.as_deref();
        let carrier = open_carrier(&*self.way, &options.server, proxy, self.tls.as_ref()).await?;
        let mut side = Side::new(carrier);
        self.put_connect(&mut side.out);
        loop {
            let unsent = side.out.get(side.written..).unwrap_or_default();
            if unsent.is_empty() {
                break;
            }
            side.written += write_or_flush(&mut side.writer, unsent).await?;
        }
        write_or_flush(&mut side.writer, &[]).await?;
        side.tidy();
        loop {
            let framed = frame(&side.input, self.limits.packet_bytes_max);
            if let Framed::Whole(whole) = framed.map_err(malformed)? {
                let packet = decode(whole, options.version).map_err(malformed)?;
                let Packet::ConnAck(ack) = packet else {
                    return Err(io::Error::other(Ended::OutOfPlace));
                };
                if ack.reason != Reason::SUCCESS {
                    return Err(io::Error::other(Ended::Refused(ack.reason)));
                }
                let greeting = self.greeting(&ack);
                let length = whole.length;
                side.input.drain(..length);
                return Ok((side, greeting));
            }
            read(&mut side.reader, &mut side.input).await?;
        }
    }

    fn put_connect(&self, out: &mut Vec<u8>) {
        let options = &self.options;
        let mut properties = PropertyWriter::default();
        if options.version == Version::V5 {
            if !options.clean {
                properties.u32(id::SESSION_EXPIRY, SESSION_SECONDS);
            }
            let most = self.limits.awaiting_rel_max.min(INFLIGHT_MAX);
            properties.u16(id::RECEIVE_MAXIMUM, most.max(1));
            let bytes = u32::try_from(self.limits.packet_bytes_max).unwrap_or(u32::MAX);
            properties.u32(id::MAXIMUM_PACKET, bytes);
        }
        let own = format!("headgate-{}-{}", options.name, self.identity);
        let connect = ConnectPacket {
            version: options.version,
            // 5.0 has no-local for what the bit says.
            bridge: options.version != Version::V5,
            clean: options.clean,
            keep_alive: options.keep_alive,
            properties: properties.finish(),
            client_id: options.client_id.as_deref().unwrap_or(&own),
            will: None,
            username: options.username.as_deref(),
            password: options.password.as_ref().map(|text| text.as_bytes()),
        };
        encode(&Packet::Connect(connect), options.version, out);
    }

    fn greeting(&self, ack: &ConnAck<'_>) -> Greeting {
        let number = |identifier| ack.properties.number(identifier);
        let short = |identifier| number(identifier).and_then(|n| u16::try_from(n).ok());
        Greeting {
            session_present: ack.session_present,
            inflight_max: short(id::RECEIVE_MAXIMUM).unwrap_or(INFLIGHT_MAX),
            taken: Taken {
                qos: match number(id::MAXIMUM_QOS) {
                    Some(0) => Qos::AtMostOnce,
                    Some(1) => Qos::AtLeastOnce,
                    _ => Qos::ExactlyOnce,
                },
                retain: number(id::RETAIN_AVAILABLE) != Some(0),
                packet_bytes: number(id::MAXIMUM_PACKET)
                    .and_then(|most| usize::try_from(most).ok())
                    .unwrap_or(usize::MAX),
            },
            keep_alive: short(id::SERVER_KEEP_ALIVE).unwrap_or(self.options.keep_alive),
        }
    }

    /// A connection to the broker here; SUBSCRIBE is to be written.
    fn open_local(
        &self,
        relay: &Relay<'_>,
        inflight_max: u16,
        forgotten: bool,
    ) -> io::Result<Side> {
        let (ours, theirs) = duplex(LOCAL_BYTES);
        let filters = relay.local_filters();
        let leg = Leg {
            io: theirs,
            client_id: client_id(&self.options.name),
            inflight_max,
            packet_max: u32::try_from(relay.taken.packet_bytes).unwrap_or(u32::MAX),
            filters: filters.iter().map(|(filter, _)| filter.clone()).collect(),
            forgotten,
        };
        if !self.broker.attach(leg) {
            return Err(io::Error::other("the broker here does not run"));
        }
        let mut side = Side::new(Carrier::Boxed(Box::new(ours)));
        put_subscribe(&filters, Version::V5, &mut side.out);
        Ok(side)
    }

    /// Passes packets both ways until one side ends.
    async fn pass(
        &self,
        relay: &Relay<'_>,
        remote: &mut Side,
        local: &mut Side,
        keep_alive: u16,
    ) -> io::Result<Infallible> {
        let mut life = Life::new(keep_alive, clock::now());
        let packet_max = self.limits.packet_bytes_max;
        loop {
            // Something may have come with the greeting already.
            take(
                &mut remote.input,
                self.options.version,
                packet_max,
                |packet| {
                    let noted = relay.inward(packet, &mut local.out, &mut remote.out)?;
                    self.note(&noted, relay);
                    Ok(())
                },
            )?;
            take(&mut local.input, Version::V5, usize::MAX, |packet| {
                if !matches!(packet, Packet::ConnAck(_)) {
                    let noted = relay.outward(packet, &mut remote.out, &mut local.out)?;
                    self.note(&noted, relay);
                }
                Ok(())
            })?;
            remote.tidy();
            local.tidy();
            let (remote_full, local_full) = (remote.is_full(), local.is_full());
            let there = remote.out.get(remote.written..).unwrap_or_default();
            let here = local.out.get(local.written..).unwrap_or_default();
            let (speaks, flushes) = (!there.is_empty(), remote.unflushed);
            tokio::select! {
                done = read(&mut remote.reader, &mut remote.input), if !local_full => {
                    done?;
                    life.heard = clock::now();
                    life.asked = None;
                }
                count = write_or_flush(&mut remote.writer, there), if speaks || flushes => {
                    remote.unflushed = speaks;
                    remote.written += count?;
                    life.spoke = clock::now();
                }
                done = read(&mut local.reader, &mut local.input), if !remote_full => done?,
                count = write_or_flush(&mut local.writer, here), if !here.is_empty() => {
                    local.written += count?;
                }
                () = sleep(life.wait(clock::now())) => life.tick(clock::now(), &mut remote.out)?,
            }
        }
    }

    fn note(&self, noted: &Noted, relay: &Relay<'_>) {
        let name = &self.options.name;
        match *noted {
            Noted::Nothing => {}
            Noted::NotSubscribed(place, Reason(code)) => {
                let filters = relay.remote_filters();
                let filter = filters.get(place).map_or("", |(filter, _)| filter);
                log::warn!("mqtt bridge {name}: {filter:?} is refused with {code:#04x}");
            }
            Noted::NotTaken(Reason(code)) => {
                log::debug!("mqtt bridge {name}: a message is refused with {code:#04x}");
            }
        }
    }

    fn tell_state(&self, now_is: &'static str) {
        let news = state(&self.options.name, now_is);
        let told = self.broker.tell(move |broker, now| {
            broker.publish_for(now, &news);
        });
        if !told {
            log::debug!("mqtt bridge {}: state {now_is} untold", self.options.name);
        }
    }
}
