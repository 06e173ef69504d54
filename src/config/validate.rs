//! What no single entry shows: names that are taken, unknown, or lead back to themselves.

use std::collections::{HashMap, HashSet};

use super::Config;
use super::decode::{Cursor, Step};
use super::error::{ConfigError, Excerpt, Reason};
use crate::provider::options::Source;

/// The outbounds that exist without being configured.
pub const BUILTIN_NAMES: [&str; 6] = [
    "DIRECT",
    "REJECT",
    "REJECT-DROP",
    "PASS",
    "COMPATIBLE",
    GLOBAL,
];

/// The group of everything. A configuration may define it, as mihomo's users do to order the
/// dashboards; otherwise it is made of all proxies and groups, so it cannot be one's own member.
const GLOBAL: &str = "GLOBAL";

/// Checks the names in `config`, read from `root`.
pub(super) fn check(config: &Config, root: &Cursor<'_>) -> Result<(), ConfigError> {
    // The entries were read in weak style, so their keys must be found in it.
    let root = &root.weak();
    let names = Names::collect(config, root)?;
    names.check_edges()?;
    names.check_loops()?;
    for (index, rule) in config.rules.iter().enumerate() {
        if !rule.leads_to_list() && !names.is_target(&rule.target) {
            let reason = Reason::UnknownName(Excerpt::of(&rule.target));
            return Err(root.fail_at(&[Step::Key("rules"), Step::Item(index)], reason));
        }
    }
    for (list, rules) in &config.sub_rules {
        let unknown = |target: &str| !names.is_target(target);
        if let Some((target, index)) = rules.own_targets().find(|(target, _)| unknown(target)) {
            let steps = [Step::Key("sub-rules"), Step::Key(list), Step::Item(index)];
            let reason = Reason::UnknownName(Excerpt::of(target));
            return Err(root.fail_at(&steps, reason));
        }
    }
    for provider in &config.rule_providers {
        if let Source::Http(download) = &provider.source
            && let Some(proxy) = &download.proxy
            && !names.is_target(proxy)
        {
            let name = provider.set.name();
            let steps = [
                Step::Key("rule-providers"),
                Step::Key(name),
                Step::Key("proxy"),
            ];
            return Err(root.fail_at(&steps, Reason::UnknownName(Excerpt::of(proxy))));
        }
    }
    check_proxy_providers(config, root, &names)?;
    let mut listeners = HashSet::new();
    for (index, listener) in config.inbound.listeners.iter().enumerate() {
        let fail = |key, reason| {
            let steps = [Step::Key("listeners"), Step::Item(index), Step::Key(key)];
            Err(root.fail_at(&steps, reason))
        };
        if !listeners.insert(&*listener.name) {
            return fail("name", Reason::DuplicateName(Excerpt::of(&listener.name)));
        }
        if let Some(proxy) = &listener.proxy
            && !names.is_target(proxy)
        {
            return fail("proxy", Reason::UnknownName(Excerpt::of(proxy)));
        }
    }
    Ok(())
}

/// Providers of proxies: what they are fetched through, what they share a name with, who uses them.
fn check_proxy_providers(
    config: &Config,
    root: &Cursor<'_>,
    names: &Names<'_>,
) -> Result<(), ConfigError> {
    for provider in &config.proxy_providers {
        let name = &*provider.name;
        let steps = [Step::Key("proxy-providers"), Step::Key(name)];
        // The API shows a group's own members as a provider of the group's name.
        if config.groups.iter().any(|group| *group.name == *name) {
            return Err(root.fail_at(&steps, Reason::DuplicateName(Excerpt::of(name))));
        }
        if let Source::Http(download) = &provider.source
            && let Some(proxy) = &download.proxy
            && !names.is_target(proxy)
        {
            let [list, entry] = steps;
            let reason = Reason::UnknownName(Excerpt::of(proxy));
            return Err(root.fail_at(&[list, entry, Step::Key("proxy")], reason));
        }
    }
    for (index, group) in config.groups.iter().enumerate() {
        let used = group.wanted.iter().flat_map(|wanted| &wanted.providers);
        let known = |name: &str| config.proxy_providers.iter().any(|p| *p.name == *name);
        for (item, name) in used.enumerate() {
            if !known(name) {
                let steps = [
                    Step::Key("proxy-groups"),
                    Step::Item(index),
                    Step::Key("use"),
                    Step::Item(item),
                ];
                return Err(root.fail_at(&steps, Reason::UnknownProvider(Excerpt::of(name))));
            }
        }
    }
    Ok(())
}

/// Proxies and groups as one graph: a proxy leads to its `dialer-proxy`, a group to its members.
/// Numbered in the order of the file, proxies first.
struct Names<'a> {
    config: &'a Config,
    root: &'a Cursor<'a>,
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn collect(config: &'a Config, root: &'a Cursor<'a>) -> Result<Self, ConfigError> {
        let mut names = Self {
            config,
            root,
            numbers: HashMap::new(),
        };
        let proxies = config.proxies.iter().map(|proxy| (&*proxy.name, false));
        let groups = config.groups.iter().map(|group| (&*group.name, true));
        for (number, (name, group)) in proxies.chain(groups).enumerate() {
            let builtin = BUILTIN_NAMES.contains(&name) && !(group && name == GLOBAL);
            if builtin {
                return Err(names.fail(
                    number,
                    "name",
                    None,
                    Reason::BuiltinName(Excerpt::of(name)),
                ));
            }
            let taken = config.xray_tag() == Some(name);
            if names.numbers.insert(name, number).is_some() || taken {
                let reason = Reason::DuplicateName(Excerpt::of(name));
                return Err(names.fail(number, "name", None, reason));
            }
        }
        Ok(names)
    }

    fn is_target(&self, name: &str) -> bool {
        self.numbers.contains_key(name)
            || BUILTIN_NAMES.contains(&name)
            || self.config.xray_tag() == Some(name)
    }

    fn count(&self) -> usize {
        self.config.proxies.len() + self.config.groups.len()
    }

    fn name(&self, number: usize) -> &'a str {
        match number.checked_sub(self.config.proxies.len()) {
            None => self
                .config
                .proxies
                .get(number)
                .map_or("", |proxy| &proxy.name),
            Some(group) => self
                .config
                .groups
                .get(group)
                .map_or("", |group| &group.name),
        }
    }

    /// The `index`th name that a proxy or group leads to.
    fn edge(&self, number: usize, index: usize) -> Option<&'a str> {
        match number.checked_sub(self.config.proxies.len()) {
            None if index == 0 => self
                .config
                .proxies
                .get(number)?
                .dial
                .dialer_proxy
                .as_deref(),
            None => None,
            Some(group) => self
                .config
                .groups
                .get(group)?
                .proxies
                .get(index)
                .map(|name| &**name),
        }
    }

    fn check_edges(&self) -> Result<(), ConfigError> {
        for number in 0..self.count() {
            for index in 0.. {
                let Some(name) = self.edge(number, index) else {
                    break;
                };
                if self.numbers.contains_key(name) {
                    continue;
                }
                if name == GLOBAL {
                    let way = format!("{} → {GLOBAL} → {}", self.name(number), self.name(number));
                    return Err(self.fail_edge(number, index, Reason::Loop(Excerpt::of(&way))));
                }
                if !BUILTIN_NAMES.contains(&name) {
                    let reason = Reason::UnknownName(Excerpt::of(name));
                    return Err(self.fail_edge(number, index, reason));
                }
            }
        }
        Ok(())
    }

    /// Depth first with a stack of its own: a chain of groups may be as long as the file.
    fn check_loops(&self) -> Result<(), ConfigError> {
        // Which numbers are on the stack or were left for good.
        let mut entered = vec![false; self.count()];
        let mut left = vec![false; self.count()];
        for start in 0..self.count() {
            let mut stack = vec![(start, 0)];
            while let Some((number, index)) = stack.last_mut() {
                let (from, edge) = (*number, *index);
                *index += 1;
                mark(&mut entered, from);
                let Some(name) = self.edge(from, edge) else {
                    mark(&mut left, from);
                    stack.pop();
                    continue;
                };
                let Some(&to) = self.numbers.get(name) else {
                    continue;
                };
                if is_marked(&left, to) {
                    continue;
                }
                if !is_marked(&entered, to) {
                    stack.push((to, 0));
                    continue;
                }
                let way = stack.iter().skip_while(|(number, _)| *number != to);
                let mut way: Vec<_> = way.map(|&(number, _)| self.name(number)).collect();
                way.push(name);
                let reason = Reason::Loop(Excerpt::of(&way.join(" → ")));
                return Err(self.fail_edge(from, edge, reason));
            }
        }
        Ok(())
    }

    fn fail_edge(&self, number: usize, index: usize, reason: Reason) -> ConfigError {
        if number < self.config.proxies.len() {
            self.fail(number, "dialer-proxy", None, reason)
        } else {
            self.fail(number, "proxies", Some(index), reason)
        }
    }

    fn fail(
        &self,
        number: usize,
        key: &'static str,
        item: Option<usize>,
        reason: Reason,
    ) -> ConfigError {
        let (list, index) = match number.checked_sub(self.config.proxies.len()) {
            None => ("proxies", number),
            Some(group) => ("proxy-groups", group),
        };
        let steps = [Step::Key(list), Step::Item(index), Step::Key(key)];
        match item {
            Some(item) => {
                let [list, index, key] = steps;
                self.root
                    .fail_at(&[list, index, key, Step::Item(item)], reason)
            }
            None => self.root.fail_at(&steps, reason),
        }
    }
}

fn mark(set: &mut [bool], number: usize) {
    if let Some(flag) = set.get_mut(number) {
        *flag = true;
    }
}

fn is_marked(set: &[bool], number: usize) -> bool {
    set.get(number).copied().unwrap_or(false)
}
