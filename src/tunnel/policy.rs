//! Policy levels, as Xray has them: how long flows may be silent, how much is read at a time, and which
//! counters there are, by the level of who logged in. Level 0 is everybody's who did not.
//!
//! Pure. Without a policy headgate's own limits hold and every counter exists; with one, whatever it does
//! not say is as Xray's documentation has it. [`Connections`](super::connections::Connections) keeps it, the
//! supervisor has silent flows cut once a second, so limits in seconds hold to within two. What it does not reach:
//! flows that the kernel carries alone (`offload`), the end of UDP sessions after their own silence, buffers of
//! the kernel's sockets, and the one frame that an encrypting protocol must have whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::{Direction, Party};

/// What is said of all levels, and of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `levels`; others are as [`Level::default`].
    pub levels: BTreeMap<u32, Level>,
    /// `statsInboundUplink` and `statsInboundDownlink`.
    pub inbounds: [bool; 2],
    /// `statsOutboundUplink` and `statsOutboundDownlink`.
    pub outbounds: [bool; 2],
}

/// What holds for the users of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// `handshake`: how long a client may take to say who he is; of level 0 alone, since nobody knows before.
    pub handshake: Duration,
    /// `connIdle`: seconds of silence after which a flow is cut.
    pub idle: u32,
    /// `uplinkOnly`: the same once the server has said all.
    pub uplink_only: u32,
    /// `downlinkOnly`: the same once the client has said all.
    pub downlink_only: u32,
    /// `bufferSize`: kilobytes that may be read at a time, and so be held for a peer that is slow; 0: as many as
    /// the relay's own buffers and the kernel's pipes take.
    pub buffer: u8,
    /// `statsUserUplink` and `statsUserDownlink`.
    pub counts: [bool; 2],
    /// `statsUserOnline`.
    pub online: bool,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(4),
            idle: 300,
            uplink_only: 2,
            downlink_only: 5,
            buffer: 0,
            counts: [false; 2],
            online: false,
        }
    }
}

impl Level {
    /// Seconds that a flow may be silent of which the client, and the server, have said all.
    #[must_use]
    pub fn patience(&self, said_all: [bool; 2]) -> u32 {
        match said_all {
            [false, false] => self.idle,
            [true, _] => self.downlink_only,
            [false, true] => self.uplink_only,
        }
    }
}

impl Policy {
    /// What holds for that level.
    #[must_use]
    pub fn level(&self, number: u32) -> Level {
        self.levels.get(&number).copied().unwrap_or_default()
    }

    /// Whether there is such a counter; of a user, of that level.
    #[must_use]
    pub fn counts(&self, party: Party, level: u32, direction: Direction) -> bool {
        let [up, down] = match party {
            Party::Inbound => self.inbounds,
            Party::Outbound => self.outbounds,
            Party::User => self.level(level).counts,
        };
        if direction == Direction::Upload {
            up
        } else {
            down
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_nobody_describes_is_as_xrays() {
        let talkative = Level {
            idle: 7,
            counts: [true, false],
            ..Level::default()
        };
        let policy = Policy {
            levels: [(3, talkative)].into(),
            outbounds: [false, true],
            ..Policy::default()
        };
        assert_eq!(policy.level(3).idle, 7);
        assert_eq!(policy.level(0), Level::default());
        let counts = |party, level| {
            [Direction::Upload, Direction::Download]
                .map(|direction| policy.counts(party, level, direction))
        };
        assert_eq!(counts(Party::User, 3), [true, false]);
        assert_eq!(counts(Party::User, 0), [false; 2]);
        assert_eq!(counts(Party::Inbound, 3), [false; 2]);
        assert_eq!(counts(Party::Outbound, 0), [false, true]);
    }

    #[test]
    fn who_waits_for_the_other_side_alone_waits_less() {
        let level = Level::default();
        assert_eq!(level.patience([false, false]), 300);
        assert_eq!(level.patience([true, false]), 5);
        assert_eq!(level.patience([false, true]), 2);
    }
}
