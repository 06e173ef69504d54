//! `management:` (contract): the EMQX API and the applications that may ask it.

use std::net::{Ipv4Addr, SocketAddr};

use super::controller::socket_address;
use super::decode::Cursor;
use super::error::{ConfigError, Reason, Warnings};
use super::section::Section;
use crate::controllers::options::{Application, Management};
use crate::mqtt::password::Storage;

/// The node's name when none is given; tools want the form `name@host`.
pub(super) const NODE: &str = "headgate@127.0.0.1";

/// What every EMQX is delivered with, and every scanner tries first (users.md S19).
const EVERYBODY_S: (&str, &str) = ("admin", "public");

/// What runs without a file; who may ask is made by the caller.
pub(super) fn builtin() -> Management {
    Management {
        enable: true,
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8081))),
        node: NODE.into(),
        ..Management::default()
    }
}

/// Takes `management`; without it there is no such API.
pub(super) fn decode(
    section: &mut Section<'_>,
    storage: Storage,
    warnings: &mut Warnings,
) -> Result<Management, ConfigError> {
    let Some(management) = section.take("management") else {
        return Ok(Management {
            node: NODE.into(),
            ..Management::default()
        });
    };
    let mut section = management.section()?;
    let listen = section.take("listen");
    let listen = listen.map(|at| socket_address(&at)).transpose()?;
    let private = listen.is_some_and(|at| at.ip().is_loopback());
    let decoded = Management {
        enable: section.boolean("enable", true)?,
        listen,
        applications: section.list("applications", |item| application(item, private, warnings))?,
        node: match section.take("node") {
            Some(value) => value.parse("a name like headgate@192.168.1.1", node)?,
            None => NODE.into(),
        },
        emqx_status: match section.take("status-style") {
            Some(value) => value.parse("http or emqx", status_style)?,
            None => false,
        },
        storage,
    };
    section.finish(warnings);
    Ok(decoded)
}

/// An application, of an API that only this machine can ask or not.
fn application(
    item: &Cursor<'_>,
    private: bool,
    warnings: &mut Warnings,
) -> Result<Application, ConfigError> {
    let mut section = item.section()?;
    let secret = section.require("secret")?;
    let application = Application {
        id: section
            .require("id")?
            .parse(Application::ID, application_id)?,
        secret: secret.text()?.into(),
        hashed: false,
    };
    if application.secret.is_empty() {
        return Err(secret.fail(Reason::SecretValue("a secret")));
    }
    if !private && (&*application.id, &*application.secret) == EVERYBODY_S {
        let wanted = "a secret of one's own: everybody knows EMQX's admin and public";
        return Err(secret.fail(Reason::SecretValue(wanted)));
    }
    section.finish(warnings);
    Ok(application)
}

fn application_id(text: &str) -> Option<Box<str>> {
    Application::is_id(text).then(|| text.into())
}

fn node(text: &str) -> Option<Box<str>> {
    let (name, host) = text.split_once('@')?;
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    (plain(name) && plain(host)).then(|| text.into())
}

fn status_style(text: &str) -> Option<bool> {
    match text {
        "http" => Some(false),
        "emqx" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_forms() {
        assert!(application_id("admin").is_some() && application_id("0-a_B").is_some());
        for bad in ["", "-a", "a b", "a:b"] {
            assert!(application_id(bad).is_none(), "{bad}");
        }
        assert!(node("emqx@127.0.0.1").is_some());
        for bad in ["emqx", "@x", "a@", "a@b@c", "a@b/c"] {
            assert!(node(bad).is_none(), "{bad}");
        }
    }
}
