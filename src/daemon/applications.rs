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

/// Applications that may be added.
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
pub fn load(directory: &Path) -> Result<Vec<Application>, Failure> {
    let known = read(directory)?;
    let applications = known.iter().filter_map(|(id, hash)| {
        Some(Application {
            id: id.as_str().into(),
            secret: hash.as_str()?.into(),
            hashed: true,
        })
    });
    Ok(applications.collect())
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

fn store(directory: &Path, known: Map<String, Value>) -> Result<(), Failure> {
    let text = Value::Object(known).to_string();
    Ok(state::replace(&directory.join(FILE), text.as_bytes())?)
}
