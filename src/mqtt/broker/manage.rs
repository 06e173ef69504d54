//! What controllers and the rule engine ask of the broker: who is there, who subscribes to what, and
//! acts on behalf of others.
//!
//! Lists are iterators over what is there, in a stable order, so that whoever filters and pages them
//! copies only what he shows. Acts bypass the rules, which bind clients only. A change of users or rules
//! takes hold at once, also of what was granted before it, and drops nobody whom it does not concern.

use std::any::Any;
use std::net::SocketAddr;
use std::rc::Rc;

use super::Broker;
use crate::mqtt::Time;
use crate::mqtt::acl::{Access, Acl, Cached, Row};
use crate::mqtt::auth::{Account, NotAdded, Users};
use crate::mqtt::banned::{Ban, Bans, Who};
use crate::mqtt::codec::{Qos, Reason};
use crate::mqtt::hook::{Hook, Publication, Publisher};
use crate::mqtt::message::Message;
use crate::mqtt::metrics::{Metric, Stats};
use crate::mqtt::options::{ListenerOptions, Options};
use crate::mqtt::password::Secret;
use crate::mqtt::session::Session;
use crate::mqtt::topic::tree::{NodeId, SessionId};
use crate::mqtt::topic::{self, Wanted};

/// A listener, and why its connections ended.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As configured.
    pub options: ListenerOptions,
    /// Whether it still serves.
    pub open: bool,
    /// Ended connections by cause, in EMQX's words.
    pub ended: Vec<(&'static str, u64)>,
}

impl Listener {
    pub(super) fn closed(&mut self, cause: &'static str) {
        match self.ended.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => self.ended.push((cause, 1)),
        }
    }
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Of a shared subscription: its group; that of `$queue/` is `$queue`.
    pub group: Option<&'a str>,
    /// What is matched, without `$share/`.
    pub filter: String,
    /// As granted.
    pub qos: Qos,
}

/// Why a client was not subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSubscribed {
    /// It has no session.
    NoSession,
    /// That is no filter.
    BadFilter,
    /// It has as many as it may.
    Full,
}

impl Broker {
    /// Follows a configuration; sessions stay, as far as it allows them.
    pub fn reconfigure(&mut self, now: Time, options: &Options) {
        self.limits = options.limits;
        self.node.clone_from(&options.node);
        self.response_information
            .clone_from(&options.response_information);
        for listener in &mut self.listeners {
            listener.open = options.listeners.contains(&listener.options);
        }
        for name in self.users.follow(options) {
            self.close_user(now, &name);
        }
        let same = self.acl.rules == options.acl && self.acl.default == options.acl_default;
        self.acl.rules.clone_from(&options.acl);
        self.acl.default = options.acl_default;
        if !same {
            self.recheck(now, None);
        }
    }

    /// The number of a listener that begins to serve.
    pub fn open_listener(&mut self, options: &ListenerOptions) -> u16 {
        let known = self
            .listeners
            .iter()
            .position(|known| known.options.name == options.name);
        let listener = Listener {
            options: options.clone(),
            open: true,
            ended: Vec::new(),
        };
        let number = match known {
            Some(number) => {
                if let Some(known) = self.listeners.get_mut(number) {
                    known.options = listener.options;
                    known.open = true;
                }
                number
            }
            None => {
                self.listeners.push(listener);
                self.listeners.len() - 1
            }
        };
        u16::try_from(number).unwrap_or(u16::MAX)
    }

    /// The listeners; sessions name theirs by its place here.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// How much there is of everything.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Every session, connected or not.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().filter_map(Option::as_deref)
    }

    /// The session of a client.
    #[must_use]
    pub fn find(&self, client_id: &str) -> Option<&Session> {
        self.peek(*self.by_client.get(client_id)?)
    }

    fn find_mut(&mut self, client_id: &str) -> Option<&mut Session> {
        let id = *self.by_client.get(client_id)?;
        self.session(id)
    }

    /// Where a session's client is.
    #[must_use]
    pub fn address(&self, id: SessionId) -> Option<SocketAddr> {
        self.peek(id).map(|session| session.address)
    }

    /// What a session subscribes to.
    pub fn subscriptions<'a>(
        &'a self,
        session: &'a Session,
    ) -> impl Iterator<Item = Subscription<'a>> {
        let id = self.by_client.get(&session.client_id).copied();
        let own = session.nodes.iter().map(|&node| (node, None));
        let shared = session
            .shares
            .iter()
            .map(|(node, group)| (*node, Some(&**group)));
        own.chain(shared).filter_map(move |(node, group)| {
            let subscriber = self.tree.subscriber(node, group, id?)?;
            Some(Subscription {
                group,
                filter: self.tree.filter(node),
                qos: subscriber.qos,
            })
        })
    }

    /// The filters that somebody subscribes to, by their nodes; [`Broker::filter`] spells them.
    pub fn routes(&self) -> impl Iterator<Item = NodeId> {
        self.tree.subscribed()
    }

    /// The filter of a node.
    #[must_use]
    pub fn filter(&self, node: NodeId) -> String {
        self.tree.filter(node)
    }

    /// Whether somebody subscribes to exactly this filter.
    #[must_use]
    pub fn has_route(&self, filter: &str) -> bool {
        let found = self.tree.find(filter);
        found.is_some_and(|node| self.tree.is_subscribed(node))
    }

    /// Ends a client's connection and session; its will is said. Whether there was one.
    pub fn kick(&mut self, now: Time, client_id: &str) -> bool {
        let Some(&id) = self.by_client.get(client_id) else {
            return false;
        };
        self.close(now, id, Reason::ADMINISTRATIVE);
        self.end(now, id);
        true
    }

    /// Changes a client's keep-alive, seconds. Whether there is such a client.
    pub fn set_keep_alive(&mut self, client_id: &str, keep_alive: u16) -> bool {
        let Some(&id) = self.by_client.get(client_id) else {
            return false;
        };
        if let Some(session) = self.session(id) {
            session.keep_alive = keep_alive;
        }
        self.schedule(id);
        true
    }

    /// Publishes for somebody who is no client. Returns to how many it goes; `None`: no topic name, or
    /// too large for the protocol.
    pub fn publish_for(&mut self, now: Time, publication: &Publication) -> Option<usize> {
        if !topic::is_name(&publication.topic) {
            return None;
        }
        let flags = (publication.qos, publication.retain);
        let message = Message::new(
            now,
            &publication.topic,
            publication.properties.finish(),
            &publication.payload,
            flags,
            SessionId::MAX,
        )?;
        self.metrics.add(
            match publication.qos {
                Qos::AtMostOnce => Metric::Publish0Received,
                Qos::AtLeastOnce => Metric::Publish1Received,
                Qos::ExactlyOnce => Metric::Publish2Received,
            },
            1,
        );
        let publisher = Rc::new(Publisher {
            client_id: (&*publication.client_id).into(),
            username: None,
            address: None,
        });
        match self.delay(now, message, &|_| Some(Rc::clone(&publisher))) {
            Ok(reason) => (!reason.is_failure()).then_some(0),
            Err(message) => Some(self.take_in(now, message, &publisher)),
        }
    }

    /// Subscribes a client, which is not asked; it gets retained messages as if it had.
    ///
    /// # Errors
    /// [`NotSubscribed`].
    pub fn subscribe_for(
        &mut self,
        now: Time,
        client_id: &str,
        filter: &str,
        qos: Qos,
    ) -> Result<(), NotSubscribed> {
        let wanted = Wanted::parse(filter).ok_or(NotSubscribed::BadFilter)?;
        let id = self.by_client.get(client_id);
        let id = *id.ok_or(NotSubscribed::NoSession)?;
        let granted = self.add_subscription(now, id, wanted, qos.bits(), 0);
        if Reason(granted).is_failure() {
            return Err(NotSubscribed::Full);
        }
        self.wake(id);
        Ok(())
    }

    /// Unsubscribes a client, which is not asked. Whether it was subscribed.
    ///
    /// # Errors
    /// [`NotSubscribed`].
    pub fn unsubscribe_for(
        &mut self,
        now: Time,
        client_id: &str,
        filter: &str,
    ) -> Result<bool, NotSubscribed> {
        let wanted = Wanted::parse(filter).ok_or(NotSubscribed::BadFilter)?;
        let id = self.by_client.get(client_id);
        let id = *id.ok_or(NotSubscribed::NoSession)?;
        Ok(self.remove_subscription(now, id, wanted))
    }

    /// What the rules said lately of a client's requests; `None`: it has no session.
    #[must_use]
    pub fn decisions(&self, now: Time, client_id: &str) -> Option<Vec<Cached>> {
        let session = self.find(client_id)?;
        let cache = session.decisions.iter();
        Some(cache.flat_map(|cache| cache.iter(now)).cloned().collect())
    }

    /// Forgets what the rules said of a client's requests. Whether it has a session.
    pub fn forget_decisions(&mut self, client_id: &str) -> bool {
        match self.find_mut(client_id) {
            Some(session) => {
                session.decisions = None;
                true
            }
            None => false,
        }
    }

    /// Forgets what the rules said of everybody's requests.
    pub fn forget_all_decisions(&mut self) {
        for session in self.sessions.iter_mut().flatten() {
            session.decisions = None;
        }
    }

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

    /// Lets somebody look on, in place of whoever did.
    pub fn set_hook(&mut self, hook: Box<dyn Hook>) {
        self.put_hook(hook);
    }

    /// Whoever looks on, if it is a `T`; its interest is asked for anew after `call`.
    pub fn with_hook<T: Hook, R>(&mut self, call: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut hook = self.hook.take()?;
        let any: &mut dyn Any = &mut *hook;
        let result = any.downcast_mut().map(call);
        self.put_hook(hook);
        result
    }

    pub(super) fn ids(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        let all = (0..).zip(&self.sessions);
        all.filter(|(_, session)| session.as_deref().is_some_and(&wanted))
            .map(|(id, _)| id)
            .collect()
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

    fn close_user(&mut self, now: Time, name: &str) {
        for id in self.ids(|one| one.link.is_some() && one.username.as_deref() == Some(name)) {
            self.close(now, id, Reason::NOT_AUTHORIZED);
        }
    }

    /// Takes from sessions what the rules no longer allow. `login`: only those whom that name's rows
    /// concern.
    fn recheck(&mut self, now: Time, login: Option<&str>) {
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
