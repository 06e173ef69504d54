//! Who may use a server: users who come and go while it runs.
//!
//! A list is a snapshot, swapped whole. Whoever is in holds his [`Member`], and ends when that is told to
//! go; who stays on a new list is the same member as before.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use super::ServerError;
use crate::outbound::options::Credentials;

/// A user, as those who came in by his secret know him.
pub(super) struct Member {
    name: Arc<str>,
    level: u32,
    gone: AtomicBool,
    waiting: Notify,
}

impl Member {
    /// What IN-USER compares; none where everybody has the same password.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        Some(&self.name).filter(|name| !name.is_empty())
    }

    /// Which policy holds for him.
    pub(super) fn level(&self) -> u32 {
        self.level
    }

    /// Waits until he may no longer be here.
    pub(super) async fn gone(&self) {
        let mut waiting = pin!(self.waiting.notified());
        // From here on no notice is missed.
        waiting.as_mut().enable();
        if !self.gone.load(Ordering::Acquire) {
            waiting.await;
        }
    }

    fn dismiss(&self) {
        self.gone.store(true, Ordering::Release);
        self.waiting.notify_waiters();
    }
}

/// One line of a list.
pub(super) struct Listed<K> {
    pub(super) member: Arc<Member>,
    options: Credentials,
    /// What they come to.
    pub(super) key: K,
}

/// Users in the order of the configuration.
pub(super) type List<K> = Arc<[Arc<Listed<K>>]>;

/// The list of `users`. Lines of `before` that are among them stay; the others' members are dismissed.
///
/// # Errors
/// What `key` says of a secret; `before` is as it was.
pub(super) fn renewed<K>(
    before: &[Arc<Listed<K>>],
    users: &[Credentials],
    key: &dyn Fn(&Credentials) -> Result<K, ServerError>,
) -> Result<List<K>, ServerError> {
    let known = before.iter().map(|line| (&*line.member.name, line));
    let mut known: HashMap<&str, _> = known.collect();
    let mut list = Vec::with_capacity(users.len());
    for user in users {
        let stays = known.remove(&*user.username);
        list.push(match stays {
            Some(line) if line.options == *user => Arc::clone(line),
            _ => Arc::new(Listed {
                member: Arc::new(Member {
                    name: (&*user.username).into(),
                    level: user.level,
                    gone: AtomicBool::new(false),
                    waiting: Notify::new(),
                }),
                options: user.clone(),
                key: key(user)?,
            }),
        });
    }
    for line in before {
        if !list.iter().any(|stays| Arc::ptr_eq(stays, line)) {
            line.member.dismiss();
        }
    }
    Ok(list.into())
}

/// A list that may be replaced.
pub(super) struct Roll<K>(RwLock<List<K>>);

impl<K> Roll<K> {
    /// Of `users`.
    ///
    /// # Errors
    /// What `key` says of a secret.
    pub(super) fn new(
        users: &[Credentials],
        key: &dyn Fn(&Credentials) -> Result<K, ServerError>,
    ) -> Result<Self, ServerError> {
        Ok(Self(RwLock::new(renewed(&[], users, key)?)))
    }

    /// The list of the moment.
    pub(super) fn now(&self) -> List<K> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has `users` in from now on, and nobody else.
    ///
    /// # Errors
    /// What `key` says of a secret; nothing is changed then.
    pub(super) fn replace(
        &self,
        users: &[Credentials],
        key: &dyn Fn(&Credentials) -> Result<K, ServerError>,
    ) -> Result<(), ServerError> {
        let list = renewed(&self.now(), users, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = list;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn users(list: &[(&str, &str)]) -> Vec<Credentials> {
        let user = |(name, secret): &(&str, &str)| Credentials {
            username: (*name).into(),
            password: (*secret).into(),
            ..Credentials::default()
        };
        list.iter().map(user).collect()
    }

    fn key(user: &Credentials) -> Result<usize, ServerError> {
        user.password.parse().map_err(|_| ServerError::Secret)
    }

    #[test]
    fn who_stays_is_the_same_and_who_goes_is_told() {
        let roll = Roll::new(&users(&[("a", "1"), ("b", "2"), ("c", "3")]), &key).unwrap();
        let before = roll.now();
        let wanted = users(&[("d", "4"), ("c", "9"), ("a", "1")]);
        roll.replace(&wanted, &key).unwrap();
        let now = roll.now();
        let keys: Vec<_> = now.iter().map(|line| line.key).collect();
        assert_eq!(keys, [4, 9, 1]);
        assert!(Arc::ptr_eq(&before[0], &now[2]));
        // Another secret is another member, though the name is the same.
        let gone = before
            .iter()
            .map(|line| line.member.gone().now_or_never().is_some());
        assert_eq!(gone.collect::<Vec<_>>(), [false, true, true]);
    }

    #[tokio::test]
    async fn a_member_who_waits_is_woken() {
        let roll = Roll::new(&users(&[("a", "1")]), &key).unwrap();
        let member = Arc::clone(&roll.now()[0].member);
        let mut waits = Box::pin(member.gone());
        assert!(waits.as_mut().now_or_never().is_none());
        roll.replace(&[], &key).unwrap();
        waits.await;
    }

    #[test]
    fn a_secret_that_is_none_changes_nothing() {
        let roll = Roll::new(&users(&[("a", "1")]), &key).unwrap();
        assert!(roll.replace(&users(&[("b", "x")]), &key).is_err());
        let line = Arc::clone(&roll.now()[0]);
        assert_eq!(line.member.name().map(|name| &**name), Some("a"));
        assert!(line.member.gone().now_or_never().is_none());
    }
}
