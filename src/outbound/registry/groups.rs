//! Groups out of proxies, providers' nodes and each other.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::{Provider, RegistryError};
use crate::outbound::Outbound;
use crate::outbound::dial::DEPTH_MAX;
use crate::outbound::group::{Group, Member};
use crate::outbound::health::Health;
use crate::outbound::options::GroupOptions;

/// Makes groups depth first.
pub(super) struct GroupBuilder<'a> {
    pub(super) by_name: HashMap<&'a str, &'a GroupOptions>,
    pub(super) built: HashMap<&'a str, (Arc<Group>, Arc<Health>)>,
    pub(super) nodes: &'a HashMap<Arc<str>, Member>,
    pub(super) providers: &'a [Provider],
    pub(super) selected: &'a HashMap<Box<str>, Box<str>>,
    pub(super) earlier: &'a dyn Fn(&str) -> Option<Arc<Health>>,
    pub(super) wake: &'a Arc<Notify>,
}

impl<'a> GroupBuilder<'a> {
    /// The group, made now or before; `depth` groups around it are being made.
    pub(super) fn build(
        &mut self,
        group: &'a GroupOptions,
        depth: usize,
    ) -> Result<Member, RegistryError> {
        if let Some((built, health)) = self.built.get(&*group.name) {
            return Ok(Member {
                outbound: Arc::clone(built) as Arc<dyn Outbound>,
                health: Arc::clone(health),
            });
        }
        // Deeper than this is a loop, or nothing that a person meant.
        if depth >= DEPTH_MAX {
            return Err(RegistryError::GroupLoop(group.name.clone()));
        }
        let mut members = Vec::with_capacity(group.proxies.len());
        for member in &group.proxies {
            if let Some(node) = self.nodes.get(&**member) {
                members.push(node.clone());
            } else if let Some(&inner) = self.by_name.get(&**member) {
                members.push(self.build(inner, depth + 1)?);
            } else {
                return Err(RegistryError::UnknownMember {
                    group: group.name.clone(),
                    member: member.clone(),
                });
            }
        }
        let mut sources = Vec::new();
        if let Some(wanted) = &group.wanted {
            let used: Vec<&Provider> = wanted
                .providers
                .iter()
                .filter_map(|name| self.providers.iter().find(|p| *p.name() == **name))
                .collect();
            let all: Vec<&Member> = used.iter().flat_map(|used| &used.members).collect();
            let shown: Vec<(&str, &str)> = all
                .iter()
                .map(|member| (&**member.outbound.name(), member.outbound.kind().as_str()))
                .collect();
            let chosen = wanted.choose(&shown);
            members.extend(
                chosen
                    .iter()
                    .filter_map(|&index| all.get(index).copied().cloned()),
            );
            sources.extend(used.iter().map(|used| Arc::clone(&used.group)));
        }
        if members.is_empty() {
            members.extend(self.nodes.get("COMPATIBLE").cloned());
        }
        let choice = self.selected.get(&group.name).map(|choice| &**choice);
        let built = Group::new(group, members, choice, Arc::clone(self.wake)).fed_by(sources);
        let built = Arc::new(built);
        let health = (self.earlier)(&group.name).unwrap_or_default();
        let entry = (Arc::clone(&built), Arc::clone(&health));
        self.built.insert(&group.name, entry);
        Ok(Member {
            outbound: built,
            health,
        })
    }
}
