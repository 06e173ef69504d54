//! `headgate app`: applications of the management API that no configuration names.
//!
//! `add ID` makes a secret of 128 random bits and prints it once; what is kept is its SHA-256, which
//! is enough for a secret that nobody can guess. A running daemon follows at its next reload.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::Failure;
use super::command::{Command, say};
use super::state;
use crate::controllers::options::Application;
use crate::mqtt::password::{Secret, Storage};

const FILE: &str = "applications.json";

/// More than this is no file of ours.
const BYTES_MAX: u64 = 64 * 1024;

/// Applications that may be added; further ones in the file are passed over.
const APPLICATIONS_MAX: usize = 100;

/// Those that were added: the hash of each one's secret by its name.
fn read(directory: &Path) -> Result<Map<String, Value>, Failure> {
    let path = directory.join(FILE);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        read => read.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let known = serde_json::from_str(&text);
    Ok(known.map_err(|error| format!("{}: {error}", path.display()))?)
}

/// Those that were added, for the API.
///
/// # Errors
/// The file is there and cannot be read.
fn load(directory: &Path) -> Result<Vec<Application>, Failure> {
    let known = read(directory)?;
    let mut applications = Vec::new();
    for (id, hash) in &known {
        match hash.as_str() {
            Some(hash) if Application::is_id(id) && applications.len() < APPLICATIONS_MAX => {
                applications.push(Application {
                    id: id.as_str().into(),
                    secret: hash.into(),
                    hashed: true,
                });
            }
            // Nobody is kept from starting by what was written there by hand.
            _ => log::warn!("{FILE}: {id:?} is passed over"),
        }
    }
    Ok(applications)
}

/// Carries `app add ID`, `app remove ID` or `app list` out.
///
/// # Errors
/// What is wrong, in a line.
pub fn run(command: &Command) -> Result<(), Failure> {
    let directory = command.directory();
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let mut known = read(&directory)?;
    match words[..] {
        ["list"] => {
            for id in known.keys() {
                say(id);
            }
            return Ok(());
        }
        ["add", id] => {
            if !Application::is_id(id) {
                return Err(format!("expected {}", Application::ID).into());
            }
            if known.contains_key(id) || known.len() >= APPLICATIONS_MAX {
                return Err(format!("{id}: there is one of that name, or there are enough").into());
            }
            let secret = state::random_secret()?;
            let hash = Secret::of(secret.as_bytes(), Storage::Sha256);
            let hash = hash.and_then(|hash| hash.to_text());
            let hash = hash.ok_or("the secret cannot be hashed")?;
            known.insert(id.to_owned(), hash.into());
            store(&directory, known)?;
            say(&secret);
        }
        ["remove", id] => {
            known
                .remove(id)
                .ok_or_else(|| format!("{id}: no such application"))?;
            store(&directory, known)?;
        }
        _ => return Err("expected app add ID, app remove ID or app list".into()),
    }
    Ok(())
}

/// Lets the applications that were added ask beside those of the configuration, which keep their names.
///
/// # Errors
/// As [`load`].
pub fn join(directory: &Path, applications: &mut Vec<Application>) -> Result<(), Failure> {
    for added in load(directory)? {
        if !applications.iter().any(|known| known.id == added.id) {
            applications.push(added);
        }
    }
    Ok(())
}

fn store(directory: &Path, known: Map<String, Value>) -> Result<(), Failure> {
    let text = Value::Object(known).to_string();
    Ok(state::replace(&directory.join(FILE), text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::daemon::testing::Place;

    fn application(id: &str, secret: &str) -> Application {
        let hashed = false;
        let (id, secret) = (id.into(), secret.into());
        Application { id, secret, hashed }
    }

    #[test]
    fn the_configurations_applications_keep_their_names_and_secrets() {
        let place = Place::new("applications-names");
        let file = place.0.join(FILE);
        fs::write(file, r#"{"admin": "00", "panel": "11"}"#).unwrap();
        let mut all = vec![application("admin", "own")];
        join(&place.0, &mut all).unwrap();
        let shown = |known: &Application| (known.id.to_string(), known.secret.to_string());
        let shown: Vec<_> = all.iter().map(shown).collect();
        let want = [("admin", "own"), ("panel", "11")];
        assert_eq!(shown, want.map(|(id, secret)| (id.into(), secret.into())));
    }

    #[test]
    fn what_no_add_would_have_written_is_passed_over() {
        let place = Place::new("applications-odd");
        let mut known = Map::new();
        for id in ["two words", "", "-x", "a:b"] {
            known.insert(id.into(), "00".into());
        }
        known.insert("number".into(), 7.into());
        for n in 0..APPLICATIONS_MAX + 5 {
            known.insert(format!("n{n}"), "00".into());
        }
        store(&place.0, known).unwrap();
        let loaded = load(&place.0).unwrap();
        assert_eq!(loaded.len(), APPLICATIONS_MAX);
        assert!(loaded.iter().all(|known| known.id.starts_with('n')));
        assert!(loaded.iter().all(|known| &*known.id != "number"));
    }

    #[test]
    fn a_file_that_is_no_list_is_an_error_and_none_is_none() {
        let place = Place::new("applications-broken");
        assert!(load(&place.0).unwrap().is_empty());
        fs::write(place.0.join(FILE), "[]").unwrap();
        assert!(load(&place.0).is_err());
    }
}
