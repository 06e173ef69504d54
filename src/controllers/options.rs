//! What the configuration says of the controllers (clash-api.md 1.2 to 1.4).

use std::net::SocketAddr;
use std::path::PathBuf;

/// `external-controller*` and `secret`.
#[derive(Clone, Default)]
pub struct Options {
    /// `external-controller`; none: no TCP controller.
    pub listen: Option<SocketAddr>,
    /// `external-controller-unix`, relative to the working directory.
    pub unix: Option<PathBuf>,
    /// `secret`; empty: every route is open. Never shown.
    pub secret: Box<str>,
    /// `external-controller-cors.allow-origins`: exact, or with one `*`; empty: closed.
    pub allow_origins: Vec<Box<str>>,
    /// `external-controller-cors.allow-private-network`.
    pub allow_private_network: bool,
    /// `external-controller-hosts` (headgate's own): names that a request may have in `Host`, beside
    /// address literals and names that are local by nature (`http::access`).
    pub hosts: Vec<Box<str>>,
}
