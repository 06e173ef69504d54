//! The sockets that flows come in by, spread over the loops, and kept across reloads where they fit.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Failure;
use super::workers::Workers;
use crate::dns::current::Current;
use crate::dns::listener::{serve_tcp, serve_udp};
use crate::inbound::listen::{Listener, Service, Sharing};
use crate::inbound::mixed::Proxy;
use crate::inbound::options::{ListenerKind, ListenerOptions, Options};
use crate::inbound::server;
use crate::inbound::transparent::{Capture, DatagramListener, RawReplies, StreamListener};
use crate::inbound::{self, Port};
use crate::metadata::InboundType;
use crate::netfilter::ruleset::Ports;
use crate::platform::answering_udp::AnsweringUdp;
use crate::platform::socket::{Egress, bind_udp};
use crate::tunnel::Tunnel;
use crate::tunnel::flow::Dispatch;

/// Tasks that end when this does.
#[derive(Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    fn spawn(&mut self, on: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        // Boxed: the runtime's part of a task is then compiled once, not for each kind.
        self.0.push(on.spawn(task.boxed()));
    }

    /// Ends them, and returns when their sockets are closed: until then their ports are taken.
    async fn end(mut self) {
        for task in std::mem::take(&mut self.0) {
            task.abort();
            // A loop that hangs is the pulse's to notice.
            let _ended = timeout(CLOSED_WITHIN, task).await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// How long a loop may take to close what it serves.
const CLOSED_WITHIN: Duration = Duration::from_millis(500);

/// The sockets of `dns.listen`. Kept here beside those who serve them, so that a reload loses no query.
struct Resolver {
    address: SocketAddr,
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Resolver {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind(address)?;
        udp.set_nonblocking(true)?;
        let tcp = std::net::TcpListener::bind(address)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { address, udp, tcp })
    }
}

/// One port that is served.
struct Served {
    port: Port,
    /// Of a server of an encrypting protocol.
    server: Option<server::Shared>,
    tasks: Tasks,
}

impl Served {
    /// Has the users of `wanted` log in from now on; `wanted` is alike but for them.
    fn admit(&mut self, wanted: &ListenerOptions) {
        let port = &mut self.port;
        port.access
            .admit(wanted.users.as_deref().unwrap_or_default());
        let users = wanted
            .server
            .as_deref()
            .and_then(|server| server.protocol.users());
        if let (Some(shared), Some(users)) = (&self.server, users) {
            match shared.admit(users) {
                Ok(()) => port.server.clone_from(&wanted.server),
                Err(error) => log::error!("{}: {error}", port.name),
            }
        }
    }
}

/// Every listening socket of the instance, the controllers' excepted.
pub struct Listeners {
    workers: Arc<Workers>,
    tunnel: Arc<Tunnel>,
    dns: Arc<Current>,
    own_mark: u32,
    /// Where the files of certificates lie.
    directory: PathBuf,
    served: Vec<Served>,
    options: Options,
    capture: Tasks,
    resolver: Option<(Resolver, Tasks)>,
}

impl Listeners {
    /// None yet.
    pub fn new(
        workers: &Arc<Workers>,
        tunnel: &Arc<Tunnel>,
        dns: &Arc<Current>,
        own_mark: u32,
        directory: &Path,
    ) -> Self {
        Self {
            workers: Arc::clone(workers),
            tunnel: Arc::clone(tunnel),
            dns: Arc::clone(dns),
            own_mark,
            directory: directory.to_owned(),
            served: Vec::new(),
            options: Options::default(),
            capture: Tasks::default(),
            resolver: None,
        }
    }

    /// Closes what `options` do not ask for and opens what they do; what stays the same stays open.
    /// `captured`: the transparent ports are the capture's own. Every port that cannot be opened.
    pub async fn follow(
        &mut self,
        options: &Options,
        captured: bool,
    ) -> Vec<(SocketAddr, io::Error)> {
        let wanted: Vec<Port> = options
            .ports()
            .into_iter()
            .filter(|port| !(captured && matches!(&*port.name, "DEFAULT-TPROXY" | "DEFAULT-REDIR")))
            .collect();
        let old = std::mem::replace(&mut self.options, options.clone());
        let same_doors = old.authentication == options.authentication
            && old.skip_auth_prefixes == options.skip_auth_prefixes
            && old.lan_allowed_ips == options.lan_allowed_ips
            && old.lan_disallowed_ips == options.lan_disallowed_ips;
        let users_of = |options: &Options, name: &str| {
            options
                .listeners
                .iter()
                .find(|listener| *listener.name == *name)
                .map(|listener| listener.users.clone())
        };
        let stays = |served: &Served| {
            let fits = |port: &Port| same_port(port, &served.port);
            same_doors
                && wanted.iter().any(fits)
                && users_of(&old, &served.port.name) == users_of(options, &served.port.name)
        };
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut self.served)
            .into_iter()
            .partition(stays);
        self.served = stay;
        // A new port may be one of theirs, at another address.
        for served in go {
            served.tasks.end().await;
        }
        let mut failed = Vec::new();
        for port in wanted {
            let mut served = self.served.iter_mut();
            if let Some(served) = served.find(|served| same_port(&served.port, &port)) {
                let mut listed = options.listeners.iter();
                if served.port.server != port.server
                    && let Some(wanted) = listed.find(|listed| *listed.name == *port.name)
                {
                    served.admit(wanted);
                }
                continue;
            }
            match self.open(&port) {
                Ok((tasks, server)) => self.served.push(Served {
                    port,
                    server,
                    tasks,
                }),
                Err(error) => failed.push((port.address, error)),
            }
        }
        failed
    }

    /// Has the users that `options` give the listener of that name log in there from now on, without
    /// touching who is in.
    pub fn admit(&mut self, options: &Options, name: &str) {
        let named = |listener: &&ListenerOptions| *listener.name == *name;
        let Some(wanted) = options.listeners.iter().find(named) else {
            return;
        };
        let mut own = self.options.listeners.iter_mut();
        if let Some(known) = own.find(|listener| *listener.name == *name) {
            known.users.clone_from(&wanted.users);
        }
        let mut served = self.served.iter_mut();
        if let Some(served) = served.find(|served| *served.port.name == *name) {
            served.admit(wanted);
        }
    }

    /// The port that is served under a built-in name; 0 when none is.
    pub fn port_of(&self, name: &str) -> u16 {
        self.served
            .iter()
            .find(|served| &*served.port.name == name)
            .map_or(0, |served| served.port.address.port())
    }

    fn open(&self, port: &Port) -> io::Result<(Tasks, Option<server::Shared>)> {
        refuse_taken(port.address)?;
        let (mut tasks, mut server) = (Tasks::default(), None);
        match port.kind {
            ListenerKind::TProxy | ListenerKind::Redirect => {
                for address in both_families(port.address) {
                    self.open_capture(&mut tasks, port.kind, address, &port.name, port.udp, None)?;
                }
            }
            ListenerKind::Http
            | ListenerKind::Socks
            | ListenerKind::Mixed
            | ListenerKind::Tunnel => {
                for (number, worker) in self.workers.handles().iter().enumerate() {
                    let _here = worker.enter();
                    let listener = Listener::bind(port.address, Sharing::PerCore)?;
                    let dispatch: Arc<dyn Dispatch> = Arc::clone(&self.tunnel) as Arc<dyn Dispatch>;
                    let proxy = Arc::new(Proxy::new(port, listener.address(), dispatch));
                    if number == 0 && port.udp && port.kind == ListenerKind::Tunnel {
                        let socket = bind_udp(listener.address(), &Egress::default())?;
                        let proxy = Arc::clone(&proxy);
                        tasks.spawn(worker, inbound::tunnel::serve_datagrams(proxy, socket));
                    }
                    let service: Arc<dyn Service> = proxy;
                    let admission = Arc::clone(self.tunnel.admission());
                    tasks.spawn(worker, listener.serve(service, admission));
                }
            }
            ListenerKind::Shadowsocks
            | ListenerKind::Vmess
            | ListenerKind::Vless
            | ListenerKind::Trojan => server = Some(self.open_server(&mut tasks, port)?),
        }
        Ok((tasks, server))
    }

    /// Opens a server of an encrypting protocol: a listener a loop, and one socket for datagrams.
    fn open_server(&self, tasks: &mut Tasks, port: &Port) -> io::Result<server::Shared> {
        let kind = match port.kind {
            ListenerKind::Vmess => InboundType::Vmess,
            ListenerKind::Vless => InboundType::Vless,
            ListenerKind::Trojan => InboundType::Trojan,
            _ => InboundType::Shadowsocks,
        };
        let options = port.server.as_deref().ok_or(io::ErrorKind::InvalidInput)?;
        let shared = server::Shared::new(options, &self.directory).map_err(io::Error::other)?;
        let server = |address| {
            let dispatch: Arc<dyn Dispatch> = Arc::clone(&self.tunnel) as Arc<dyn Dispatch>;
            server::Server::new(&shared, port, kind, address, dispatch)
        };
        for (number, worker) in self.workers.handles().iter().enumerate() {
            let _here = worker.enter();
            let listener = Listener::bind(port.address, Sharing::PerCore)?;
            let address = listener.address();
            let admission = Arc::clone(self.tunnel.admission());
            tasks.spawn(worker, listener.serve(Arc::new(server(address)), admission));
            if number == 0 && port.udp && port.kind == ListenerKind::Shadowsocks {
                let socket = bind_udp(address, &Egress::default())?;
                tasks.spawn(worker, server(address).serve_datagrams(socket));
            }
        }
        Ok(shared)
    }

    /// Opens a transparent port on every loop.
    fn open_capture(
        &self,
        tasks: &mut Tasks,
        kind: ListenerKind,
        address: SocketAddr,
        name: &Arc<str>,
        udp: bool,
        hijack: Option<&Arc<Current>>,
    ) -> io::Result<()> {
        let replies = if udp && kind == ListenerKind::TProxy {
            Some(Arc::new(RawReplies::open(self.own_mark)?))
        } else {
            None
        };
        for worker in self.workers.handles() {
            let _here = worker.enter();
            let capture = if kind == ListenerKind::TProxy {
                Capture::TProxy
            } else {
                Capture::Redirect
            };
            let streams =
                StreamListener::bind(address, capture, Arc::clone(name), hijack.cloned())?;
            tasks.spawn(worker, streams.serve(Arc::clone(&self.tunnel)));
            if let Some(replies) = &replies {
                let datagrams = DatagramListener::bind(
                    address,
                    Arc::clone(name),
                    hijack.cloned(),
                    Arc::clone(replies),
                )?;
                tasks.spawn(worker, datagrams.serve(Arc::clone(&self.tunnel)));
            }
        }
        Ok(())
    }

    /// Opens the ports that captured traffic arrives at; none are open.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub fn open_captured(
        &mut self,
        ports: Ports,
        tproxy: bool,
        redirect: bool,
        hijack: bool,
    ) -> Result<(), Failure> {
        let mut tasks = Tasks::default();
        let dns = hijack.then_some(&self.dns);
        let failed = |address: SocketAddr| {
            move |error: io::Error| -> Failure { format!("{address}: {error}").into() }
        };
        if tproxy {
            for ip in [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ] {
                let address = SocketAddr::new(ip, ports.tproxy);
                refuse_taken(address).map_err(failed(address))?;
                let opened = self.open_capture(
                    &mut tasks,
                    ListenerKind::TProxy,
                    address,
                    &"DEFAULT-TPROXY".into(),
                    true,
                    dns,
                );
                opened.or_else(without_ipv6(ip)).map_err(failed(address))?;
            }
        }
        if redirect || !tproxy {
            for address in both_families(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                ports.redirect,
            )) {
                let opened = self.open_capture(
                    &mut tasks,
                    ListenerKind::Redirect,
                    address,
                    &"DEFAULT-REDIR".into(),
                    false,
                    dns,
                );
                opened
                    .or_else(without_ipv6(address.ip()))
                    .map_err(failed(address))?;
            }
        }
        if !tproxy && hijack {
            let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), ports.dns);
            Resolver::bind(address)
                .and_then(|bound| self.serve_resolver(&mut tasks, &bound))
                .map_err(failed(address))?;
        }
        self.capture = tasks;
        Ok(())
    }

    /// Closes the ports of captured traffic.
    pub async fn close_captured(&mut self) {
        std::mem::take(&mut self.capture).end().await;
    }

    /// Serves DNS at `listen` by the server of the moment, in place of the one before.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn serve_dns(&mut self, listen: Option<SocketAddr>) -> Result<(), Failure> {
        let (before, served) = self.resolver.take().unzip();
        let same = before.filter(|bound| Some(bound.address) == listen);
        if same.is_none()
            && let Some(served) = served
        {
            // The new address may be the old one's too: `0.0.0.0:53` after `192.168.1.1:53`.
            served.end().await;
        }
        if let Some(address) = listen {
            let mut tasks = Tasks::default();
            let bound = same
                .map_or_else(|| Resolver::bind(address), Ok)
                .and_then(|bound| self.serve_resolver(&mut tasks, &bound).map(|()| bound))
                .map_err(|error| format!("dns.listen {address}: {error}"))?;
            self.resolver = Some((bound, tasks));
        }
        Ok(())
    }

    fn serve_resolver(&self, tasks: &mut Tasks, bound: &Resolver) -> io::Result<()> {
        let Some(worker) = self.workers.first() else {
            return Ok(());
        };
        let _here = worker.enter();
        let (udp, tcp) = (bound.udp.try_clone()?, bound.tcp.try_clone()?);
        let address = bound.address;
        let server = self.dns.server();
        tasks.spawn(
            worker,
            serve_udp(
                Arc::clone(&server),
                Arc::new(AnsweringUdp::new(
                    tokio::net::UdpSocket::from_std(udp)?,
                    address,
                )?),
            ),
        );
        tasks.spawn(
            worker,
            serve_tcp(server, Arc::new(tokio::net::TcpListener::from_std(tcp)?)),
        );
        Ok(())
    }
}

/// Whether two ports are alike but for their users.
fn same_port(a: &Port, b: &Port) -> bool {
    let servers = match (a.server.as_deref(), b.server.as_deref()) {
        (Some(a), Some(b)) => a.same_but_users(b),
        (None, None) => true,
        _ => false,
    };
    a.name == b.name
        && a.kind == b.kind
        && a.address == b.address
        && a.udp == b.udp
        && a.proxy == b.proxy
        && a.target == b.target
        && servers
}

/// Sharing a port among our loops must not mean sharing it with another instance.
fn refuse_taken(address: SocketAddr) -> io::Result<()> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt,
        socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let Ok(probe) = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None) else {
        return Ok(());
    };
    setsockopt(&probe, sockopt::ReuseAddr, &true)?;
    match bind(probe.as_raw_fd(), &SockaddrStorage::from(address))
        .and_then(|()| listen(&probe, Backlog::new(1).unwrap_or(Backlog::MAXCONN)))
    {
        Err(nix::errno::Errno::EADDRINUSE) => Err(io::ErrorKind::AddrInUse.into()),
        // Whatever else is wrong, the real socket will say.
        _ => Ok(()),
    }
}

/// `[::]` as an address of each family: transparent sockets are of one family only.
fn both_families(address: SocketAddr) -> Vec<SocketAddr> {
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        vec![
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()),
            address,
        ]
    } else {
        vec![address]
    }
}

/// A kernel without IPv6 is no error.
fn without_ipv6(ip: IpAddr) -> impl Fn(io::Error) -> io::Result<()> {
    move |error| {
        let lacking = matches!(
            error.raw_os_error(),
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
        );
        if ip.is_ipv6() && lacking {
            Ok(())
        } else {
            Err(error)
        }
    }
}
