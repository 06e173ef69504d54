//! Kernel switches that capture cannot live with, switched off while it runs.
//!
//! What a switch said before is remembered in the kernel, in this network namespace, as a
//! route in our own table that changes nothing: `throw 192.0.2.SWITCH metric NOTE`
//! (192.0.2.0/24 leads nowhere, RFC 5737), where the note is the interface's index times 256
//! and the old value plus one. So it survives a SIGKILL, is found by the next start and by
//! `cleanup`, vanishes with a reboot together with the switch, and needs no file. The note
//! is written before the switch is touched.
//!
//! Tried, and no trouble to capture: `rp_filter` 1 and 2, `route_localnet`, `accept_local`,
//! `ip_forward` 0 and its IPv6 brother, `tcp_fwmark_accept`, `fwmark_reflect`,
//! `ip_early_demux` 0, `tcp_l3mdev_accept`, `tcp_syncookies` 2, `nf_conntrack_tcp_loose` 0.

use std::net::Ipv4Addr;

use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::platform::route::{OwnKind, OwnRoute, RouteError, Routes};
use crate::platform::sysctl;

/// Switches that break capture when on, and why; their place in the list is their number in
/// the notes, so it never changes. `*` stands for each captured interface.
const SWITCHES: &[(&str, &str)] = &[
    (
        "net/bridge/bridge-nf-call-iptables",
        "captured IPv4 connections of a bridge would hang",
    ),
    (
        "net/bridge/bridge-nf-call-ip6tables",
        "captured IPv6 connections of a bridge would hang",
    ),
    ("net/ipv4/conf/all/src_valid_mark", MARTIAN),
    ("net/ipv4/conf/*/src_valid_mark", MARTIAN),
];
const MARTIAN: &str = "the sources of captured packets would be looked up in our own table and \
     found martian";

/// One switch as it stands in the notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    number: u8,
    /// Index of the interface, 0 where the switch is not one of an interface.
    interface: u32,
    /// What it said before.
    value: u8,
}

impl Note {
    /// The switch's name; `None` when the interface or the switch is unknown by now.
    fn name(self) -> Option<String> {
        let (name, _) = SWITCHES.get(usize::from(self.number).checked_sub(1)?)?;
        if self.interface == 0 {
            return Some((*name).to_owned());
        }
        let interface = if_indextoname(self.interface).ok()?;
        Some(name.replace('*', interface.to_str().ok()?))
    }

    fn route(self, table: u32) -> OwnRoute {
        let address = Ipv4Addr::new(192, 0, 2, self.number);
        let metric = (self.interface << 8) | (u32::from(self.value) + 1);
        OwnRoute {
            table,
            kind: OwnKind::Note { address, metric },
        }
    }

    fn of(route: OwnRoute) -> Option<Self> {
        match route.kind {
            OwnKind::LocalDefault { .. } => None,
            OwnKind::Note { address, metric } => Some(Self {
                number: address.octets()[3],
                interface: metric >> 8,
                value: u8::try_from((metric & 0xff).checked_sub(1)?).ok()?,
            }),
        }
    }
}

/// Switches off what is on, remembering it. Idempotent; an earlier note is kept, since it is
/// older than the switch that we see.
///
/// # Errors
/// What the kernel says to the note; a switch that cannot be written is logged.
pub async fn hold(routes: &Routes, table: u32, interfaces: &[Box<str>]) -> Result<(), RouteError> {
    let mut on = Vec::new();
    for (number, (name, reason)) in (1..).zip(SWITCHES) {
        let mut look = |interface, name: &str| {
            if let Some(value @ 1..=254) = sysctl::read(name) {
                on.push((
                    Note {
                        number,
                        interface,
                        value,
                    },
                    name.to_owned(),
                    reason,
                ));
            }
        };
        if name.contains('*') {
            for interface in interfaces {
                if let Ok(index) = if_nametoindex(&**interface) {
                    look(index, &name.replace('*', interface));
                }
            }
        } else {
            look(0, name);
        }
    }
    if on.is_empty() {
        return Ok(());
    }
    let noted: Vec<Note> = routes
        .ours()
        .await?
        .into_iter()
        .filter_map(Note::of)
        .collect();
    for (note, name, reason) in on {
        let same = |n: &Note| (n.number, n.interface) == (note.number, note.interface);
        if !noted.iter().any(same) {
            routes.add(note.route(table)).await?;
        }
        match sysctl::write(&name, 0) {
            Ok(()) => log::warn!(
                "{name} was {}, switched off while running: {reason}",
                note.value
            ),
            Err(error) => {
                log::error!("{name} is on and cannot be switched off ({error}): {reason}")
            }
        }
    }
    Ok(())
}

/// Puts every switch back that a note tells of, and removes the notes.
///
/// # Errors
/// What the kernel says to the notes.
pub async fn restore(routes: &Routes) -> Result<(), RouteError> {
    for route in routes.ours().await? {
        let Some(note) = Note::of(route) else {
            continue;
        };
        // Whoever switched it on meanwhile had a reason of his own.
        if let Some(name) = note.name().filter(|name| sysctl::read(name) == Some(0)) {
            match sysctl::write(&name, note.value) {
                Ok(()) => log::info!("{name} is {} again", note.value),
                Err(error) => log::error!("{name} stays 0: {error}"),
            }
        }
        routes.remove(route).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_was_noted() {
        let note = Note {
            number: 4,
            interface: 77,
            value: 2,
        };
        assert_eq!(Note::of(note.route(26727)), Some(note));
        let local = OwnRoute {
            table: 1,
            kind: OwnKind::LocalDefault { v4: true },
        };
        assert_eq!(Note::of(local), None);
        let kind = OwnKind::Note {
            address: Ipv4Addr::new(192, 0, 2, 1),
            metric: 0,
        };
        assert_eq!(Note::of(OwnRoute { table: 1, kind }), None);
    }
}
