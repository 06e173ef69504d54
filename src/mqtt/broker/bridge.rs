//! The sessions of bridges: like any client's, but for how they are let in.

use std::rc::Rc;

use super::Broker;
use crate::mqtt::Time;
use crate::mqtt::bridge::{PREFIX, state};
use crate::mqtt::codec::Reason;
use crate::mqtt::topic::Wanted;

/// The document that names this broker.
const IDENTITY: &str = "identity";

impl Broker {
    /// A name for this broker among others; the same after a restart if there is a log.
    pub fn identity(&mut self) -> Box<str> {
        if let Some((IDENTITY, name)) = self.documents(IDENTITY).next()
            && let Ok(name) = str::from_utf8(name)
        {
            return name.into();
        }
        let name = self.own_name.get_or_insert_with(|| {
            let random = std::hash::BuildHasher::hash_one(&self.keys, IDENTITY);
            format!("{random:016x}").into()
        });
        let name = name.clone();
        self.set_document(IDENTITY, Some(name.as_bytes()));
        name
    }

    /// A bridge's session is about to be connected: what it subscribed to and does not any more ends.
    /// `forgotten`: the other broker knows nothing of messages that it began to send.
    pub(in crate::mqtt) fn adopt(
        &mut self,
        now: Time,
        client_id: &str,
        filters: &[Box<str>],
        forgotten: bool,
    ) {
        let Some(&id) = self.by_client.get(client_id) else {
            return;
        };
        let Some(session) = self.peek(id) else {
            return;
        };
        let stale: Vec<_> = self
            .subscriptions(session)
            .map(|one| one.filter)
            .filter(|filter| !filters.iter().any(|wanted| **wanted == **filter))
            .collect();
        for filter in stale {
            if let Some(wanted) = Wanted::parse(&filter) {
                self.remove_subscription(now, id, wanted);
            }
        }
        if let Some(session) = self.session(id)
            && forgotten
            && !session.awaiting_rel.is_empty()
        {
            session.awaiting_rel.clear();
            self.note(id, false, |ledger| ledger.awaiting = true);
        }
    }

    /// Ends the sessions of bridges other than these, and what is retained of their state.
    pub fn keep_bridges(&mut self, now: Time, client_ids: &[Box<str>]) {
        let stale = self.ids(|session| {
            let name = &*session.client_id;
            name.starts_with(PREFIX) && !client_ids.iter().any(|known| **known == *name)
        });
        for id in stale {
            let name = self.peek(id).map(|session| Rc::clone(&session.client_id));
            self.close(now, id, Reason::ADMINISTRATIVE);
            self.end(now, id);
            if let Some(name) = name.as_deref().and_then(|name| name.strip_prefix(PREFIX)) {
                self.publish_for(now, &state(name, ""));
            }
        }
    }
}
