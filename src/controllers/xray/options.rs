//! What the configuration says of the Xray API (`xray-api:`, contract).

use std::net::SocketAddr;

use super::Service;

/// `xray-api:`.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `listen`.
    pub listen: SocketAddr,
    /// `services`, each once.
    pub services: Vec<Service>,
    /// `secret` (headgate's own): clients send it as `authorization: Bearer …`; empty: none is asked
    /// for. Never shown.
    pub secret: Box<str>,
}
