//! The task behind a client: connects, moves bytes, and connects again.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split};
use tokio::time::{sleep, timeout};

use super::machine::{Client, Event, Options};
use super::outbox::Outbox;
use crate::metadata::Endpoint;
use crate::mqtt::{NEVER, Time};
use crate::outbound::carrier::Carrier;
use crate::outbound::random;
use crate::outbound::tls::TlsClient;
use crate::platform::clock;
use crate::provider::http::{Connect, open_carrier};

/// Names, TCP and TLS together.
const OPEN_TIME_MAX: Duration = Duration::from_secs(15);

/// Bytes that may wait for the socket; no more is read or published while more do.
const UNSENT_MAX: usize = 64 * 1024;

/// Room for one read.
const READ_BYTES: usize = 4096;

/// The foreign broker.
pub struct Server {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// How TLS is spoken; none: plain.
    pub tls: Option<TlsClient>,
    /// The outbound to go through; none: by the rules.
    pub proxy: Option<Box<str>>,
    /// How it is reached.
    pub way: Arc<dyn Connect>,
}

/// How long to wait before another try: doubled from the first to the last, less up to a half by chance.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub last: Duration,
}

impl Patience {
    pub(in crate::mqtt) fn after(self, failures: u32) -> Duration {
        let whole = self
            .first
            .saturating_mul(1 << failures.min(16))
            .min(self.last);
        let mut chance = [128];
        // Without chance half of it serves.
        let _known = random::fill(&mut chance);
        let [chance] = chance;
        whole.mul_f32(1.0 - f32::from(chance) / 512.0)
    }
}

/// Serves `outbox` and shows what comes, until [`Outbox::end`].
pub async fn run(
    options: Options,
    server: Server,
    patience: Patience,
    outbox: Arc<Outbox>,
    mut show: Box<dyn FnMut(Event<'_>) + Send>,
) {
    let began = clock::now();
    let mut client = Client::new(options);
    let mut failures = 0;
    loop {
        let opened = tokio::select! {
            opened = timeout(OPEN_TIME_MAX, open(&server)) => opened,
            () = ending(&outbox) => return,
        };
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let why = match opened {
            Ok(carrier) => {
                let why = converse(carrier, &mut client, &outbox, began, &mut *show).await;
                client.closed();
                why
            }
            Err(error) => error,
        };
        let mut was_connected = false;
        outbox.update(|report| {
            was_connected = std::mem::take(&mut report.connected);
            report.error = Some(why.to_string().into());
        });
        if outbox.is_ending() {
            return;
        }
        show(Event::Closed(&why));
        failures = if was_connected { 0 } else { failures + 1 };
        log::info!("mqtt client {}: {why}", server.endpoint);
        tokio::select! {
            () = sleep(patience.after(failures)) => {}
            () = ending(&outbox) => return,
        }
    }
}

/// Waits until the client is to end.
async fn ending(outbox: &Outbox) {
    while !outbox.is_ending() {
        outbox.changed.notified().await;
    }
}

async fn open(server: &Server) -> io::Result<Carrier> {
    let proxy = server.proxy.as_deref();
    open_carrier(&*server.way, &server.endpoint, proxy, server.tls.as_ref()).await
}

/// One connection, from CONNECT to its end; why it ended.
async fn converse(
    carrier: Carrier,
    client: &mut Client,
    outbox: &Outbox,
    began: Instant,
    show: &mut (dyn FnMut(Event<'_>) + Send),
) -> io::Error {
    let (mut reader, mut writer) = split(carrier);
    let (mut input, mut out) = (Vec::new(), Vec::new());
    let (mut written, mut unflushed) = (0, false);
    client.open(time(began), &mut out);
    loop {
        if outbox.is_ending() {
            client.disconnect(&mut out);
            let rest = out.get(written..).unwrap_or_default();
            let _gone = timeout(Duration::from_secs(1), async {
                writer.write_all(rest).await?;
                writer.shutdown().await
            });
            let _gone = _gone.await;
            return io::ErrorKind::ConnectionAborted.into();
        }
        while client.has_room()
            && out.len() - written < UNSENT_MAX
            && let Some(message) = outbox.take()
        {
            let mut noted = |event: Event<'_>| note(outbox, event, show);
            client.publish(time(began), message, &mut out, &mut noted);
        }
        let unsent = out.get(written..).unwrap_or_default();
        let (blocked, idle) = (unsent.len() >= UNSENT_MAX, unsent.is_empty());
        let wait = wait_until(client.deadline(), began);
        if input.capacity() - input.len() < READ_BYTES {
            input.reserve(READ_BYTES);
        }
        let done: io::Result<()> = tokio::select! {
            result = write_or_flush(&mut writer, unsent), if !idle || unflushed => {
                unflushed = !idle;
                result.map(|count| written += count)
            }
            result = reader.read_buf(&mut input), if !blocked => result.and_then(|count| {
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let mut noted = |event: Event<'_>| note(outbox, event, show);
                let taken = client.receive(time(began), &input, &mut out, &mut noted);
                input.drain(..taken.map_err(io::Error::other)?);
                Ok(())
            }),
            () = outbox.changed.notified() => Ok(()),
            () = wait => client.tick(time(began), &mut out).map_err(io::Error::other),
        };
        if let Err(error) = done {
            return error;
        }
        if written == out.len() {
            // Room for a burst is given back when it is over.
            out.clear();
            out.shrink_to(READ_BYTES);
            written = 0;
        }
        if input.is_empty() {
            input.shrink_to(READ_BYTES);
        }
    }
}

/// Writes some of `bytes`; without any, has what was written leave. Either may be given up and begun anew.
pub(in crate::mqtt) async fn write_or_flush(
    writer: &mut WriteHalf<Carrier>,
    bytes: &[u8],
) -> io::Result<usize> {
    if bytes.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

/// Counts what happened and shows it.
fn note(outbox: &Outbox, event: Event<'_>, show: &mut (dyn FnMut(Event<'_>) + Send)) {
    match &event {
        Event::Connected { .. } => outbox.update(|report| {
            report.connected = true;
            report.error = None;
        }),
        Event::Sent => outbox.update(|report| report.sent += 1),
        Event::NotSent(_) => outbox.update(|report| report.refused += 1),
        Event::NotSubscribed { filter, .. } => {
            log::warn!("mqtt client: the broker refuses the subscription {filter}");
        }
        Event::Message(_) | Event::Closed(_) => {}
    }
    show(event);
}

fn time(began: Instant) -> Time {
    Time::try_from((clock::now() - began).as_millis()).unwrap_or(NEVER - 1)
}

async fn wait_until(deadline: Time, began: Instant) {
    let wait = deadline.saturating_sub(time(began));
    // A timer wheel has no room for never.
    sleep(Duration::from_millis(wait.min(3_600_000))).await;
}
