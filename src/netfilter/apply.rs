//! The tables in the kernel: put there whole, kept alive, taken away.
//!
//! Blocking, but every call is a few system calls that the kernel answers at once. The
//! [`Capture`] owns the socket that owns the table: when it is dropped, or its process is
//! killed, the kernel removes the table.
//!
//! Order at start: [`has_tproxy`], [`hold`], listeners, routes and rules ([`super::routing`]),
//! [`Capture::start`]. Order at stop: [`Capture::stop`], routes, listeners, [`release`].

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;

use super::encode::{self, Change};
use super::marks::Marks;
use super::options::Options;
use super::ruleset::{
    ALIVE, ALIVE_MS, CLOSED_TABLE, Facts, LEARNED_MAX, Ports, Ruleset, TABLE, learned, servers,
};
use super::support::Feature;
use super::table::{Elements, Family, hosts};
use crate::platform::conntrack;
use crate::platform::netlink::{Batch, NetlinkError, Socket};

/// Proxy server addresses kept out of capture, per family; further ones are captured like
/// any other destination when a LAN device asks for them itself.
pub const SERVERS_MAX: usize = 1024;
/// The longest that a learned address stays without being learned again.
const LEARNED_FOR_MAX: Duration = Duration::from_secs(24 * 3600);
/// The shortest: less is not worth a transaction.
const LEARNED_FOR_MIN: Duration = Duration::from_secs(1);

/// Why traffic cannot be captured.
#[derive(Debug)]
pub enum CaptureError {
    /// `transparent.mark` leaves no room for three marks.
    Mark,
    /// Neither root nor `CAP_NET_ADMIN`.
    NotPermitted,
    /// Another process owns the table.
    Running,
    /// The kernel lacks something.
    Missing(Feature),
    /// The kernel refused for another reason.
    Kernel(NetlinkError),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark => f.write_str(
                "transparent.mark: the mask needs two bits or more, and neither the value nor \
                 the value with one of the two lowest of them flipped may be zero",
            ),
            Self::NotPermitted => f.write_str("transparent needs root or CAP_NET_ADMIN"),
            Self::Running => {
                f.write_str("another instance is running: it owns the nftables table headgate")
            }
            Self::Missing(feature) => {
                write!(
                    f,
                    "the kernel has no {feature}; install {}",
                    feature.remedy()
                )
            }
            Self::Kernel(error) => write!(f, "nftables: {error}"),
        }
    }
}

impl std::error::Error for CaptureError {}

impl From<NetlinkError> for CaptureError {
    fn from(error: NetlinkError) -> Self {
        match error {
            // The first message of a transaction asks for nothing yet: whoever may not send
            // that may send none.
            NetlinkError::Refused(0, Errno::EPERM) => Self::NotPermitted,
            NetlinkError::Refused(_, Errno::EPERM) => Self::Running,
            NetlinkError::Socket(ref io) if io.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::NotPermitted
            }
            // Not even netfilter's own door.
            NetlinkError::Socket(ref io)
                if io.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) =>
            {
                Self::Missing(Feature::OwnedTables)
            }
            error => Self::Kernel(error),
        }
    }
}

/// The rules in force.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
    tproxy: bool,
    marks: Marks,
    applied: u64,
    offload: bool,
    servers: Vec<IpAddr>,
}

impl Capture {
    /// Puts the rules into force. Connections that an earlier instance captured are
    /// forgotten, so that they start anew.
    ///
    /// # Errors
    /// See [`CaptureError`]; nothing is left behind.
    pub fn start(options: &Options, ports: Ports, facts: &Facts) -> Result<Self, CaptureError> {
        let marks = Marks::new(options.mark).ok_or(CaptureError::Mark)?;
        let mut socket = Socket::open()?;
        let tproxy = probe(&mut socket)?;
        let mut capture = Self {
            socket,
            tproxy,
            marks,
            applied: 0,
            offload: options.offload,
            servers: Vec::new(),
        };
        capture.apply(options, ports, facts)?;
        forget(marks);
        Ok(capture)
    }

    /// Replaces the rules in one transaction, if they differ from those in force; says whether
    /// they did. Learned addresses are lost, proxy servers are kept.
    ///
    /// # Errors
    /// See [`CaptureError`]; the old rules stay.
    pub fn apply(
        &mut self,
        options: &Options,
        ports: Ports,
        facts: &Facts,
    ) -> Result<bool, CaptureError> {
        let ruleset = Ruleset::new(options, ports, facts, self.tproxy).ok_or(CaptureError::Mark)?;
        let mut batch = Batch::transaction();
        encode::replace(&mut batch, &ruleset.capture);
        replace_closed(&mut batch, &ruleset);
        let mut hasher = DefaultHasher::new();
        batch.as_bytes().hash(&mut hasher);
        let content = hasher.finish();
        if content == self.applied {
            return Ok(false);
        }
        add_servers(&mut batch, &self.servers);
        self.socket.commit(batch)?;
        self.applied = content;
        self.offload = options.offload;
        self.marks = Marks::new(options.mark).ok_or(CaptureError::Mark)?;
        Ok(true)
    }

    /// Keeps the rules in force for another three seconds; to be called each second from the
    /// loop that does the work.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn renew(&mut self) -> Result<(), CaptureError> {
        let mut batch = Batch::transaction();
        // Kernels before 6.12 do not lengthen the life of an element that is there, and
        // deleting one that is not there fails: add, delete, add always works, at once.
        for change in [Change::Add, Change::Delete, Change::Add] {
            let elements = Elements::Alive(ALIVE_MS);
            encode::elements(&mut batch, change, TABLE, ALIVE, &elements);
        }
        Ok(self.socket.commit(batch)?)
    }

    /// Lets connections to these addresses go on in the kernel, each for so long. Says
    /// whether they were taken: when a set is full, or offload is off, nothing changes.
    ///
    /// # Errors
    /// What the kernel says, a full set excepted.
    pub fn add_direct(&mut self, addresses: &[(IpAddr, Duration)]) -> Result<bool, CaptureError> {
        let timed: Vec<(IpAddr, u64)> = addresses
            .iter()
            .take(LEARNED_MAX as usize)
            .map(|&(address, life)| {
                let life = life.clamp(LEARNED_FOR_MIN, LEARNED_FOR_MAX);
                (address, u64::try_from(life.as_millis()).unwrap_or(u64::MAX))
            })
            .collect();
        self.change_direct(&timed, &[Change::Add, Change::Delete, Change::Add])
    }

    /// Takes addresses back: new connections to them are captured.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_direct(&mut self, addresses: &[IpAddr]) -> Result<(), CaptureError> {
        let timed: Vec<(IpAddr, u64)> = addresses.iter().map(|&a| (a, ALIVE_MS)).collect();
        // Added before, since deleting what has expired fails.
        self.change_direct(&timed, &[Change::Add, Change::Delete])?;
        Ok(())
    }

    fn change_direct(
        &mut self,
        addresses: &[(IpAddr, u64)],
        changes: &[Change],
    ) -> Result<bool, CaptureError> {
        if !self.offload || addresses.is_empty() {
            return Ok(false);
        }
        let mut batch = Batch::transaction();
        for &change in changes {
            for family in Family::BOTH {
                let set = (learned(family), family);
                encode::timed_hosts(&mut batch, change, TABLE, set, addresses);
            }
        }
        match self.socket.commit(batch) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.errno(), Some(Errno::ENFILE | Errno::ENOSPC)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back every learned address, for when the rules have changed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn flush_direct(&mut self) -> Result<(), CaptureError> {
        if !self.offload {
            return Ok(());
        }
        let mut batch = Batch::transaction();
        for family in Family::BOTH {
            encode::flush(&mut batch, TABLE, learned(family));
        }
        Ok(self.socket.commit(batch)?)
    }

    /// Replaces the addresses of proxy servers, at most [`SERVERS_MAX`] per family; no table
    /// is made anew for that.
    ///
    /// # Errors
    /// What the kernel says; the old ones stay.
    pub fn set_proxy_servers(&mut self, addresses: &[IpAddr]) -> Result<(), CaptureError> {
        let mut wanted = Vec::new();
        for family in Family::BOTH {
            let mut hosts = hosts(addresses, family);
            hosts.truncate(SERVERS_MAX);
            wanted.append(&mut hosts);
        }
        if wanted == self.servers {
            return Ok(());
        }
        let mut batch = Batch::transaction();
        for family in Family::BOTH {
            encode::flush(&mut batch, TABLE, servers(family));
        }
        add_servers(&mut batch, &wanted);
        self.socket.commit(batch)?;
        self.servers = wanted;
        Ok(())
    }

    /// Takes the rules out of force. The drops of `fail: closed` stay until [`release`].
    ///
    /// # Errors
    /// What the kernel says; dropping the value removes the table in any case.
    pub fn stop(mut self) -> Result<(), CaptureError> {
        let mut batch = Batch::transaction();
        encode::remove(&mut batch, TABLE);
        self.socket.commit(batch)?;
        forget(self.marks);
        Ok(())
    }
}

/// Whether the kernel has tproxy, to be asked before the listeners open: without it UDP other
/// than DNS is not captured, and the listeners for redirected TCP and DNS must be bound to
/// all addresses.
///
/// # Errors
/// [`CaptureError::Missing`] when it lacks what capture cannot do without.
pub fn has_tproxy() -> Result<bool, CaptureError> {
    probe(&mut Socket::open()?)
}

fn probe(socket: &mut Socket) -> Result<bool, CaptureError> {
    if Feature::present(&Feature::ALL, socket)? {
        return Ok(true);
    }
    // Something is missing: ask one by one, to name it.
    for feature in Feature::NEEDED {
        if !Feature::present(&[feature], socket)? {
            return Err(CaptureError::Missing(feature));
        }
    }
    Ok(Feature::present(&[Feature::TProxy], socket)?)
}

/// Puts the drops of `fail: closed` into force, or removes those of an earlier configuration;
/// to be called before the listeners open.
///
/// # Errors
/// See [`CaptureError`].
pub fn hold(options: &Options, facts: &Facts) -> Result<(), CaptureError> {
    let ports = Ports::default();
    let ruleset = Ruleset::new(options, ports, facts, true).ok_or(CaptureError::Mark)?;
    let mut batch = Batch::transaction();
    replace_closed(&mut batch, &ruleset);
    Ok(Socket::open()?.commit(batch)?)
}

/// Removes the drops of `fail: closed`; to be called when the listeners are closed.
///
/// # Errors
/// See [`CaptureError`].
pub fn release() -> Result<(), CaptureError> {
    let mut batch = Batch::transaction();
    encode::remove(&mut batch, CLOSED_TABLE);
    Ok(Socket::open()?.commit(batch)?)
}

/// Removes what a dead instance left of tables and tracked connections.
///
/// # Errors
/// [`CaptureError::Running`] while the table has a living owner; then nothing is removed.
pub fn cleanup(options: &Options) -> Result<(), CaptureError> {
    let mut batch = Batch::transaction();
    encode::remove(&mut batch, TABLE);
    encode::remove(&mut batch, CLOSED_TABLE);
    Socket::open()?.commit(batch)?;
    if let Some(marks) = Marks::new(options.mark) {
        forget(marks);
    }
    Ok(())
}

fn replace_closed(batch: &mut Batch, ruleset: &Ruleset) {
    match &ruleset.closed {
        Some(table) => encode::replace(batch, table),
        None => encode::remove(batch, CLOSED_TABLE),
    }
}

fn add_servers(batch: &mut Batch, addresses: &[IpAddr]) {
    for family in Family::BOTH {
        let elements = Elements::Hosts(hosts(addresses, family));
        encode::elements(batch, Change::Add, TABLE, servers(family), &elements);
    }
}

/// Makes the kernel forget captured connections. A UDP flow between two fixed ports would
/// otherwise keep its tracked connection, which was never masqueraded, as long as it is used.
fn forget(marks: Marks) {
    match conntrack::forget(marks.captured, marks.mask) {
        Ok(()) => {}
        // nfnetlink has no such subsystem.
        Err(error) if error.errno() == Some(Errno::EINVAL) => log::warn!(
            "the kernel cannot forget captured connections, they stay until they expire; \
             install kmod-nf-conntrack-netlink"
        ),
        Err(error) => log::warn!("captured connections stay until they expire: {error}"),
    }
}
