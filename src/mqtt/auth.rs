//! Whether a client is who it says.
//!
//! A password is compared with the file's own text, or with its PBKDF2 hash. The latter is slow on
//! purpose, so it is computed on a thread apart, few at a time, and the broker goes on meanwhile.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::rc::Rc;

use ring::pbkdf2;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::options::{Options, Secret};

/// Hashes computed at once; a flood of logins takes no more than one core.
const CONCURRENT_MAX: usize = 1;

/// Who may log in.
pub struct Users {
    allow_anonymous: bool,
    secrets: HashMap<Box<str>, Secret>,
    hashing: Rc<Semaphore>,
}

impl Users {
    /// The users of a configuration.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let users = options.users.iter();
        Self {
            allow_anonymous: options.allow_anonymous,
            secrets: users
                .map(|user| (user.name.clone(), user.secret.clone()))
                .collect(),
            hashing: Rc::new(Semaphore::new(CONCURRENT_MAX)),
        }
    }

    /// Whether a client may come in. One without a user name may when anonymous clients are allowed;
    /// so may one with a name where no users are set up at all.
    pub async fn admits(&self, username: Option<&str>, password: Option<&[u8]>) -> bool {
        let Some(username) = username else {
            return self.allow_anonymous;
        };
        if self.secrets.is_empty() {
            return self.allow_anonymous;
        }
        let (Some(secret), Some(password)) = (self.secrets.get(username), password) else {
            return false;
        };
        match secret {
            Secret::Plain(want) => want.ct_eq(password).into(),
            Secret::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => {
                let Some(iterations) = NonZeroU32::new(*iterations) else {
                    return false;
                };
                let (salt, hash, given) = (salt.clone(), hash.clone(), password.to_vec());
                let Ok(_turn) = self.hashing.acquire().await else {
                    return false;
                };
                let work = move || {
                    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                    pbkdf2::verify(algorithm, iterations, &salt, &given, &hash).is_ok()
                };
                spawn_blocking(work).await.unwrap_or(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::User;
    use super::*;

    fn users(secret: Secret) -> Users {
        Users::new(&Options {
            users: vec![User {
                name: "ann".into(),
                secret,
            }],
            ..Options::default()
        })
    }

    #[tokio::test]
    async fn only_the_right_password_is_let_in() {
        let plain = Secret::Plain((*b"secret").into());
        let mut hash = [0; 32];
        let salt = *b"0123456789abcdef";
        let iterations = NonZeroU32::new(10).unwrap();
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            b"secret",
            &mut hash,
        );
        let hashed = Secret::Pbkdf2 {
            iterations: 10,
            salt: salt.into(),
            hash: hash.into(),
        };
        for secret in [plain, hashed] {
            let users = users(secret);
            assert!(users.admits(Some("ann"), Some(b"secret")).await);
            assert!(!users.admits(Some("ann"), Some(b"secre")).await);
            assert!(!users.admits(Some("ann"), None).await);
            assert!(!users.admits(Some("bob"), Some(b"secret")).await);
            assert!(!users.admits(None, None).await);
        }
    }
}
