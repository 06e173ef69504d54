//! What happens because nothing happened: keep-alives, wills, the ends of sessions.
//!
//! Each session has at most one entry that counts among the timers. A packet does not move it; when
//! its time has come, the session is asked anew when it is due.

use std::cmp::Reverse;

use super::{Broker, NO_TIMER, RESOLUTION, SWEEP_EVERY};
use crate::mqtt::codec::Reason;
use crate::mqtt::session::Session;
use crate::mqtt::topic::tree::SessionId;
use crate::mqtt::{NEVER, Time, seconds};

/// Entries that no longer count are swept out when there are so many more than sessions.
const STALE_MAX: usize = 1024;

impl Session {
    /// When something is to happen if nothing comes.
    fn due(&self) -> Time {
        if self.lost == NEVER {
            // One and a half times the keep-alive (3.1.2.10).
            return match self.keep_alive {
                0 => NEVER,
                keep_alive => self.heard + Time::from(keep_alive) * 1500,
            };
        }
        self.ends().min(self.will_due)
    }

    /// When the session ends.
    fn ends(&self) -> Time {
        if self.lost == NEVER || self.expiry == u32::MAX {
            NEVER
        } else {
            self.lost + seconds(self.expiry)
        }
    }
}

impl Broker {
    /// When [`Broker::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let sweep = if self.retained.is_empty() && self.bans.is_empty() {
            NEVER
        } else {
            self.swept + SWEEP_EVERY
        };
        let first = self.timers.peek();
        first
            .map_or(NEVER, |Reverse((due, _))| due + RESOLUTION)
            .min(sweep)
            .min(self.delayed.due())
            .min(self.system.due)
    }

    /// Whether [`Broker::deadline`] came nearer since this was asked last.
    pub fn take_sooner(&mut self) -> bool {
        std::mem::take(&mut self.sooner)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time) {
        if now >= self.swept + SWEEP_EVERY {
            self.swept = now;
            self.retained.sweep(now);
            self.stats.retained.set(self.retained.len());
            let time = self.unix_ms(now) / 1000;
            self.bans.sweep(time);
        }
        self.publish_delayed(now);
        if now >= self.system.due {
            self.tell_system(now);
        }
        while let Some(&Reverse((due, id))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            let Some(session) = self.session(id) else {
                continue;
            };
            if session.timer != due {
                continue;
            }
            session.timer = NO_TIMER;
            session.shrink();
            if session.due() <= now {
                self.happen(now, id);
            }
            self.schedule(id);
        }
    }

    fn happen(&mut self, now: Time, id: SessionId) {
        let Some(session) = self.session(id) else {
            return;
        };
        if session.lost == NEVER {
            self.close(now, id, Reason::KEEP_ALIVE_TIMEOUT);
        } else if session.ends() <= now {
            self.end(now, id);
        } else {
            self.say_will(now, id);
        }
    }

    /// Sets the timer of a session, unless it rings early enough.
    pub(super) fn schedule(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else {
            return;
        };
        let due = session.due();
        if due >= session.timer {
            return;
        }
        session.timer = due;
        let first = self.timers.peek();
        self.sooner |= first.is_none_or(|Reverse((first, _))| due < *first);
        self.timers.push(Reverse((due, id)));
        if self.timers.len() > 2 * self.sessions.len() + STALE_MAX {
            let sessions = &self.sessions;
            self.timers.retain(|Reverse((due, id))| {
                let session = sessions.get(*id as usize).and_then(Option::as_ref);
                session.is_some_and(|session| session.timer == *due)
            });
        }
    }
}
