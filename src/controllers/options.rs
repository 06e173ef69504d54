//! What the configuration says of the controllers (clash-api.md 1.2 to 1.4).

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::mqtt::password::Storage;
use crate::provider::url::Url;

/// `external-controller*` and `secret`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `external-controller`; none: no TCP controller.
    pub listen: Option<SocketAddr>,
    /// `external-controller-tls`, with the certificate that it shows.
    pub tls: Option<Tls>,
    /// `external-ui`: the files of dashboards, shown without a secret.
    pub ui: Option<Ui>,
    /// `external-doh-server`: the path of DNS over HTTPS.
    pub doh: Option<Box<str>>,
    /// `external-controller-unix`, relative to the working directory.
    pub unix: Option<PathBuf>,
    /// `secret`; empty: every route is open. Never shown.
    pub secret: Box<str>,
    /// `secrets` (headgate's own): further ones, each for as much as its scope says.
    pub secrets: Vec<Secret>,
    /// `external-controller-cors.allow-origins`: exact, or with one `*`; empty: closed.
    pub allow_origins: Vec<Box<str>>,
    /// `external-controller-cors.allow-private-network`.
    pub allow_private_network: bool,
    /// `external-controller-hosts` (headgate's own): names that a request may have in `Host`, beside
    /// address literals and names that are local by nature (`http::access`).
    pub hosts: Vec<Box<str>>,
    /// `upgrade`; none: the program is never replaced.
    pub program: Option<Program>,
    /// `management`.
    pub management: Management,
}

/// `management:`: the EMQX API.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Management {
    /// Whether the section is there; without it there is no such API.
    pub enable: bool,
    /// `listen`: a listener of its own; none: it shares the controller's.
    pub listen: Option<SocketAddr>,
    /// `applications`: who may ask.
    pub applications: Vec<Application>,
    /// `node`: what the one node of this cluster is called.
    pub node: Box<str>,
    /// `status-style: emqx`: failures have status 200, as EMQX answers.
    pub emqx_status: bool,
    /// `mqtt.password-storage`.
    pub storage: Storage,
}

/// One entry of `management.applications`.
#[derive(Clone, PartialEq, Eq)]
pub struct Application {
    /// AppID.
    pub id: Box<str>,
    /// AppSecret, or its SHA-256 in hexadecimal digits; never shown.
    pub secret: Box<str>,
    /// Whether it is that.
    pub hashed: bool,
}

impl Application {
    /// The form of an AppID, in words.
    pub const ID: &str = "1 to 256 letters, digits, - and _, the first a letter or a digit";

    /// Whether a text has the form of an AppID.
    #[must_use]
    pub fn is_id(text: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let begins = text.bytes().next();
        begins.is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text.len() <= 256
            && text.bytes().all(plain)
    }
}

/// The controller's TLS listener.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// `external-controller-tls`.
    pub listen: SocketAddr,
    /// `tls.certificate`: a file relative to the working directory, or PEM text itself.
    pub certificate: Box<str>,
    /// `tls.private-key`, likewise; never shown.
    pub private_key: Box<str>,
}

/// The files of dashboards.
#[derive(Clone, PartialEq, Eq)]
pub struct Ui {
    /// `external-ui`, relative to the working directory.
    pub directory: PathBuf,
    /// `external-ui-name`: the directory beneath it that is shown when none is named.
    pub name: Option<Box<str>>,
    /// `external-ui-url`: an archive of the pages, which `/upgrade/ui` puts in their place.
    pub url: Option<Url>,
}

/// `upgrade`: what `/upgrade` puts in the place of this program.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    /// `url`: the program itself.
    pub url: Url,
    /// `sha256` of it.
    pub sha256: [u8; 32],
}

/// One entry of `secrets`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// What the log calls its bearer.
    pub name: Box<str>,
    /// Never shown.
    pub secret: Box<str>,
    /// What it is good for.
    pub scope: Scope,
}

/// What a secret is good for; each scope includes those before it (users.md S7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To look.
    Read,
    /// To choose in groups, to test, to close connections, to refresh.
    Operate,
    /// To change settings and to load configurations.
    Configure,
    /// To restart and to replace the program or its pages, and to see into its memory.
    Admin,
}

impl Scope {
    /// Every scope, with the name that the configuration gives it.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Read, "read"),
        (Self::Operate, "operate"),
        (Self::Configure, "configure"),
        (Self::Admin, "admin"),
    ];
}
