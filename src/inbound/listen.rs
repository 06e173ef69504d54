//! Accepting connections: bound first, then served; a listener that is dropped closes its
//! connections with it.
//!
//! The loop never ends of itself: errors of one connection are passed over, and when file
//! descriptors or memory run out, silent connections are cut and it tries again a little later. It accepts
//! no more than [`Admission`] has seats for. A connection that is still
//! in its handshake has [`HANDSHAKE_TIME_MAX`]; at most [`HANDSHAKES_MAX`] may be there at once, or an eighth of the seats,
//! and when one more comes the oldest is closed, so slow clients cannot keep others out.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::outbound::BoxFuture;
use crate::tunnel::admission::Admission;

/// How long a client may take to say what it wants, where no policy says otherwise.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// How many connections of one listener may be in their handshake, and which part of all seats: nobody knows yet
/// whose they are. Beyond: the oldest is closed.
pub const HANDSHAKES_MAX: usize = 256;
const HANDSHAKES_PART: usize = 8;

/// Connections that the kernel may complete before they are accepted; it drops further ones.
const BACKLOG: u32 = 1024;

/// After so long without a byte the kernel asks whether the client is still there; without
/// that, one that vanished would hold its flow or its association for ever. Seldom enough
/// for phones to sleep.
const KEEP_ALIVE_IDLE_SECONDS: u32 = 300;

/// The first and the longest pause when the system is out of something.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What becomes of an accepted connection.
pub trait Service: Send + Sync + 'static {
    /// Serves one client to its end. What the client must say before it has a flow is read
    /// under `handshake`; dropping that ends its limits.
    fn serve(
        self: Arc<Self>,
        client: TcpStream,
        source: SocketAddr,
        handshake: Handshake,
    ) -> BoxFuture<'static, ()>;
}

/// Whether another socket may listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// No: a second one fails.
    Exclusive,
    /// Yes (`SO_REUSEPORT`): one loop a core, among which the kernel spreads connections.
    PerCore,
}

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`; within the runtime that will serve it. `[::]` takes IPv4 too, and where the
    /// kernel has no IPv6, IPv4 alone.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Self> {
        let bound = bind(address, sharing);
        let any_v6 = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let socket = match bound {
            Err(error) if any_v6 && lacks_ipv6(&error) => {
                bind((Ipv4Addr::UNSPECIFIED, address.port()).into(), sharing)?
            }
            bound => bound?,
        };
        Self::from_socket(socket)
    }

    /// Takes a socket that listens already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn from_socket(socket: TcpListener) -> io::Result<Self> {
        // Linux hands these options on to the connections that are accepted. What is proxied are
        // somebody's whole messages: delaying them helps nobody.
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        setsockopt(&socket, sockopt::KeepAlive, &true)?;
        setsockopt(&socket, sockopt::TcpKeepIdle, &KEEP_ALIVE_IDLE_SECONDS)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts and serves until it is dropped, as far as `admission` lets more in.
    pub async fn serve(self, service: Arc<dyn Service>, admission: Arc<Admission>) {
        let mut connections = JoinSet::new();
        let mut handshakes = Handshakes::default();
        let mut pause = Duration::ZERO;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                // Takes ended tasks out of the set.
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((client, source)) => {
                    pause = Duration::ZERO;
                    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                    let service = Arc::clone(&service);
                    admission.room().await;
                    let most = admission.part(HANDSHAKES_PART).min(HANDSHAKES_MAX);
                    let time = admission.handshake_time().unwrap_or(HANDSHAKE_TIME_MAX);
                    let serving = service.serve(client, source, handshakes.begin(most, time));
                    let seat = admission.seat();
                    connections.spawn(async move {
                        serving.await;
                        drop(seat);
                    });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if pause.is_zero() {
                        log::warn!("cannot accept on {}: {error}", self.address);
                    }
                    admission.exhausted();
                    pause = (pause * 2).clamp(PAUSE, PAUSE_MAX);
                    sleep(pause).await;
                }
            }
        }
    }
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(sharing == Sharing::PerCore)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        errno(error),
        Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
    )
}

/// Whether accept(2) reports the end of a connection that was waiting, not its own trouble.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        errno(error),
        Some(
            Errno::ECONNABORTED
                | Errno::ECONNRESET
                | Errno::EPERM
                | Errno::EPROTO
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::ENONET
                | Errno::EINTR
        )
    )
}

/// The limits of one client's handshake.
pub struct Handshake {
    time: Duration,
    /// Its sender is dropped when room is needed.
    evicted: oneshot::Receiver<()>,
}

impl Handshake {
    /// How long it may take.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.time
    }

    /// What `work` gives; `None` when the time is over or newer clients need the room.
    pub async fn limit<T>(self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = timeout(self.time, work) => done.ok(),
            _ = self.evicted => None,
        }
    }

    /// One that only time ends, for a connection that no listener accepted.
    #[cfg(test)]
    pub(super) fn alone() -> (Self, oneshot::Sender<()>) {
        let (keep, evicted) = oneshot::channel();
        let time = HANDSHAKE_TIME_MAX;
        (Self { time, evicted }, keep)
    }
}

/// The handshakes under way, oldest first, with ended ones in between.
#[derive(Default)]
struct Handshakes(VecDeque<oneshot::Sender<()>>);

impl Handshakes {
    /// One more; of `most` or more others the oldest go.
    fn begin(&mut self, most: usize, time: Duration) -> Handshake {
        while self.0.front().is_some_and(oneshot::Sender::is_closed) {
            self.0.pop_front();
        }
        if self.0.len() >= most {
            self.0.retain(|handshake| !handshake.is_closed());
        }
        while self.0.len() >= most && self.0.pop_front().is_some() {}
        let (sender, evicted) = oneshot::channel();
        self.0.push_back(sender);
        Handshake { time, evicted }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::tunnel::connections::Connections;
    use crate::tunnel::policy::Policy;

    /// Echoes one byte, then another without limits.
    struct Echo;

    impl Service for Echo {
        fn serve(
            self: Arc<Self>,
            mut client: TcpStream,
            _source: SocketAddr,
            handshake: Handshake,
        ) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let mut byte = [0];
                if handshake
                    .limit(client.read_exact(&mut byte))
                    .await
                    .is_some()
                {
                    client.write_all(&byte).await.unwrap();
                    client.read_exact(&mut byte).await.unwrap();
                    client.write_all(&byte).await.unwrap();
                }
            })
        }
    }

    fn listener() -> Listener {
        Listener::bind("127.0.0.1:0".parse().unwrap(), Sharing::Exclusive).unwrap()
    }

    fn seats() -> Arc<Admission> {
        Admission::new(Arc::default())
    }

    async fn echoes(client: &mut TcpStream) -> bool {
        let mut byte = [0];
        client.write_all(b"x").await.is_ok() && client.read_exact(&mut byte).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_handshake_makes_room_for_the_newest() {
        let listener = listener();
        let address = listener.address();
        let clients = async {
            let mut done = TcpStream::connect(address).await.unwrap();
            assert!(echoes(&mut done).await);
            let mut silent = Vec::new();
            for _ in 0..=HANDSHAKES_MAX {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let mut last = TcpStream::connect(address).await.unwrap();
            assert!(echoes(&mut last).await);
            // Ended by the listener, without a byte.
            assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
            assert!(echoes(&mut silent[HANDSHAKES_MAX]).await);
            // A client whose handshake is over is not among those that make room.
            assert!(echoes(&mut done).await);
        };
        tokio::select! {
            () = listener.serve(Arc::new(Echo), seats()) => {}
            () = clients => {}
        }
    }

    /// Says how many seconds a client has.
    struct Hurry;

    impl Service for Hurry {
        fn serve(
            self: Arc<Self>,
            mut client: TcpStream,
            _source: SocketAddr,
            handshake: Handshake,
        ) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let seconds = handshake.time().as_secs().try_into().unwrap();
                client.write_u8(seconds).await.unwrap();
            })
        }
    }

    #[tokio::test]
    async fn a_policy_says_how_long_a_handshake_may_take() {
        let listener = listener();
        let address = listener.address();
        let table: Arc<Connections> = Arc::default();
        let clients = async {
            let seconds = async || {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.read_u8().await.unwrap()
            };
            assert_eq!(seconds().await, 10);
            table.follow_policy(Some(Policy::default()));
            assert_eq!(seconds().await, 4);
        };
        tokio::select! {
            () = listener.serve(Arc::new(Hurry), Admission::new(Arc::clone(&table))) => {}
            () = clients => {}
        }
    }

    #[tokio::test]
    async fn dropping_the_listener_closes_its_connections() {
        let listener = listener();
        let mut client = TcpStream::connect(listener.address()).await.unwrap();
        tokio::select! {
            () = listener.serve(Arc::new(Echo), seats()) => {}
            echoed = echoes(&mut client) => assert!(echoed),
        }
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn accepted_connections_inherit_the_options_of_the_listener() {
        let listener = listener();
        let _client = TcpStream::connect(listener.address()).await.unwrap();
        let (accepted, _) = listener.socket.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
        assert!(getsockopt(&accepted, sockopt::KeepAlive).unwrap());
        let idle = getsockopt(&accepted, sockopt::TcpKeepIdle).unwrap();
        assert_eq!(idle, KEEP_ALIVE_IDLE_SECONDS);
    }

    #[tokio::test]
    async fn an_address_is_shared_only_by_those_that_agree() {
        let any = "127.0.0.1:0".parse().unwrap();
        let alone = Listener::bind(any, Sharing::Exclusive).unwrap();
        assert!(Listener::bind(alone.address(), Sharing::PerCore).is_err());
        let shared = Listener::bind(any, Sharing::PerCore).unwrap();
        assert!(Listener::bind(shared.address(), Sharing::PerCore).is_ok());
        assert!(Listener::bind(shared.address(), Sharing::Exclusive).is_err());
    }

    #[test]
    fn running_out_of_files_is_not_the_fault_of_a_connection() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno as i32);
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert!(!is_of_one_connection(&error(errno)));
        }
        assert!(is_of_one_connection(&error(Errno::ECONNABORTED)));
    }
}
