//! Users, rows of rules and bans that are added while it runs: their changes, and how they are kept.
//!
//! A change takes hold at once, also of what was granted before it, and drops nobody whom it does not
//! concern. Each is a document of the journal; see `restore_management`.

use super::Broker;
use crate::mqtt::Time;
use crate::mqtt::acl::{Access, Acl, Row};
use crate::mqtt::auth::{Account, NotAdded, Users};
use crate::mqtt::banned::{Ban, Bans, Who};
use crate::mqtt::codec::Reason;
use crate::mqtt::password::Secret;
use crate::mqtt::session::Session;
use crate::mqtt::topic::Wanted;

impl Broker {
    /// Who may log in.
    #[must_use]
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`NotAdded`].
    pub fn add_user(&mut self, name: &str, account: Account) -> Result<(), NotAdded> {
        self.users.add(name, account)?;
        self.note_user(name);
        Ok(())
    }

    /// Changes a user who was added; his connections end. Whether there is one.
    pub fn change_user(&mut self, now: Time, name: &str, account: Account) -> bool {
        let changed = self.users.change(name, account);
        if changed {
            self.note_user(name);
            self.close_user(now, name);
        }
        changed
    }

    /// Removes a user who was added; his connections end. Whether there was one.
    pub fn remove_user(&mut self, now: Time, name: &str) -> bool {
        let removed = self.users.remove(name);
        if removed {
            self.note_user(name);
            self.close_user(now, name);
        }
        removed
    }

    /// The rules.
    #[must_use]
    pub fn acl(&self) -> &Acl {
        &self.acl
    }

    /// Adds a row to the rules. `false`: there are enough.
    pub fn add_row(&mut self, now: Time, login: &str, row: Row) -> bool {
        let added = self.acl.add(login, row);
        self.note_rows(login);
        self.recheck(now, Some(login));
        added
    }

    /// Removes a login's rows on a topic. Whether there was one.
    pub fn remove_row(&mut self, now: Time, login: &str, topic: &str) -> bool {
        let removed = self.acl.remove(login, topic);
        self.note_rows(login);
        self.recheck(now, Some(login));
        removed
    }

    /// Who must stay out.
    #[must_use]
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Bans somebody; connections that this concerns end. `false`: there are enough.
    pub fn ban(&mut self, now: Time, who: &Who, ban: Ban) -> bool {
        if !self.bans.set(who.clone(), ban) {
            return false;
        }
        self.note_ban(who);
        let time = self.unix_ms(now) / 1000;
        for id in self.ids(|session| session.link.is_some()) {
            let held = self.peek(id).is_some_and(|session| {
                let (username, from) = (session.username.as_deref(), session.address.ip());
                self.bans.hold(&session.client_id, username, from, time)
            });
            if held {
                self.close(now, id, Reason::BANNED);
            }
        }
        true
    }

    /// Lifts a ban. Whether there was one.
    pub fn lift_ban(&mut self, who: &Who) -> bool {
        let lifted = self.bans.lift(who);
        self.note_ban(who);
        lifted
    }

    fn note_user(&mut self, name: &str) {
        let value = self.users.added().get(name).and_then(|account| {
            let secret = account.secret.to_text()?;
            Some(format!("{} {secret}", u8::from(account.superuser)))
        });
        let key = format!("{USER}{name}");
        self.set_document(&key, value.as_deref().map(str::as_bytes));
    }

    fn note_rows(&mut self, login: &str) {
        let rows = self.acl.rows_of(login).iter().map(|row| {
            let access = match row.access {
                Some(Access::Publish) => "pub",
                Some(Access::Subscribe) => "sub",
                None => "pubsub",
            };
            // No topic holds a zero (1.5.4).
            format!("{} {access} {}\0", u8::from(row.allow), row.topic)
        });
        let rows: String = rows.collect();
        let key = format!("{ROWS}{login}");
        let value = (!rows.is_empty()).then_some(rows.as_bytes());
        self.set_document(&key, value);
    }

    fn note_ban(&mut self, who: &Who) {
        let key = match who {
            Who::ClientId(name) => format!("{BAN}clientid {name}"),
            Who::Username(name) => format!("{BAN}username {name}"),
            Who::Address(address) => format!("{BAN}peerhost {address}"),
        };
        let known = self.bans.iter().find(|(known, _)| *known == who);
        let value = known.map(|(_, ban)| {
            let reason = ban.reason.as_deref().unwrap_or_default();
            let given = u8::from(ban.reason.is_some());
            format!(
                "{} {} {} {given} {reason}",
                ban.at,
                ban.until,
                escape(&ban.by)
            )
        });
        self.set_document(&key, value.as_deref().map(str::as_bytes));
    }

    /// Takes users, rows and bans back from the documents.
    pub(super) fn restore_management(&mut self) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let all: Vec<(String, String)> = self
            .documents("")
            .map(|(key, value)| (key.to_owned(), text(value)))
            .collect();
        for (key, value) in all {
            if let Some(name) = key.strip_prefix(USER) {
                self.restore_user(name, &value);
            } else if let Some(login) = key.strip_prefix(ROWS) {
                for line in value.split_terminator('\0') {
                    if let Some(row) = parse_row(line) {
                        self.acl.add(login, row);
                    }
                }
            } else if let Some(who) = key.strip_prefix(BAN)
                && let (Some(who), Some(ban)) = (parse_who(who), parse_ban(&value))
            {
                self.bans.set(who, ban);
            }
        }
    }

    fn restore_user(&mut self, name: &str, value: &str) {
        let Some((superuser, secret)) = value.split_once(' ') else {
            return;
        };
        if let Some(secret) = Secret::parse(secret) {
            let superuser = superuser == "1";
            // One of the same name in the configuration comes first.
            let _taken = self.users.add(name, Account { secret, superuser });
        }
    }

    pub(super) fn close_user(&mut self, now: Time, name: &str) {
        for id in self.ids(|one| one.link.is_some() && one.username.as_deref() == Some(name)) {
            self.close(now, id, Reason::NOT_AUTHORIZED);
        }
    }

    /// Takes from sessions what the rules no longer allow. `login`: only those whom that name's rows
    /// concern.
    pub(super) fn recheck(&mut self, now: Time, login: Option<&str>) {
        let login = login.filter(|&login| login != crate::mqtt::acl::EVERYONE);
        let concerned = |one: &Session| login.is_none() || one.username.as_deref() == login;
        for id in self.ids(concerned) {
            if let Some(session) = self.session(id) {
                session.decisions = None;
            }
            let Some(session) = self.peek(id) else {
                continue;
            };
            if session.superuser {
                continue;
            }
            let held: Vec<_> = self
                .subscriptions(session)
                .filter(|one| {
                    let client = super::client(session);
                    !self.acl.allows(client, Access::Subscribe, &one.filter)
                })
                .map(|one| (one.group.map(str::to_owned), one.filter))
                .collect();
            for (group, filter) in held {
                let (group, filter) = (group.as_deref(), &*filter);
                self.remove_subscription(now, id, Wanted { group, filter });
            }
        }
    }
}

/// Keys of documents.
const USER: &str = "user ";
const ROWS: &str = "acl ";
const BAN: &str = "ban ";

/// A word without spaces.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace(' ', "%20")
}

fn parse_row(line: &str) -> Option<Row> {
    let mut parts = line.splitn(3, ' ');
    Some(Row {
        allow: parts.next()? == "1",
        access: match parts.next()? {
            "pub" => Some(Access::Publish),
            "sub" => Some(Access::Subscribe),
            _ => None,
        },
        topic: parts.next()?.into(),
    })
}

fn parse_who(text: &str) -> Option<Who> {
    let (kind, name) = text.split_once(' ')?;
    Some(match kind {
        "clientid" => Who::ClientId(name.into()),
        "username" => Who::Username(name.into()),
        _ => Who::Address(name.parse().ok()?),
    })
}

fn parse_ban(value: &str) -> Option<Ban> {
    let mut parts = value.splitn(5, ' ');
    Some(Ban {
        at: parts.next()?.parse().ok()?,
        until: parts.next()?.parse().ok()?,
        by: parts.next()?.replace("%20", " ").replace("%25", "%").into(),
        reason: match (parts.next()?, parts.next()?) {
            ("1", reason) => Some(reason.into()),
            _ => None,
        },
    })
}
