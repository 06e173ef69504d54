//! Changes of listeners, users and proxies at run time: one after the other, each whole or not at all.

use std::net::SocketAddr;

use super::Instance;
use crate::config::{Config, ConfigError};
use crate::controllers::change::{Change, ChangeError, NewRules};
use crate::daemon::overlay::{
    Overlay, balanced, find, is_inbound, is_outbound, is_server, users_mut,
};
use crate::outbound::options::Credentials;
use crate::tunnel::routing::Routing;

impl Instance {
    /// Makes one change.
    pub(super) async fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        match change {
            Change::AddInbound(listener) => self.add_inbound(&listener).await,
            Change::RemoveInbound(name) => self.remove_inbound(&name).await,
            Change::AddUser(inbound, user) => self.add_user(&inbound, user),
            Change::RemoveUser(inbound, name) => self.remove_user(&inbound, &name),
            Change::AddOutbound(proxy) => self.add_outbound(&proxy),
            Change::RemoveOutbound(name) => self.remove_outbound(&name),
            Change::AddRules(new) => self.add_rules(*new),
            Change::RemoveRule(tag) => {
                self.remove_rule(&tag);
                Ok(())
            }
        }?;
        self.xray.changed = true;
        self.show_general();
        Ok(())
    }

    async fn add_inbound(&mut self, entry: &str) -> Result<(), ChangeError> {
        let listener = Config::listener(entry).map_err(failed)?;
        let name = listener.name.clone();
        if is_inbound(&self.config.inbound, &name) {
            return Err(ChangeError::NameTaken(name));
        }
        Overlay::room(&self.xray.overlay.inbounds)?;
        let own = SocketAddr::new(listener.listen, listener.port);
        self.config.inbound.listeners.push(listener);
        let captured = self.config.transparent.enable;
        let failures = self.listeners.follow(&self.config.inbound, captured).await;
        if let Some((address, error)) = failures.into_iter().find(|(address, _)| *address == own) {
            self.config.inbound.listeners.pop();
            self.follow_listeners().await;
            return Err(ChangeError::Failed(format!("{address}: {error}").into()));
        }
        log::info!("listener {name} added");
        self.xray.overlay.inbounds.push((name, entry.into()));
        Ok(())
    }

    async fn remove_inbound(&mut self, name: &str) -> Result<(), ChangeError> {
        let inbound = &mut self.config.inbound;
        if !is_inbound(inbound, name) {
            return Err(ChangeError::NoInbound(name.into()));
        }
        match name {
            "DEFAULT-HTTP" => inbound.http_port = 0,
            "DEFAULT-SOCKS" => inbound.socks_port = 0,
            "DEFAULT-MIXED" => inbound.mixed_port = 0,
            "DEFAULT-REDIR" => inbound.redir_port = 0,
            "DEFAULT-TPROXY" => inbound.tproxy_port = 0,
            _ => {}
        }
        inbound.listeners.retain(|listener| *listener.name != *name);
        self.xray.overlay.forget_inbound(name);
        self.follow_listeners().await;
        log::info!("listener {name} removed");
        Ok(())
    }

    fn add_user(&mut self, inbound: &str, user: Credentials) -> Result<(), ChangeError> {
        let users = self.users(inbound)?;
        if find(users, &user.username).is_some() {
            return Err(ChangeError::UserTaken(user.username));
        }
        Overlay::room(&self.xray.overlay.users)?;
        self.xray.overlay.add_user(inbound, &user);
        log::info!("user {:?} added to {inbound}", user.username);
        self.users(inbound)?.push(user);
        self.listeners.admit(&self.config.inbound, inbound);
        Ok(())
    }

    fn remove_user(&mut self, inbound: &str, name: &str) -> Result<(), ChangeError> {
        let encrypting = is_server(&self.config.inbound, inbound);
        let users = self.users(inbound)?;
        let Some(index) = find(users, name) else {
            return Err(ChangeError::NoUser(name.into()));
        };
        if users.len() == 1 && !encrypting {
            return Err(ChangeError::LastUser);
        }
        Overlay::room(&self.xray.overlay.removed_users)?;
        let removed = self.users(inbound)?.remove(index).username;
        self.xray.overlay.remove_user(inbound, &removed);
        self.listeners.admit(&self.config.inbound, inbound);
        for flow in self.tunnel.connections().snapshot() {
            let user = flow.metadata.inbound_user.as_deref();
            if *flow.metadata.inbound == *inbound && user == Some(&*removed) {
                flow.close();
            }
        }
        log::info!("user {removed:?} removed from {inbound}");
        Ok(())
    }

    /// Who logs in at a listener.
    fn users(&mut self, inbound: &str) -> Result<&mut Vec<Credentials>, ChangeError> {
        if !is_inbound(&self.config.inbound, inbound) {
            return Err(ChangeError::NoInbound(inbound.into()));
        }
        users_mut(&mut self.config.inbound, inbound).ok_or(ChangeError::NoUsers)
    }

    fn add_outbound(&mut self, entry: &str) -> Result<(), ChangeError> {
        let proxy = Config::proxy(entry).map_err(failed)?;
        let name = proxy.name.clone();
        if is_outbound(&self.config, &name) {
            return Err(ChangeError::NameTaken(name));
        }
        Overlay::room(&self.xray.overlay.outbounds)?;
        self.config.proxies.push(proxy);
        if let Err(error) = self.rebuild_outbounds() {
            self.config.proxies.pop();
            return Err(error.into());
        }
        log::info!("proxy {name} added");
        self.xray.overlay.outbounds.push((name, entry.into()));
        Ok(())
    }

    fn remove_outbound(&mut self, name: &str) -> Result<(), ChangeError> {
        let Config {
            proxies, groups, ..
        } = &mut self.config;
        if !proxies.iter().any(|proxy| *proxy.name == *name) {
            return Ok(());
        }
        let kept = (proxies.clone(), groups.clone());
        proxies.retain(|proxy| *proxy.name != *name);
        for group in groups {
            group.proxies.retain(|member| **member != *name);
        }
        if let Err(error) = self.rebuild_outbounds() {
            (self.config.proxies, self.config.groups) = kept;
            return Err(error.into());
        }
        self.xray
            .overlay
            .outbounds
            .retain(|(proxy, _)| **proxy != *name);
        log::info!("proxy {name} removed");
        Ok(())
    }

    fn add_rules(&mut self, new: NewRules) -> Result<(), ChangeError> {
        let overlay = &mut self.xray.overlay;
        let kept = (overlay.rules.clone(), overlay.groups.clone());
        let (replaced, groups) = (overlay.replaces, self.config.groups.clone());
        if !new.append {
            let added = std::mem::take(&mut overlay.groups);
            let own = |name: &str| added.iter().any(|group| *group.name == *name);
            self.config.groups.retain(|group| !own(&group.name));
            overlay.rules.clear();
            overlay.replaces = true;
        }
        let done = self.enter_rules(new);
        if done.is_err() {
            let overlay = &mut self.xray.overlay;
            (overlay.rules, overlay.groups) = kept;
            overlay.replaces = replaced;
            self.config.groups = groups;
        }
        done
    }

    /// Enters rules and groups; the caller takes back what was entered when it fails.
    fn enter_rules(&mut self, new: NewRules) -> Result<(), ChangeError> {
        for group in new.groups {
            if is_outbound(&self.config, &group.name) {
                return Err(ChangeError::NameTaken(group.name));
            }
            Overlay::room(&self.xray.overlay.groups)?;
            self.config.groups.push(balanced(&group, &self.config));
            self.xray.overlay.groups.push(group);
        }
        for rule in new.rules {
            let groups = &mut self.config.groups.iter();
            if let Some(name) = &rule.group
                && !groups.any(|group| group.name == *name)
            {
                return Err(ChangeError::NoGroup(name.clone()));
            }
            let rules = &mut self.xray.overlay.rules;
            Overlay::room(rules)?;
            if !rule.tag.is_empty() && rules.iter().any(|known| known.tag == rule.tag) {
                return Err(ChangeError::RuleTaken(rule.tag));
            }
            rules.push(rule);
        }
        self.rebuild_outbounds()?;
        self.follow_rules();
        let routing = self.tunnel.routing();
        for flow in self.tunnel.connections().snapshot() {
            if routing.added_rule_blocks(&flow.metadata) {
                flow.close();
            }
        }
        Ok(())
    }

    fn remove_rule(&mut self, tag: &str) {
        self.xray.overlay.rules.retain(|rule| *rule.tag != *tag);
        self.follow_rules();
    }

    /// Puts the added rules in force.
    pub(super) fn follow_rules(&mut self) {
        let mut routing = Routing::clone(&self.tunnel.routing());
        let geodata = &self.config.geo_categories;
        let block = self.xray.overlay.block(&routing.rules, geodata);
        routing.replace_added(block);
        // They may ask for categories that nobody asked for before.
        self.providers.follow_geodata();
        self.tunnel.replace_routing(routing);
        self.offload.forget();
        self.refresh_kernel();
    }
}

/// An entry that is none: the mistake without the place, which is in no file.
fn failed(error: ConfigError) -> ChangeError {
    let ConfigError { path, reason, .. } = error;
    ChangeError::Failed(format!("{path}: {reason}").into())
}
