//! The authority of a link: who, at which server (RFC 3986 section 3.2, read tolerantly).

use super::LinkError;
use crate::metadata::Host;
use crate::outbound::options::ServerAddress;

/// `user@host:port`.
pub(super) struct Authority<'a> {
    pub(super) user: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
}

/// Authority and query of what follows the scheme; a path between them means nothing.
pub(super) fn split(rest: &str) -> (&str, &str) {
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password in base64 may hold slashes; behind the last @ only a path does.
    let server = before.rfind('@').map_or(0, |at| at + 1);
    let path = before.get(server..).and_then(|server| server.find('/'));
    let end = path.map_or(before.len(), |path| server + path);
    (before.get(..end).unwrap_or(before), query)
}

impl<'a> Authority<'a> {
    /// Takes an authority apart.
    ///
    /// # Errors
    /// The port is none.
    pub(super) fn parse(text: &'a str) -> Result<Self, LinkError> {
        let (user, server) = match text.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, text),
        };
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (server, ""),
        };
        let port = match port {
            "" => None,
            port => Some(port.parse().map_err(|_| LinkError::Part("port"))?),
        };
        Ok(Self {
            user: user.filter(|user| !user.is_empty()),
            host,
            port,
        })
    }

    /// The server, at `default` when no port is given.
    ///
    /// # Errors
    /// No host, or no port.
    pub(super) fn server(&self, default: Option<u16>) -> Result<ServerAddress, LinkError> {
        server(self.host, self.port.or(default))
    }
}

/// A server that can be dialled.
pub(super) fn server(host: &str, port: Option<u16>) -> Result<ServerAddress, LinkError> {
    let parsed = Host::parse(host).ok_or(LinkError::Part("server"))?;
    let port = port.filter(|&port| port != 0);
    Ok(ServerAddress {
        host: parsed.to_string().into(),
        port: port.ok_or(LinkError::Part("port"))?,
    })
}
