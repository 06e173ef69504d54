//! What each listener, outbound and user has moved: sums over flows, for those who read counters.
//!
//! Nothing is counted twice and nothing is counted in the relay: a flow's own counters are added to
//! its accounts when it ends, and whoever reads an account adds what the live flows have moved so
//! far. Both happen under the lock of the table of connections, so that no byte is missed or counted
//! twice whichever comes first. Off until somebody wants it ([`super::connections::Connections`]).

use std::collections::HashMap;
use std::sync::Arc;

use super::connections::Connection;

/// Accounts at a time; flows of names beyond it are not entered. Listeners and outbounds come from
/// the owner, users have logged in.
const ACCOUNTS_MAX: usize = 4096;

/// Whose bytes an account sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A listener, by name.
    Inbound,
    /// The node that carried the flow, by name.
    Outbound,
    /// Who logged in at the listener.
    User,
}

/// Which way the bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Upload,
    /// To the client.
    Download,
}

/// An account's name.
pub type Name = (Party, Arc<str>);

/// What one account has moved since it was last reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whose it is.
    pub name: Name,
    /// Which half of it.
    pub direction: Direction,
    /// The bytes.
    pub bytes: u64,
}

/// The accounts.
#[derive(Default)]
pub struct Ledger(HashMap<Name, Account>);

#[derive(Default)]
struct Account {
    /// Bytes of flows that have ended, up and down.
    ended: [u64; 2],
    /// What had been counted at the last reset, up and down.
    settled: [u64; 2],
    /// Of the latest flow's user.
    level: u32,
}

/// The accounts that a flow belongs to.
fn names(connection: &Connection) -> impl Iterator<Item = Name> {
    let inbound = Some((Party::Inbound, &connection.metadata.inbound));
    let outbound = connection.chain.first().map(|node| (Party::Outbound, node));
    let user = connection.metadata.inbound_user.as_ref();
    let user = user.map(|user| (Party::User, user));
    let parties = [inbound, outbound, user].into_iter().flatten();
    parties.map(|(party, name)| (party, Arc::clone(name)))
}

fn moved(connection: &Connection) -> [u64; 2] {
    [connection.upload.get(), connection.download.get()]
}

impl Ledger {
    fn account(&mut self, name: Name) -> Option<&mut Account> {
        if self.0.len() >= ACCOUNTS_MAX && !self.0.contains_key(&name) {
            return None;
        }
        Some(self.0.entry(name).or_default())
    }

    /// Opens the accounts of a flow that begins.
    pub(super) fn begin(&mut self, connection: &Connection) {
        for name in names(connection) {
            if let Some(account) = self.account(name) {
                account.level = connection.metadata.user_level;
            }
        }
    }

    /// Adds a flow that ended. It must be in no later `live`.
    pub(super) fn end(&mut self, connection: &Connection) {
        for name in names(connection) {
            if let Some(account) = self.account(name) {
                for (sum, bytes) in account.ended.iter_mut().zip(moved(connection)) {
                    *sum += bytes;
                }
            }
        }
    }

    /// Reads the accounts that `wanted` says, `live` flows included; with `reset` they count anew.
    /// Those `known` exist though nothing went through them yet.
    pub(super) fn read<'c>(
        &mut self,
        known: impl IntoIterator<Item = Name>,
        live: impl Iterator<Item = &'c Arc<Connection>>,
        reset: bool,
        wanted: &dyn Fn(&Name, Direction, u32) -> bool,
    ) -> Vec<Counted> {
        for name in known {
            let _full = self.account(name);
        }
        let mut running: HashMap<Name, [u64; 2]> = HashMap::new();
        for connection in live {
            let bytes = moved(connection);
            for name in names(connection) {
                let sums = running.entry(name).or_default();
                sums.iter_mut().zip(bytes).for_each(|(sum, n)| *sum += n);
            }
        }
        let mut counted = Vec::new();
        for (name, account) in &mut self.0 {
            let live = running.get(name).copied().unwrap_or_default();
            let halves = account.ended.iter().zip(live).zip(&mut account.settled);
            let directions = [Direction::Upload, Direction::Download];
            for (((ended, live), settled), direction) in halves.zip(directions) {
                if !wanted(name, direction, account.level) {
                    continue;
                }
                let total = ended + live;
                let name = name.clone();
                counted.push(Counted {
                    name,
                    direction,
                    bytes: total.saturating_sub(*settled),
                });
                if reset {
                    *settled = total;
                }
            }
        }
        counted
    }

    /// What each user has moved in all, both ways, resets or not.
    pub(super) fn user_totals<'c>(
        &self,
        live: impl Iterator<Item = &'c Arc<Connection>>,
    ) -> Vec<(Arc<str>, u64)> {
        let accounts = self.0.iter();
        let users = accounts.filter(|((party, _), _)| *party == Party::User);
        let ended =
            users.map(|((_, name), account)| (Arc::clone(name), account.ended.iter().sum()));
        let mut totals: HashMap<Arc<str>, u64> = ended.collect();
        for connection in live {
            let user = connection.metadata.inbound_user.as_ref();
            if let Some(total) = user.and_then(|user| totals.get_mut(user)) {
                *total += moved(connection).iter().sum::<u64>();
            }
        }
        totals.into_iter().collect()
    }

    /// Adds bytes, up and down, that were moved before this ledger began.
    pub(super) fn credit(&mut self, counters: &[(Name, [u64; 2])]) {
        for (name, bytes) in counters {
            if let Some(account) = self.account(name.clone()) {
                let sums = account.ended.iter_mut().zip(bytes);
                sums.for_each(|(sum, bytes)| *sum = sum.saturating_add(*bytes));
            }
        }
    }

    /// The level of the latest flow of an account that is there.
    pub(super) fn level(&self, name: &Name) -> Option<u32> {
        self.0.get(name).map(|account| account.level)
    }
}
