//! `PATCH /configs` and what `GET /configs` shows.

use std::sync::{Arc, PoisonError};

use super::Instance;
use super::reload::settle_offload;
use crate::controllers::{BindAddress, General, Patch};
use crate::daemon::{Failure, build, kernel};
use crate::tunnel::routing::Routing;

impl Instance {
    /// Changes general settings until the next reload.
    pub(super) async fn patch(&mut self, patch: Patch) -> Result<(), Failure> {
        let mut routing = Routing::clone(&self.tunnel.routing());
        let inbound = &mut self.config.inbound;
        let set = |field: &mut u16, value: Option<u16>| *field = value.unwrap_or(*field);
        set(&mut inbound.http_port, patch.port);
        set(&mut inbound.socks_port, patch.socks_port);
        set(&mut inbound.mixed_port, patch.mixed_port);
        set(&mut inbound.redir_port, patch.redir_port);
        set(&mut inbound.tproxy_port, patch.tproxy_port);
        inbound.allow_lan = patch.allow_lan.unwrap_or(inbound.allow_lan);
        if let Some(address) = patch.bind_address {
            inbound.bind_address = match address {
                BindAddress::All => None,
                BindAddress::One(address) => Some(address),
            };
        }
        if let Some(list) = patch.skip_auth_prefixes {
            inbound.skip_auth_prefixes = list;
        }
        if let Some(list) = patch.lan_allowed_ips {
            inbound.lan_allowed_ips = list;
        }
        if let Some(list) = patch.lan_disallowed_ips {
            inbound.lan_disallowed_ips = list;
        }
        if let Some(mode) = patch.mode {
            routing.mode = mode;
            self.config.general.mode = mode;
        }
        if let Some(level) = patch.log_level {
            self.logger.set_level(level);
        }
        if let Some(sniffing) = patch.sniffing {
            self.config.sniffer.enable = sniffing;
            routing.sniffer = build::sniffer(&self.config.sniffer)?;
        }
        let general = &mut self.config.general;
        general.tcp_concurrent = patch.tcp_concurrent.unwrap_or(general.tcp_concurrent);
        if patch.ipv6.is_some() || patch.interface_name.is_some() {
            general.ipv6 = patch.ipv6.unwrap_or(general.ipv6);
            if let Some(name) = patch.interface_name {
                general.interface_name = Some(name).filter(|name| !name.is_empty());
            }
            routing.outbounds = self.outbounds()?;
            settle_offload(&mut self.config);
        }
        let rebuilt = !Arc::ptr_eq(&routing.outbounds, &self.tunnel.routing().outbounds);
        self.tunnel.replace_routing(routing);
        if rebuilt {
            self.follow_groups();
        }
        self.follow_listeners().await;
        self.offload.forget();
        self.refresh_kernel();
        self.show_general();
        Ok(())
    }

    /// Writes the snapshots that controllers read.
    pub(super) fn show_general(&self) {
        let (inbound, general) = (&self.config.inbound, &self.config.general);
        let shown = General {
            port: self.listeners.port_of("DEFAULT-HTTP"),
            socks_port: self.listeners.port_of("DEFAULT-SOCKS"),
            mixed_port: self.listeners.port_of("DEFAULT-MIXED"),
            redir_port: self.listeners.port_of("DEFAULT-REDIR"),
            tproxy_port: match &self.captured {
                Some(captured) => kernel::ports(inbound, captured.tproxy).tproxy,
                None => self.listeners.port_of("DEFAULT-TPROXY"),
            },
            users: inbound
                .authentication
                .iter()
                .map(|user| user.username.clone())
                .collect(),
            skip_auth_prefixes: inbound.skip_auth_prefixes.clone(),
            lan_allowed_ips: inbound.lan_allowed_ips.clone(),
            lan_disallowed_ips: inbound.lan_disallowed_ips.clone(),
            allow_lan: inbound.allow_lan,
            bind_address: inbound
                .bind_address
                .map_or_else(|| "*".into(), |address| address.to_string().into()),
            mode: general.mode,
            ipv6: general.ipv6,
            unified_delay: general.unified_delay,
            tcp_concurrent: general.tcp_concurrent,
            interface_name: general.interface_name.clone().unwrap_or_default(),
            routing_mark: general.routing_mark,
            sniffing: self.config.sniffer.enable,
            offload: self.config.transparent.enable && self.config.transparent.offload,
            find_process: general.find_process.as_str(),
            keep_alive_idle: general.keep_alive_idle,
            keep_alive_interval: general.keep_alive_interval,
            disable_keep_alive: general.disable_keep_alive,
        };
        *self
            .door
            .general
            .write()
            .unwrap_or_else(PoisonError::into_inner) = shown;
        *self
            .door
            .inbounds
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(self.config.inbound.clone());
    }
}
