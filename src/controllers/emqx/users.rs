//! Users added while the broker runs (emqx-api.md 2.2). Those of the configuration are not shown: they
//! are the file's.

use serde_json::Value;

use super::page::{Count, Page};
use super::reply::{self, Failure, Outcome, answer, ask, data, done};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::auth::{Account, NotAdded};
use crate::mqtt::password::{Secret, Storage};

/// Items of one request: the hash of each password is slow on purpose.
const ITEMS_MAX: usize = 50;

/// `GET /auth_user`.
pub fn list(context: &Context, request: &Request<'_>) -> Response {
    let listed = Page::of(request.query).and_then(|page| {
        ask(context, move |broker, _| {
            let users = broker.users().added();
            page.write(Count::Plain(users.len()), users.iter(), |json, user| {
                write(json, user.0, user.1);
            })
        })?
    });
    answer(context, listed)
}

fn write(json: &mut Json, login: &str, account: &Account) {
    json.open_object().key("login").string(login);
    json.key("password")
        .string(&account.secret.to_text().unwrap_or_default());
    json.key("is_superuser").plain(account.superuser);
    json.close_object();
}

/// `GET /auth_user/{login}`.
pub fn show(context: &Context, request: &Request<'_>) -> Response {
    let login = request.parameter(0).to_owned();
    let shown = ask(context, move |broker, _| {
        data(|json| match broker.users().added().get(&*login) {
            Some(account) => write(json, &login, account),
            None => {
                json.open_object().close_object();
            }
        })
    });
    answer(context, shown)
}

/// What is wrong with an item: the member's name.
type Wrong = &'static str;

fn login(item: &Value) -> Result<&str, Wrong> {
    filled(item, "login").ok_or("login")
}

fn filled<'v>(item: &'v Value, name: &str) -> Option<&'v str> {
    item.get(name)?.as_str().filter(|text| !text.is_empty())
}

fn account(item: &Value, storage: Storage) -> Result<Account, Wrong> {
    let password = filled(item, "password").ok_or("password")?;
    let superuser = item.get("is_superuser").and_then(Value::as_bool);
    let superuser = superuser.ok_or("is_superuser")?;
    let secret = Secret::of(password.as_bytes(), storage).ok_or("password")?;
    Ok(Account { secret, superuser })
}

/// `POST /auth_user`: each item for itself, what became of it by its login.
pub fn add(context: &Context, request: &Request<'_>) -> Response {
    answer(context, add_all(context, request))
}

fn add_all(context: &Context, request: &Request<'_>) -> Outcome {
    let items = items(request)?;
    let storage = context.emqx.storage;
    let mut results = Vec::with_capacity(items.len());
    for item in &items {
        let name = item.get("login").and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        let made = login(item).and_then(|_| account(item, storage));
        let result = match made {
            Err(wrong) => format!("{{error,{wrong}}}"),
            Ok(account) => {
                let name = name.clone();
                match ask(context, move |broker, _| broker.add_user(&name, account))? {
                    Ok(()) => "ok".to_owned(),
                    Err(NotAdded::Exists) => "{error,existed}".to_owned(),
                    Err(NotAdded::Full) => "{error,full}".to_owned(),
                }
            }
        };
        results.push((name, result));
    }
    Ok(by_login(&results))
}

/// Results as an object; of several for one login the last counts.
pub fn by_login(results: &[(String, String)]) -> Json {
    data(|json| {
        json.open_object();
        for (at, (login, result)) in results.iter().enumerate() {
            let later = results.get(at + 1..).unwrap_or_default();
            if !later.iter().any(|(other, _)| other == login) {
                json.key(login).string(result);
            }
        }
        json.close_object();
    })
}

/// The items of a batch that must hold some.
pub fn items(request: &Request<'_>) -> Result<Vec<Value>, Failure> {
    let missing = || Failure::new(Failure::MISSING, "no items");
    if request.body.is_empty() {
        return Err(missing());
    }
    let items = reply::items(request, ITEMS_MAX)?;
    if items.is_empty() {
        return Err(missing());
    }
    Ok(items)
}

/// `PUT /auth_user/{login}`: his connections end.
pub fn change(context: &Context, request: &Request<'_>) -> Response {
    answer(context, change_one(context, request))
}

fn change_one(context: &Context, request: &Request<'_>) -> Outcome {
    let item = reply::body(request)?;
    let account = account(&item, context.emqx.storage)
        .map_err(|wrong| Failure::new(Failure::BAD_PARAMETER, wrong))?;
    let login = request.parameter(0).to_owned();
    let changed = ask(context, move |broker, now| {
        broker.change_user(now, &login, account)
    })?;
    match changed {
        true => Ok(done()),
        false => Err(Failure::new(Failure::NO_USER, "noexisted")),
    }
}

/// `DELETE /auth_user/{login}`: whether there is one or not.
pub fn remove(context: &Context, request: &Request<'_>) -> Response {
    let login = request.parameter(0).to_owned();
    let removed = ask(context, move |broker, now| broker.remove_user(now, &login));
    answer(context, removed.map(|_| done()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Option<Wrong> {
        let item: Value = serde_json::from_str(text).unwrap();
        let made = login(&item).and_then(|_| account(&item, Storage::Sha256));
        made.err()
    }

    #[test]
    fn the_first_wrong_member_is_named() {
        assert_eq!(
            wrong(r#"{"login":"u","password":"p","is_superuser":false}"#),
            None
        );
        assert_eq!(
            wrong(r#"{"password":"p","is_superuser":false}"#),
            Some("login")
        );
        assert_eq!(
            wrong(r#"{"login":"u","password":"","is_superuser":false}"#),
            Some("password")
        );
        assert_eq!(
            wrong(r#"{"login":"u","password":"p","is_superuser":1}"#),
            Some("is_superuser")
        );
    }

    #[test]
    fn of_several_results_for_a_login_the_last_counts() {
        let results = [("a", "ok"), ("b", "x"), ("a", "{error,existed}")];
        let results = results.map(|(login, result)| (login.to_owned(), result.to_owned()));
        let text = String::from_utf8(by_login(&results).finish()).unwrap();
        assert_eq!(
            text.trim(),
            r#"{"code":0,"data":{"b":"x","a":"{error,existed}"}}"#
        );
    }
}
