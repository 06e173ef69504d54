//! One proxy out of its options: a new protocol is a row here.

use std::sync::{Arc, OnceLock};

use super::error::{ProtocolError, RegistryError};
use crate::outbound::dial::{Dialer, Environment, LateOutbound, Node};
use crate::outbound::direct::Direct;
use crate::outbound::http::Http;
use crate::outbound::mux::sing::Multiplexed;
use crate::outbound::options::{Protocol, ProxyOptions};
use crate::outbound::reject::Reject;
use crate::outbound::shadowsocks::Shadowsocks;
use crate::outbound::socks5::Socks5;
use crate::outbound::{Kind, Outbound, Traits, trojan, vless, vmess};

/// Proxy, its `dialer-proxy`, and the place for what has that name.
pub(super) type LateDialer = (Box<str>, Box<str>, LateOutbound);

/// An outbound of its options.
pub(super) fn build_proxy(
    options: &ProxyOptions,
    environment: &Environment,
    late: &mut Vec<LateDialer>,
) -> Result<Arc<dyn Outbound>, RegistryError> {
    let name: Arc<str> = Arc::from(&*options.name);
    let mut dialer = Dialer::new(&options.dial, environment);
    if let Some(target) = &options.dial.dialer_proxy {
        let slot = LateOutbound::new(OnceLock::new());
        late.push((options.name.clone(), target.clone(), Arc::clone(&slot)));
        dialer = dialer.through(&name, slot);
    }
    let node = Node {
        name,
        udp: options.udp,
        traits: Traits {
            fast_open: options.dial.fast_open,
            interface: options.dial.interface.clone(),
            mark: options.dial.mark,
            dialer: options.dial.dialer_proxy.clone(),
        },
        dialer,
    };
    let wrong = |error| RegistryError::Protocol {
        proxy: options.name.clone(),
        error,
    };
    let outbound: Arc<dyn Outbound> = match &options.protocol {
        Protocol::Direct => Arc::new(Direct::new(
            node.name,
            Kind::Direct,
            node.traits,
            node.dialer,
        )),
        Protocol::Reject => Arc::new(Reject::new(node.name, Kind::Reject)),
        Protocol::Http(options) => {
            Arc::new(Http::new(node, options).map_err(|e| wrong(ProtocolError::Http(e)))?)
        }
        Protocol::Socks5(options) => {
            Arc::new(Socks5::new(node, options).map_err(|e| wrong(ProtocolError::Socks5(e)))?)
        }
        Protocol::Shadowsocks(options) => Arc::new(
            Shadowsocks::new(node, options).map_err(|e| wrong(ProtocolError::Shadowsocks(e)))?,
        ),
        Protocol::Trojan(options) => Arc::new(
            trojan::outbound(node, options).map_err(|e| wrong(ProtocolError::Transport(e)))?,
        ),
        Protocol::Vmess(options) => {
            Arc::new(vmess::outbound(node, options).map_err(|e| wrong(ProtocolError::Vmess(e)))?)
        }
        Protocol::Vless(options) => {
            Arc::new(vless::outbound(node, options).map_err(|e| wrong(ProtocolError::Vmess(e)))?)
        }
    };
    Ok(match options.mux {
        Some(mux) => Arc::new(Multiplexed::new(outbound, mux)),
        None => outbound,
    })
}
