//! A listener's connections: accepting them, at the rate and up to the number that it may have, and the
//! lives of those that have a task. [`super::greeting`] lets them in.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::driver::{Driver, Ended};
use super::greeting::{CONNECT_TIME_MAX, enter, greet, linger};
use super::link::Link;
use super::metrics::Metric;
use super::session::LinkId;
use super::transport::{Opened, Plain, Stream, Transport};

/// How long accepting pauses when the system is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener does with its connections.
pub struct Service {
    /// What they speak beneath MQTT.
    pub transport: Transport,
    /// Further ones are closed at once.
    pub connections_max: usize,
    /// The broker's number of the listener.
    pub number: u16,
    /// How many there are.
    pub connections: Cell<usize>,
    /// So many a second begin; 0: no bound.
    pub connection_rate: u32,
}

/// Spreads what is faster than a rate, after a second's worth at once.
struct Pace {
    rate: u32,
    due: Duration,
}

impl Pace {
    /// How long the next one is to wait that comes at `now`.
    fn wait(&mut self, now: Duration) -> Duration {
        let Some(each) = Duration::from_secs(1).checked_div(self.rate) else {
            return Duration::ZERO;
        };
        self.due = self.due.max(now) + each;
        self.due.saturating_sub(now + Duration::from_secs(1))
    }
}

/// A connection's place among those of its listener.
pub struct Seat(Rc<Service>);

impl Seat {
    fn take(service: &Rc<Service>) -> Option<Self> {
        let count = service.connections.get();
        if count >= service.connections_max {
            return None;
        }
        service.connections.set(count + 1);
        Some(Self(Rc::clone(service)))
    }

    /// The broker's number of the listener.
    pub(super) fn number(&self) -> u16 {
        self.0.number
    }

    /// Whether it is one of these.
    pub(super) fn is_of(&self, service: &Rc<Service>) -> bool {
        Rc::ptr_eq(&self.0, service)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

/// Ends the connections that have no task with their listener.
struct Listening {
    driver: Rc<Driver>,
    service: Rc<Service>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.driver.end_all(&self.service);
    }
}

/// Accepts connections until it is dropped; they end with it.
pub async fn accept_forever(driver: Rc<Driver>, socket: TcpListener, service: Rc<Service>) {
    let mut pace = Pace {
        rate: service.connection_rate,
        due: Duration::ZERO,
    };
    let listening = Listening { driver, service };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, source)) => {
                let Some(seat) = Seat::take(&listening.service) else {
                    let driver = &listening.driver;
                    driver.with(|broker, _| broker.count(Metric::ConnectionsRefused));
                    continue;
                };
                // The broker gathers what belongs together; the kernel need not wait for more.
                let _slower = stream.set_nodelay(true);
                let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                let serving = serve(Rc::clone(&listening.driver), stream, source, seat);
                connections.spawn_local(serving.boxed_local());
                let wait = pace.wait(listening.driver.running());
                if !wait.is_zero() {
                    // The others wait in the kernel's queue.
                    sleep(wait).await;
                }
            }
            // Whoever was about to come has gone.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                listening.driver.turn_away(&error);
                sleep(PAUSE).await;
            }
        }
    }
}

/// A connection until its CONNECT is answered; one with a task of its own to its end.
async fn serve(driver: Rc<Driver>, stream: TcpStream, source: SocketAddr, seat: Seat) {
    // On the heap for as long as it lasts: at rest nobody pays for it.
    let opening = Box::pin(seat.0.transport.open(stream));
    let Ok(Ok(mut opened)) = timeout(CONNECT_TIME_MAX, opening).await else {
        return;
    };
    let Some(greeting) = Box::pin(greet(&driver, opened.io(), source)).await else {
        let mut read = |context: &mut Context<'_>, buffer: &mut ReadBuf<'_>| {
            Pin::new(opened.io()).poll_read(context, buffer)
        };
        return linger(&mut read).await;
    };
    let (stream, waker) = match opened {
        Opened::Plain(stream) => match Plain::new(stream) {
            Ok(plain) => (Stream::Plain(plain), None),
            Err(_) => return,
        },
        Opened::Layered(io) => {
            let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            (Stream::Layered(io), Some(waker))
        }
    };
    let entered = enter(&driver, (stream, waker), &greeting, source, seat);
    drop(greeting);
    if let Some((id, link)) = entered
        && link.waker.is_some()
    {
        let presence = Presence { driver, link, id };
        run(&presence).await;
        let stream = &presence.link.stream;
        let mut read = |context: &mut Context<'_>, buffer: &mut ReadBuf<'_>| {
            Pin::new(stream.borrow_mut().io()).poll_read(context, buffer)
        };
        linger(&mut read).await;
    }
}

/// A connection with a task, however that ends.
pub(super) struct Presence {
    pub driver: Rc<Driver>,
    pub link: Rc<Link>,
    pub id: LinkId,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.driver.end(self.id, &self.link, &Ended::Lost);
    }
}

/// The life of a connection with a task, after CONNECT.
pub(super) async fn run(presence: &Presence) {
    let Presence { driver, link, id } = presence;
    let ended = poll_fn(|context| driver.turn(link, *id, true, context)).await;
    driver.end(*id, link, &ended);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_the_rest_in_step() {
        let mut pace = Pace {
            rate: 10,
            due: Duration::ZERO,
        };
        let now = Duration::from_secs(100);
        let waits: Vec<_> = (0..12).map(|_| pace.wait(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200]);
        assert_eq!(pace.wait(now + Duration::from_secs(9)).as_millis(), 0);
        let mut free = Pace {
            rate: 0,
            due: Duration::ZERO,
        };
        assert!((0..100).all(|_| free.wait(now).is_zero()));
    }
}
