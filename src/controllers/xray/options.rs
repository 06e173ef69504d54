//! What the configuration says of the Xray API (`xray-api:`, contract).

use std::net::SocketAddr;

use super::Service;
use crate::tunnel::policy::Policy;
use crate::tunnel::quota::Limits;

/// `xray-api:`.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `listen`; `None`: it is reached by `tag` alone.
    pub listen: Option<SocketAddr>,
    /// `tag`: the name of the outbound that leads here.
    pub tag: Option<Box<str>>,
    /// `services`, each once.
    pub services: Vec<Service>,
    /// `secret` (headgate's own): clients send it as `authorization: Bearer …`; empty: none is asked
    /// for. Never shown.
    pub secret: Box<str>,
    /// `persist` (headgate's own): run-time changes and counters survive a restart.
    pub persist: bool,
    /// `quotas` (headgate's own): what users may move in a month.
    pub quotas: Limits,
    /// `rates` (headgate's own): what users may move in a second, in each direction.
    pub rates: Limits,
    /// `policy`: Xray's levels and switches; without it no limit of theirs holds and every counter exists.
    pub policy: Option<Policy>,
}
