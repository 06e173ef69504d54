//! When what of the Xray API survives a restart is read and written, and when quotas are looked at.

use std::sync::Arc;
use std::time::Duration;

use super::Instance;
use crate::calendar::rfc3339;
use crate::daemon::kept;
use crate::platform::blocking::blocking;
use crate::platform::clock;

/// How often flows are looked at that a policy lets be silent for a while.
pub(super) const SILENCE_EVERY: Duration = Duration::from_secs(1);

/// How often quotas are looked at: for so long a user may move beyond his.
pub(super) const SETTLE_EVERY: Duration = Duration::from_secs(5);

/// Ticks of [`super::PERSIST_EVERY`] after which counters are written, when nothing else is.
const COUNTERS_EVERY: u32 = 60;

/// A number that changes with the month of local time.
fn month() -> u32 {
    let now = clock::unix_time();
    let text = rfc3339(now, clock::local_offset(now));
    let digits = text.chars().filter(char::is_ascii_digit).take(6);
    digits.collect::<String>().parse().unwrap_or_default()
}

impl Instance {
    fn persists(&self) -> bool {
        let options = self.config.xray.as_ref();
        options.is_some_and(|options| options.persist)
    }

    /// Takes up what an earlier run kept. Changes that the configuration leaves no room for are left out;
    /// when proxies cannot be built with them, all are.
    pub(super) fn recall(&mut self) {
        if !self.persists() {
            return;
        }
        let kept = kept::load(&self.directory);
        let connections = self.tunnel.connections();
        connections.keep_ledger(true);
        connections.credit(&kept.counters);
        let totals = connections.user_totals();
        self.tunnel
            .quotas()
            .restore(kept.month, &kept.used, &totals);
        let before = self.config.clone();
        let taken = kept.overlay.taken_groups(&before);
        kept.overlay.apply(&mut self.config);
        self.xray.overlay = kept.overlay;
        let rules = Arc::clone(&self.tunnel.routing().rules);
        let geodata = self.config.geo_categories.clone();
        self.xray.overlay.settle(&taken, &rules, &geodata);
        if let Err(error) = self.rebuild_outbounds() {
            log::error!("changes made by the Xray API are given up: {error}");
            self.config = before;
            self.xray.overlay = kept::Kept::default().overlay;
            return;
        }
        self.follow_rules();
    }

    /// Writes what is to survive, when something was changed or it is time for the counters.
    pub(super) fn keep(&mut self) {
        if !self.persists() {
            return;
        }
        self.xray.ticks += 1;
        if self.xray.changed || self.xray.ticks >= COUNTERS_EVERY {
            let document = kept::document(&self.xray.overlay, &self.tunnel);
            (self.xray.changed, self.xray.ticks) = (false, 0);
            if self.xray.written != document {
                let directory = self.directory.clone();
                self.xray.written.clone_from(&document);
                let _task = blocking(move || {
                    if let Err(error) = kept::store(&directory, &document) {
                        log::warn!("xray.json: {error}");
                    }
                });
            }
        }
    }

    /// The same at the end, at once.
    pub(super) fn keep_last(&self) {
        if self.persists() {
            let document = kept::document(&self.xray.overlay, &self.tunnel);
            if self.xray.written != document
                && let Err(error) = kept::store(&self.directory, &document)
            {
                log::warn!("xray.json: {error}");
            }
        }
    }

    /// Bars and cuts who is over his quota.
    pub(super) fn settle_quotas(&self) {
        let (connections, quotas) = (self.tunnel.connections(), self.tunnel.quotas());
        if !quotas.is_needed() || !quotas.settle(month(), &connections.user_totals()) {
            return;
        }
        for flow in connections.snapshot() {
            if quotas.bars(flow.metadata.inbound_user.as_deref()) {
                flow.close();
            }
        }
    }
}
