//! What devices, rules, nodes and domains have moved, day by day.
//!
//! Nothing is counted in the relay: what a flow's own counters have gained is entered here when it ends, and
//! of live flows whenever somebody asks or the clock says so. Today and yesterday are held with their hours;
//! what came since it was last taken ([`History::take_pending`]) waits for whoever keeps it on disk.

pub mod day;
pub mod devices;

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use day::{Day, Dimension, Moved};
use devices::{Device, Devices};

use super::connections::Connection;
use crate::platform::clock;

/// No day before this (2024-01-01) is one: the clock has not been set yet.
const FIRST_DAY: u32 = 19_723;

/// A point in time as the history needs it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For rates.
    pub now: Instant,
    /// Since 1970.
    pub unix: Duration,
    /// Days since 1970, local time.
    pub date: u32,
    /// Hour of that day.
    pub hour: u8,
}

impl Moment {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let unix = clock::unix_time();
        Self::new(clock::now(), unix, clock::local_offset(unix))
    }

    /// `unix` seconds after 1970 in a zone `offset` seconds ahead of UTC.
    #[must_use]
    pub fn new(now: Instant, unix: Duration, offset: i32) -> Self {
        let local = unix.as_secs().saturating_add_signed(offset.into());
        Self {
            now,
            unix,
            date: u32::try_from(local / 86_400).unwrap_or(0),
            hour: u8::try_from(local / 3600 % 24).unwrap_or(0),
        }
    }
}

/// The history. Table: bounded by the lists of its days.
#[derive(Default)]
pub struct History(Mutex<Table>);

#[derive(Default)]
struct Table {
    today: Day,
    yesterday: Day,
    /// What is not on disk yet, by day; two days at most, but while the disk refuses.
    pending: Vec<Day>,
    devices: Devices,
    /// Where names are put together.
    name: String,
}

/// Days whose bytes may wait for the disk; older ones are given up then.
const PENDING_MAX: usize = 2;

impl History {
    /// Adds what an earlier run kept of today or yesterday.
    pub fn enter(&self, kept: &Day, at: &Moment) {
        let mut table = self.table();
        table.turn(at);
        if table.today.date == kept.date {
            table.today.add_day(kept);
        } else if table.yesterday.date == kept.date {
            table.yesterday.add_day(kept);
        }
    }

    /// Enters what a flow has moved since it was last entered.
    pub(super) fn add(&self, connection: &Connection, moved: Moved, at: &Moment) {
        if moved != [0; 2] {
            self.table().add(connection, moved, at);
        }
    }

    /// Measures the devices' rates.
    pub(super) fn measure(&self, now: Instant) {
        self.table().devices.measure(now);
    }

    /// What was entered since this was last asked, by day; nothing while the clock is not set.
    #[must_use]
    pub fn take_pending(&self) -> Vec<Day> {
        let mut table = self.table();
        match table.today.date {
            FIRST_DAY.. => std::mem::take(&mut table.pending),
            _ => Vec::new(),
        }
    }

    /// Gives back what could not be kept; its hours are given up, for a disk may refuse for days.
    pub fn put_back(&self, days: Vec<Day>) {
        let mut table = self.table();
        let sums = days.into_iter().map(Day::without_hours).collect();
        let later = std::mem::replace(&mut table.pending, sums);
        for day in later {
            let same = table
                .pending
                .iter_mut()
                .find(|known| known.date == day.date);
            match same {
                Some(known) => known.add_day(&day),
                None => table.pending.push(day),
            }
        }
        let surplus = table.pending.len().saturating_sub(PENDING_MAX);
        table.pending.drain(..surplus);
    }

    /// Yesterday and today, hour by hour.
    #[must_use]
    pub fn recent(&self, at: &Moment) -> [Day; 2] {
        let mut table = self.table();
        table.turn(at);
        [table.yesterday.clone(), table.today.clone()]
    }

    /// The devices that have moved something since the start.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        self.table().devices.list().to_vec()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Begins a new day when it has come. A clock that goes back changes nothing.
    fn turn(&mut self, at: &Moment) {
        if at.date <= self.today.date {
            return;
        }
        if self.today.date < FIRST_DAY {
            // What came before the clock was set is of the day on which it was.
            self.today.date = at.date;
            self.pending.iter_mut().for_each(|day| day.date = at.date);
            return;
        }
        let ended = std::mem::replace(&mut self.today, Day::new(at.date));
        let before = at.date - 1;
        self.yesterday = match ended.date == before {
            true => ended,
            false => Day::new(before),
        };
    }

    fn add(&mut self, connection: &Connection, moved: Moved, at: &Moment) {
        self.turn(at);
        let date = self.today.date;
        if self.pending.last().is_none_or(|day| day.date != date) {
            self.pending.push(Day::new(date));
        }
        let mut name = std::mem::take(&mut self.name);
        for dimension in Dimension::ALL {
            name.clear();
            write_name(&mut name, dimension, connection);
            self.today.add(dimension, &name, at.hour, moved);
            if let Some(pending) = self.pending.last_mut() {
                pending.add(dimension, &name, at.hour, moved);
            }
            if dimension == Dimension::Device {
                let metadata = &connection.metadata;
                self.devices.add(&name, metadata, moved, at.now, at.unix);
            }
        }
        self.name = name;
    }
}

/// What a flow is entered under. Never empty: that is everybody else.
fn write_name(name: &mut String, dimension: Dimension, connection: &Connection) {
    let metadata = &connection.metadata;
    // Writing to a String cannot fail.
    let _ = match dimension {
        Dimension::Device => match metadata.source_mac {
            Some(mac) => write!(name, "{mac}"),
            None => write!(name, "{}", metadata.source.ip().to_canonical()),
        },
        Dimension::Rule => match &connection.rule {
            Some((kind, payload)) if payload.is_empty() => name.write_str(kind),
            Some((kind, payload)) => write!(name, "{kind},{payload}"),
            None => name.write_str("-"),
        },
        Dimension::Node => name.write_str(connection.chain.first().map_or("-", |node| node)),
        Dimension::Domain => {
            let host = metadata.sniffed_host.as_ref().or(metadata.host.as_ref());
            match (host, metadata.destination_ip) {
                (Some(host), _) => name.write_str(host),
                (None, Some(address)) => write!(name, "{address}"),
                (None, None) => name.write_str("-"),
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::super::connections::Connections;
    use super::day::{OTHER, WHOLE_DAY, plus};
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Mac, Metadata, Network};

    fn at(date: u64, hour: u64) -> Moment {
        let unix = Duration::from_secs(date * 86_400 + hour * 3600);
        Moment::new(clock::now(), unix, 0)
    }

    /// A flow from `192.168.1.client` to `to`.
    fn flow(connections: &Connections, client: u8, to: &str) -> Arc<Connection> {
        let source = SocketAddr::from(([192, 168, 1, client], 40_000));
        let to = Endpoint::parse(to).unwrap();
        let inbound = Arc::from("in");
        let mut metadata = Metadata::new(Network::Tcp, InboundType::TProxy, &inbound, source, to);
        metadata.source_mac = (client == 7).then_some(Mac([2, 0, 0, 0, 0, 7]));
        let rule = Some(("DomainSuffix", "example".into()));
        connections.open(metadata, vec!["node".into()], rule, Duration::ZERO)
    }

    fn rows(day: &Day, dimension: Dimension) -> Vec<(String, Moved)> {
        let rows = day.rows(dimension);
        rows.map(|(name, row)| (name.to_owned(), row.total()))
            .collect()
    }

    #[test]
    fn every_byte_is_entered_once_whether_the_flow_lives_or_has_ended() {
        let connections = Connections::default();
        let history = Arc::new(History::default());
        connections.keep_history(Some(Arc::clone(&history)));
        let (one, two) = (
            flow(&connections, 7, "a.example:443"),
            flow(&connections, 8, "10.0.0.1:53"),
        );
        connections.count_upload(&one, 5);
        connections.count_download(&two, 70);
        connections.settle();
        connections.settle();
        connections.count_upload(&one, 1);
        connections.remove(one.id);
        connections.remove(one.id);
        connections.remove(two.id);
        let today = history.recent(&Moment::now())[1].clone();
        let pair = |name: &str, moved| (name.to_owned(), moved);
        let want = [
            pair("02:00:00:00:00:07", [6, 0]),
            pair("192.168.1.8", [0, 70]),
        ];
        assert_eq!(rows(&today, Dimension::Device), want);
        let want = [pair("10.0.0.1", [0, 70]), pair("a.example", [6, 0])];
        assert_eq!(rows(&today, Dimension::Domain), want);
        let want = [pair("DomainSuffix,example", [6, 70])];
        assert_eq!(rows(&today, Dimension::Rule), want);
        assert_eq!(rows(&today, Dimension::Node), [pair("node", [6, 70])]);
        assert_eq!(history.take_pending(), [today]);
        assert!(history.take_pending().is_empty());
        // Flows are settled in no order.
        let mut devices = history.devices();
        devices.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        assert_eq!(devices[0].addresses, [one.metadata.source.ip()]);
        assert_eq!((devices[0].moved, devices[1].moved), ([6, 0], [0, 70]));
    }

    #[test]
    fn a_day_ends_and_a_clock_that_goes_back_does_not_begin_another() {
        let connections = Connections::default();
        let flow = flow(&connections, 1, "a.example:1");
        let history = History::default();
        history.add(&flow, [1, 0], &at(20_000, 23));
        history.add(&flow, [2, 0], &at(20_001, 0));
        history.add(&flow, [4, 0], &at(20_000, 12));
        let [yesterday, today] = history.recent(&at(20_001, 1));
        assert_eq!((yesterday.date, today.date), (20_000, 20_001));
        assert_eq!(rows(&yesterday, Dimension::Node)[0].1, [1, 0]);
        assert_eq!(rows(&today, Dimension::Node)[0].1, [6, 0]);
        let dates: Vec<_> = history.take_pending().iter().map(|day| day.date).collect();
        assert_eq!(dates, [20_000, 20_001]);
        let [yesterday, today] = history.recent(&at(20_009, 1));
        assert!(yesterday.is_empty() && today.is_empty());
    }

    #[test]
    fn what_came_before_the_clock_was_set_is_of_the_day_on_which_it_was() {
        let connections = Connections::default();
        let flow = flow(&connections, 1, "a.example:1");
        let history = History::default();
        history.add(&flow, [1, 0], &at(0, 0));
        assert!(history.take_pending().is_empty());
        history.add(&flow, [2, 0], &at(20_001, 5));
        let pending = history.take_pending();
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].date, 20_001);
        assert_eq!(rows(&pending[0], Dimension::Rule)[0].1, [3, 0]);
    }

    #[test]
    fn what_could_not_be_kept_is_added_to_what_came_since() {
        let connections = Connections::default();
        let flow = flow(&connections, 1, "a.example:1");
        let history = History::default();
        history.add(&flow, [1, 0], &at(20_000, 1));
        let refused = history.take_pending();
        history.add(&flow, [2, 0], &at(20_000, 2));
        history.put_back(refused);
        let pending = history.take_pending();
        assert_eq!(pending.len(), 1);
        let total = rows(&pending[0], Dimension::Device)[0].1;
        assert_eq!(total, [3, 0]);
        assert_eq!(
            pending[0]
                .clone()
                .without_hours()
                .rows(Dimension::Device)
                .count(),
            1
        );
        assert_eq!((OTHER, WHOLE_DAY, plus([1, 2], [3, 4])), ("", 24, [4, 6]));
    }

    #[test]
    fn rates_are_of_the_time_since_they_were_last_measured() {
        let connections = Connections::default();
        let flow = flow(&connections, 1, "a.example:1");
        let history = History::default();
        let start = at(20_000, 1);
        history.add(&flow, [0, 0], &start);
        history.add(&flow, [1, 1], &start);
        history.measure(start.now + Duration::from_secs(1));
        history.add(&flow, [4000, 600], &start);
        history.measure(start.now + Duration::from_secs(3));
        assert_eq!(history.devices()[0].rate, [2000, 300]);
        history.measure(start.now + Duration::from_secs(4));
        assert_eq!(history.devices()[0].rate, [0, 0]);
    }
}
