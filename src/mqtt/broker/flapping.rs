//! Clients that come and go without end are kept out for a while (emqx-api.md 5.6).

use std::rc::Rc;

use super::Broker;
use crate::mqtt::Time;
use crate::mqtt::banned::{Ban, Who};
use crate::mqtt::seconds;

/// Clients that are watched at a time; while there are so many, further ones are not.
const CLIENTS_MAX: usize = 1000;

impl Broker {
    /// Counts a connection that ended, and bans its client when there were too many.
    pub(super) fn count_end(&mut self, now: Time, client_id: &Rc<str>) {
        let Some(policy) = self.limits.flapping else {
            return;
        };
        let window = seconds(policy.window);
        if self.flapping.len() >= CLIENTS_MAX {
            self.flapping
                .retain(|_, (since, _)| now.saturating_sub(*since) <= window);
        }
        if self.flapping.len() >= CLIENTS_MAX && !self.flapping.contains_key(client_id) {
            return;
        }
        let entry = self
            .flapping
            .entry(Rc::clone(client_id))
            .or_insert((now, 0));
        if now.saturating_sub(entry.0) > window {
            *entry = (now, 0);
        }
        entry.1 += 1;
        if entry.1 < policy.count {
            return;
        }
        self.flapping.remove(client_id);
        let at = self.unix_ms(now) / 1000;
        let ban = Ban {
            by: "flapping detector".into(),
            reason: Some("flapping is detected".into()),
            at,
            until: at + u64::from(policy.ban),
        };
        self.ban(now, &Who::ClientId((&**client_id).into()), ban);
    }
}
