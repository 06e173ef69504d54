//! What DNS tells the kernel: addresses of names that are certain to be DIRECT need not enter user space.
//!
//! Why that is sound. A name is called direct only when the rules send every flow to it DIRECT, whatever
//! its device, port or protocol (`rules::Rules::certainly_direct`), through groups as they are chosen
//! now, by a DIRECT that leaves as a forwarded packet would. Its addresses are then exempt from capture
//! for as long as the answer lives. A flow to such an address that reached us instead would be given
//! this very name by the reverse mapping and end DIRECT; so the exemption changes nothing but the way,
//! provided that
//!
//! - no other name is behind the address. In fake-ip mode names that are not direct are answered with
//!   fake addresses, so no client learns the address by them; those that the filter answers with
//!   real addresses take the address out of the set again, and keep it out while they live;
//! - no sniffer would rename the flow. Mapped flows are not sniffed in fake-ip mode unless the name is
//!   in `force-domain`, and such a name is never called direct here. In redir-host mode they may be,
//!   so nothing is offloaded by name while the sniffer is on there.
//!
//! What changes the decision empties the set: a reload, a mode, a choice in a group. A name may have been
//! judged just before such a change and be told just after it; so each judgement carries the generation
//! of the decisions that it was made by, read before they were asked, and one of a generation that is
//! over tells nothing. Telling and emptying exclude each other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use crate::dns::server::{Judgement, Policy};
use crate::platform::clock;
use crate::tunnel::Tunnel;

/// Addresses remembered here, of both kinds; beyond it nothing new is offloaded.
const REMEMBERED_MAX: usize = 8192;

/// An address is told to the kernel again when less than this is left of it.
const RENEW_BELOW: Duration = Duration::from_secs(10);

/// A client keeps an answer for its TTL and begins the flow a moment later.
const GRACE: Duration = Duration::from_secs(30);

/// The daemon's say in DNS answers.
pub struct Offload {
    tunnel: Arc<OnceLock<Weak<Tunnel>>>,
    kernel: Arc<Kernel>,
    /// Of the decisions in force; changed under the lock of `known`, read without it.
    generation: AtomicU32,
    /// What was told since decisions changed last.
    known: Mutex<HashMap<IpAddr, Known>>,
}

/// What is known of an address, and until when.
#[derive(Clone, Copy)]
enum Known {
    /// It is in the kernel's set.
    Direct(Instant),
    /// A name that is not direct was answered with it.
    Contested(Instant),
}

impl Known {
    fn until(self) -> Instant {
        match self {
            Self::Direct(until) | Self::Contested(until) => until,
        }
    }
}

impl Offload {
    /// Tells `kernel` what `tunnel` decides.
    pub fn new(tunnel: Arc<OnceLock<Weak<Tunnel>>>, kernel: Arc<Kernel>) -> Self {
        Self {
            tunnel,
            kernel,
            generation: AtomicU32::new(0),
            known: Mutex::default(),
        }
    }

    /// Forgets what was told: decisions have changed. To be called when the new ones are in force.
    pub fn forget(&self) {
        let mut known = self.known();
        self.generation.fetch_add(1, Ordering::Release);
        known.clear();
        self.kernel.flush_direct();
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, addresses: &[IpAddr], ttl: Duration, generation: u32) {
        let now = clock::now();
        let until = now + ttl + GRACE;
        // Held while the kernel is told: a change in between would empty its set too early.
        let mut known = self.known();
        if self.generation.load(Ordering::Relaxed) != generation {
            return;
        }
        make_room(&mut known, now);
        let fresh = |address: &&IpAddr| match known.get(*address) {
            None => known.len() < REMEMBERED_MAX,
            Some(Known::Contested(end)) => *end <= now,
            Some(Known::Direct(end)) => *end < now + RENEW_BELOW,
        };
        let due: Vec<(IpAddr, Duration)> = addresses
            .iter()
            .filter(fresh)
            .map(|address| (*address, ttl + GRACE))
            .collect();
        if !due.is_empty() && self.kernel.add_direct(&due) {
            let direct = |(address, _): &(IpAddr, Duration)| (*address, Known::Direct(until));
            known.extend(due.iter().map(direct));
        }
    }

    fn contest(&self, addresses: &[IpAddr], ttl: Duration) {
        let now = clock::now();
        let mut known = self.known();
        make_room(&mut known, now);
        let mut exempt = Vec::new();
        for address in addresses {
            let contested = Known::Contested(now + ttl + GRACE);
            if let Some(Known::Direct(end)) = known.insert(*address, contested)
                && end > now
            {
                exempt.push(*address);
            }
        }
        if !exempt.is_empty() {
            self.kernel.remove_direct(&exempt);
        }
    }
}

fn make_room(known: &mut HashMap<IpAddr, Known>, now: Instant) {
    if known.len() >= REMEMBERED_MAX {
        known.retain(|_, entry| entry.until() > now);
    }
}

impl Policy for Offload {
    fn judge(&self, name: &str) -> Judgement {
        // Before the decisions are asked: they are at least as new then.
        let generation = self.generation.load(Ordering::Acquire);
        Judgement {
            direct: self.is_direct(name),
            generation,
        }
    }

    fn answered(
        &self,
        _name: &str,
        _client: IpAddr,
        addresses: &[IpAddr],
        ttl: u32,
        judged: Judgement,
    ) {
        if !self.kernel.offloads() {
            return;
        }
        let ttl = Duration::from_secs(ttl.into());
        if judged.direct {
            self.tell(addresses, ttl, judged.generation);
        } else {
            self.contest(addresses, ttl);
        }
    }
}

impl Offload {
    fn is_direct(&self, name: &str) -> bool {
        let Some(tunnel) = self.tunnel.get().and_then(Weak::upgrade) else {
            return false;
        };
        let routing = tunnel.routing();
        if routing.sniffer.options.enable && !tunnel.gives_fakes() {
            return false;
        }
        self.kernel.offloads()
            && !routing.sniffer.force_domain.contains(name)
            && routing.certainly_direct(name)
    }
}
