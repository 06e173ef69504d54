//! Who may log in: the users of the configuration, and those added while it runs.
//!
//! Pure; a slow check of a password is stated, not done. A name of the configuration cannot be taken
//! by a user who is added. Who changes or removes a user learns whose connections that ends.

use std::collections::{BTreeMap, HashMap};

use super::codec::Reason;
use super::options::Options;
use super::password::Secret;

/// Users added while it runs; further ones are refused.
pub const ACCOUNTS_MAX: usize = 10_000;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What his password is checked against.
    pub secret: Secret,
    /// No rule binds him.
    pub superuser: bool,
}

/// What is known of one who wants in before his password was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Without a password.
    Anonymous,
    /// If this admits his password.
    Check(Account),
    /// Not at all.
    Refused(Reason),
}

/// Why an account was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// There is one of that name.
    Exists,
    /// There are [`ACCOUNTS_MAX`].
    Full,
}

/// Who may log in.
#[derive(Debug, Default)]
pub struct Users {
    allow_anonymous: bool,
    configured: HashMap<Box<str>, Account>,
    added: BTreeMap<Box<str>, Account>,
}

impl Users {
    /// Follows a configuration. Returns whom it concerns: users that are gone or have another password.
    pub fn follow(&mut self, options: &Options) -> Vec<Box<str>> {
        self.allow_anonymous = options.allow_anonymous;
        let users = options.users.iter().map(|user| {
            let account = Account {
                secret: user.secret.clone(),
                superuser: user.superuser,
            };
            (user.name.clone(), account)
        });
        let old = std::mem::replace(&mut self.configured, users.collect());
        old.into_iter()
            .filter(|(name, account)| self.find(name) != Some(account))
            .map(|(name, _)| name)
            .collect()
    }

    fn find(&self, name: &str) -> Option<&Account> {
        self.configured.get(name).or_else(|| self.added.get(name))
    }

    /// Whether a client may come in. One without a user name may when anonymous clients are allowed;
    /// so may one with a name where no users are set up at all.
    #[must_use]
    pub fn login(&self, username: Option<&str>, password: Option<&[u8]>) -> Login {
        let Some(username) = username else {
            return if self.allow_anonymous {
                Login::Anonymous
            } else {
                Login::Refused(Reason::NOT_AUTHORIZED)
            };
        };
        if self.allow_anonymous && self.configured.is_empty() && self.added.is_empty() {
            return Login::Anonymous;
        }
        match (self.find(username), password) {
            (Some(account), Some(_)) => Login::Check(account.clone()),
            _ => Login::Refused(Reason::BAD_CREDENTIALS),
        }
    }

    /// The users added while it runs, by name.
    #[must_use]
    pub fn added(&self) -> &BTreeMap<Box<str>, Account> {
        &self.added
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`NotAdded`].
    pub fn add(&mut self, name: &str, account: Account) -> Result<(), NotAdded> {
        if self.find(name).is_some() {
            return Err(NotAdded::Exists);
        }
        if self.added.len() >= ACCOUNTS_MAX {
            return Err(NotAdded::Full);
        }
        self.added.insert(name.into(), account);
        Ok(())
    }

    /// Changes a user who was added. Whether there is one.
    pub fn change(&mut self, name: &str, account: Account) -> bool {
        match self.added.get_mut(name) {
            Some(known) => {
                *known = account;
                true
            }
            None => false,
        }
    }

    /// Removes a user who was added. Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.added.remove(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::User;
    use super::*;

    fn account(password: &str) -> Account {
        Account {
            secret: Secret::Plain(password.as_bytes().into()),
            superuser: false,
        }
    }

    fn options(allow_anonymous: bool, users: &[(&str, &str)]) -> Options {
        let users = users.iter().map(|(name, password)| User {
            name: (*name).into(),
            secret: account(password).secret,
            superuser: false,
        });
        Options {
            allow_anonymous,
            users: users.collect(),
            ..Options::default()
        }
    }

    #[test]
    fn who_is_unknown_stays_out() {
        let mut users = Users::default();
        users.follow(&options(false, &[("ann", "a")]));
        assert_eq!(
            users.login(Some("ann"), Some(b"x")),
            Login::Check(account("a"))
        );
        for (name, password) in [(Some("ann"), None), (Some("bob"), Some(&b"a"[..]))] {
            let refused = Login::Refused(Reason::BAD_CREDENTIALS);
            assert_eq!(users.login(name, password), refused);
        }
        assert_eq!(
            users.login(None, None),
            Login::Refused(Reason::NOT_AUTHORIZED)
        );
    }

    #[test]
    fn a_name_without_users_is_anonymous_and_with_users_is_not() {
        let mut users = Users::default();
        users.follow(&options(true, &[]));
        assert_eq!(users.login(Some("ann"), Some(b"x")), Login::Anonymous);
        users.add("bob", account("b")).unwrap();
        let refused = Login::Refused(Reason::BAD_CREDENTIALS);
        assert_eq!(users.login(Some("ann"), Some(b"x")), refused);
        assert_eq!(users.login(None, None), Login::Anonymous);
    }

    #[test]
    fn a_reload_names_those_whom_it_concerns() {
        let mut users = Users::default();
        users.follow(&options(false, &[("ann", "a"), ("bob", "b"), ("eve", "e")]));
        assert_eq!(users.add("ann", account("x")), Err(NotAdded::Exists));
        let mut gone = users.follow(&options(false, &[("ann", "a"), ("bob", "other")]));
        gone.sort();
        assert_eq!(gone, ["bob".into(), "eve".into()]);
        assert!(!users.remove("ann") && users.add("eve", account("z")).is_ok());
    }
}
