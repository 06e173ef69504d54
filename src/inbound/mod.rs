//! Where connections come in: one file or folder for each kind of inbound.
//!
//! An inbound learns from its client where it wants to go and hands the flow to a
//! [`Dispatch`](crate::tunnel::flow::Dispatch); it decides nothing and dials nothing. A
//! listener is bound first ([`listen::Listener::bind`]) and served then, with the
//! [`listen::Service`] of its kind.

pub mod access;
mod client;
pub mod http;
pub mod listen;
pub mod mixed;
pub mod options;

pub mod server;
pub mod socks;
#[cfg(test)]
mod testing;
pub mod transparent;
pub mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use access::Access;
use options::{ListenerKind, Options};
use server::options::ServerOptions;

use crate::metadata::Endpoint;

/// One port that the configuration asks for.
pub struct Port {
    /// What IN-NAME compares and the APIs show.
    pub name: Arc<str>,
    /// What is spoken there.
    pub kind: ListenerKind,
    /// Where to listen.
    pub address: SocketAddr,
    /// Whether it takes UDP too (socks, mixed, tproxy, tunnel).
    pub udp: bool,
    /// Who may use it.
    pub access: Arc<Access>,
    /// `proxy`: everything goes there, without rules.
    pub proxy: Option<Arc<str>>,
    /// Where everything is taken that comes by a tunnel.
    pub target: Option<Endpoint>,
    /// What a server of an encrypting protocol needs.
    pub server: Option<Arc<ServerOptions>>,
}

impl Options {
    /// Every configured port: the port keys first, then `listeners:` in their order.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        let access = Arc::new(
            Access::new(&self.authentication, &self.skip_auth_prefixes)
                .restricted(&self.lan_allowed_ips, &self.lan_disallowed_ips),
        );
        let listen = match (self.allow_lan, self.bind_address) {
            (false, _) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (true, None) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            (true, Some(address)) => address,
        };
        let mut ports = Vec::new();
        for (name, kind, port) in [
            ("DEFAULT-HTTP", ListenerKind::Http, self.http_port),
            ("DEFAULT-SOCKS", ListenerKind::Socks, self.socks_port),
            ("DEFAULT-MIXED", ListenerKind::Mixed, self.mixed_port),
            ("DEFAULT-REDIR", ListenerKind::Redirect, self.redir_port),
            ("DEFAULT-TPROXY", ListenerKind::TProxy, self.tproxy_port),
        ] {
            if port != 0 {
                ports.push(Port {
                    name: name.into(),
                    kind,
                    address: SocketAddr::new(listen, port),
                    udp: true,
                    access: Arc::clone(&access),
                    proxy: None,
                    target: None,
                    server: None,
                });
            }
        }
        ports.extend(self.listeners.iter().map(|listener| {
            let users = listener.users.as_deref().unwrap_or(&self.authentication);
            Port {
                name: (&*listener.name).into(),
                kind: listener.kind,
                address: SocketAddr::new(listener.listen, listener.port),
                udp: listener.udp,
                access: Arc::new(Access::new(users, &self.skip_auth_prefixes)),
                proxy: listener.proxy.as_deref().map(Arc::from),
                target: listener.target.clone(),
                server: listener.server.clone(),
            }
        }));
        ports
    }
}

#[cfg(test)]
mod tests {
    use super::options::ListenerOptions;
    use super::*;
    use crate::outbound::options::Credentials;

    fn options() -> Options {
        let listener = |name: &str, users| ListenerOptions {
            name: name.into(),
            kind: ListenerKind::Socks,
            listen: Ipv4Addr::UNSPECIFIED.into(),
            port: 1081,
            udp: false,
            users,
            proxy: None,
            target: None,
            server: None,
        };
        Options {
            mixed_port: 7890,
            socks_port: 1080,
            lan_disallowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
            authentication: vec![Credentials {
                username: "u".into(),
                password: "p".into(),
                ..Credentials::default()
            }],
            listeners: vec![listener("own", None), listener("open", Some(Vec::new()))],
            ..Options::default()
        }
    }

    #[test]
    fn ports_of_the_keys_obey_allow_lan_and_the_lan_lists() {
        let mut options = options();
        let ports = options.ports();
        let names: Vec<&str> = ports.iter().map(|port| &*port.name).collect();
        assert_eq!(names, ["DEFAULT-SOCKS", "DEFAULT-MIXED", "own", "open"]);
        assert_eq!(ports[0].address.to_string(), "127.0.0.1:1080");
        assert!(!ports[0].access.admits("10.0.0.1".parse().unwrap()));
        options.allow_lan = true;
        assert_eq!(options.ports()[1].address.to_string(), "[::]:7890");
        options.bind_address = Some("192.168.1.1".parse().unwrap());
        assert_eq!(options.ports()[1].address.to_string(), "192.168.1.1:7890");
    }

    #[test]
    fn listeners_have_their_own_users_or_the_global_ones_and_no_lan_lists() {
        let ports = options().ports();
        let source = "10.0.0.1".parse().unwrap();
        assert!(ports[2].access.admits(source) && ports[2].access.needs_login(source));
        assert!(!ports[3].access.needs_login(source));
        assert_eq!(ports[2].address.to_string(), "0.0.0.0:1081");
    }
}
