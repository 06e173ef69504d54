//! Table `headgate_closed`: what is dropped while nobody decides.

use super::CLOSED_TABLE;
use super::plan::{DNS_PORT, Plan, base, by, chain, near_ports};
use crate::netfilter::table::{Expression as E, Field, Place, Rule, Table, Transport};

impl Plan<'_> {
    pub(super) fn closed(&self) -> Table {
        let direct = E::ConnectionMarked(self.mark(self.marks.direct));
        let lan = E::In(Field::InputInterface, "lan");
        let mut out = vec![vec![E::Reply, E::Return], vec![direct, E::Return]];
        out.extend(self.sources(E::Return));
        if self.options.dns_hijack {
            out.extend(drop_dns());
        }
        out.extend(self.other_families(E::Return));
        out.push(near_ports(E::Return));
        for family in self.families() {
            let field = Field::Destination(family);
            out.push(vec![
                E::In(field, by(family, "bypass4", "bypass6")),
                E::Return,
            ]);
        }
        out.extend([Transport::Tcp, Transport::Udp].map(|t| vec![E::Over(t), E::Drop]));
        let mut chains = vec![
            chain("out", out),
            base(
                "forward",
                "filter",
                Place::Forward,
                0,
                vec![vec![lan, E::Goto("out")]],
            ),
        ];
        if self.options.dns_hijack {
            let mut here = vec![vec![E::Marked(self.mark(self.marks.captured)), E::Return]];
            here.extend(self.sources(E::Return));
            here.extend(drop_dns());
            chains.push(chain("here", here));
            let rules = vec![vec![lan, E::Goto("here")]];
            chains.push(base("input", "filter", Place::Input, 0, rules));
        }
        Table {
            name: CLOSED_TABLE,
            owned: false,
            sets: self.common_sets(),
            chains,
        }
    }
}

fn drop_dns() -> [Rule; 2] {
    [Transport::Tcp, Transport::Udp].map(|t| vec![E::Over(t), E::Port(DNS_PORT), E::Drop])
}
