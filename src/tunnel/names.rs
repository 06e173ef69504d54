//! What the tunnel asks of DNS and of the neighbour table; the interfaces are its own, so that
//! it can be tested without either.

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use crate::dns::current::Current;
use crate::dns::mapping;
use crate::metadata::Mac;
use crate::outbound::{BoxFuture, Resolve};
use crate::platform::clock;
use crate::platform::leases::Leases;
use crate::platform::neighbours::Neighbours;

/// What an address that a client dials stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// One of our fake addresses, given for this name.
    Fake(Box<str>),
    /// In the fake range, but given to nobody that we remember.
    FakeUnknown,
    /// A real address that our DNS answered for this name.
    Real(Box<str>),
    /// Nothing is known.
    Unknown,
}

/// What the `hosts` table says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// It has this address.
    Address(IpAddr),
    /// It is another name.
    Alias(Box<str>),
    /// It is not listed.
    Unlisted,
}

/// Names and addresses: DNS, as the tunnel needs it.
pub trait Names: Resolve {
    /// What a dialled address stands for.
    fn map(&self, address: IpAddr) -> Mapping;

    /// What the `hosts` table says of a name.
    fn hosts(&self, name: &str) -> Hosts;

    /// Whether fake addresses are handed out: a mapped name then replaces the address.
    fn fake_mode(&self) -> bool;
}

/// The devices of the LAN, as the tunnel needs them.
pub trait Devices: Send + Sync {
    /// The Ethernet address of a neighbour.
    fn mac_of(&self, address: IpAddr) -> Option<Mac>;

    /// The same of one that may have become a neighbour this very moment; takes a question to the kernel.
    fn seek(&self, address: IpAddr) -> BoxFuture<'_, Option<Mac>>;

    /// What the device calls itself.
    fn name_of(&self, address: IpAddr, mac: Option<Mac>) -> Option<Box<str>>;
}

impl Names for Current {
    fn map(&self, address: IpAddr) -> Mapping {
        match self.server().map(address) {
            mapping::Mapping::Fake(name) => Mapping::Fake(name),
            mapping::Mapping::FakeUnknown => Mapping::FakeUnknown,
            mapping::Mapping::Real(name) => Mapping::Real(name),
            mapping::Mapping::Nothing => Mapping::Unknown,
        }
    }

    fn hosts(&self, name: &str) -> Hosts {
        let server = self.server();
        let found = server
            .hosts()
            .and_then(|hosts| hosts.find(name, clock::now()));
        match found {
            None => Hosts::Unlisted,
            Some(found) => match (
                found.addresses.as_deref().and_then(<[IpAddr]>::first),
                found.alias,
            ) {
                (Some(address), _) => Hosts::Address(*address),
                (None, Some(alias)) => Hosts::Alias(alias),
                (None, None) => Hosts::Unlisted,
            },
        }
    }

    fn fake_mode(&self) -> bool {
        self.server().gives_fakes()
    }
}

/// The neighbour table, where rtnetlink is in reach, and the names of DHCP leases.
pub struct Lan {
    /// The neighbour table.
    pub neighbours: Option<Arc<Neighbours>>,
    /// The names.
    pub leases: Leases,
}

impl Devices for Lan {
    fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        self.neighbours.as_ref()?.mac_of(address)
    }

    fn seek(&self, address: IpAddr) -> BoxFuture<'_, Option<Mac>> {
        match &self.neighbours {
            Some(neighbours) => Box::pin(neighbours.seek(address)),
            None => Box::pin(ready(None)),
        }
    }

    fn name_of(&self, address: IpAddr, mac: Option<Mac>) -> Option<Box<str>> {
        self.leases.name_of(address, mac, clock::now())
    }
}

/// Nothing is known of devices.
pub struct NoDevices;

impl Devices for NoDevices {
    fn mac_of(&self, _address: IpAddr) -> Option<Mac> {
        None
    }

    fn seek(&self, _address: IpAddr) -> BoxFuture<'_, Option<Mac>> {
        Box::pin(ready(None))
    }

    fn name_of(&self, _address: IpAddr, _mac: Option<Mac>) -> Option<Box<str>> {
        None
    }
}

/// No name is known; for tests of what does not ask for names.
#[cfg(test)]
pub(crate) struct NoNames;

#[cfg(test)]
impl Resolve for NoNames {
    fn resolve<'a>(
        &'a self,
        _name: &'a str,
        _version: crate::outbound::IpVersion,
        _purpose: crate::outbound::Purpose,
    ) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) })
    }
}

#[cfg(test)]
impl Names for NoNames {
    fn map(&self, _address: IpAddr) -> Mapping {
        Mapping::Unknown
    }

    fn hosts(&self, _name: &str) -> Hosts {
        Hosts::Unlisted
    }

    fn fake_mode(&self) -> bool {
        false
    }
}
