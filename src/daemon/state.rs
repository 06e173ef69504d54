//! What survives a restart beside the configuration: choices in groups, and the secrets that were made
//! at the first start. Small files in the working directory, replaced whole and rarely.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::encoding::HEX;

const SELECTED: &str = "selected.json";
/// Where the secrets are that were made, not configured.
pub const CONTROLLER: &str = "controller.secret";
pub const MANAGEMENT: &str = "management.secret";

/// More choices than this are not remembered; no configuration has so many groups.
const SELECTED_BYTES_MAX: u64 = 256 * 1024;

/// Random bytes of a secret that is made here: 128 bits, as the security requirements ask.
const SECRET_BYTES: usize = 16;

/// The SQL rules.
const RULES: &str = "rules.json";

/// More than the rules that there may be can fill.
const RULES_BYTES_MAX: u64 = 8 << 20;

/// Choices by group.
pub type Selected = HashMap<Box<str>, Box<str>>;

/// The choices of an earlier run; none when there is no such file or it is not ours.
pub fn load_selected(directory: &Path) -> Selected {
    let mut text = String::new();
    let read = fs::File::open(directory.join(SELECTED))
        .and_then(|file| file.take(SELECTED_BYTES_MAX).read_to_string(&mut text));
    let Ok(Value::Object(map)) = read
        .map_err(|_| ())
        .and_then(|_| serde_json::from_str(&text).map_err(|_| ()))
    else {
        return Selected::new();
    };
    map.into_iter()
        .filter_map(|(group, member)| Some((group.into(), member.as_str()?.into())))
        .collect()
}

/// The SQL rules of an earlier run; none when there is no such file or it is not ours.
pub fn load_rules(directory: &Path) -> Value {
    let mut text = Vec::new();
    let path = directory.join(RULES);
    let read =
        fs::File::open(&path).and_then(|file| file.take(RULES_BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => serde_json::from_slice(&text).unwrap_or_else(|error| {
            log::error!("{}: {error}", path.display());
            Value::Null
        }),
        Err(_) => Value::Null,
    }
}

/// Keeps the SQL rules.
///
/// # Errors
/// What the file system says; the old file stays whole then.
pub fn store_rules(directory: &Path, document: &[u8]) -> io::Result<()> {
    replace(&directory.join(RULES), document)
}

/// Remembers the choices.
///
/// # Errors
/// What the file system says; the old file stays whole then.
pub fn store_selected(directory: &Path, selected: &Selected) -> io::Result<()> {
    let map: Map<String, Value> = selected
        .iter()
        .map(|(group, member)| (group.to_string(), Value::from(&**member)))
        .collect();
    replace(
        &directory.join(SELECTED),
        Value::Object(map).to_string().as_bytes(),
    )
}

/// The controller's secret of the built-in configuration, made when there is none yet, and where it is.
///
/// # Errors
/// What the file system or the random generator says.
pub fn secret(directory: &Path, name: &str) -> io::Result<(Box<str>, PathBuf)> {
    let path = directory.join(name);
    if let Ok(text) = fs::read_to_string(&path)
        && text.trim().len() >= 2 * SECRET_BYTES
    {
        return Ok((text.trim().into(), path));
    }
    let text = random_secret()?;
    replace(&path, text.as_bytes())?;
    Ok((text.into(), path))
}

/// A new secret.
///
/// # Errors
/// What the random generator says.
pub fn random_secret() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(HEX.encode(&bytes))
}

/// Writes a file whole, or not at all, readable by its owner alone.
///
/// # Errors
/// What the file system says; the old file stays then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("headgate-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn choices_come_back_and_rubbish_is_no_choice() {
        let place = directory("selected");
        assert!(load_selected(&place).is_empty());
        let chosen: Selected = [("Pick \u{1f600}".into(), "a \"b\"".into())].into();
        store_selected(&place, &chosen).unwrap();
        assert_eq!(load_selected(&place), chosen);
        fs::write(place.join(SELECTED), "[1,2").unwrap();
        assert!(load_selected(&place).is_empty());
        let _ = fs::remove_dir_all(&place);
    }

    #[test]
    fn ten_thousand_secrets_are_all_different_and_of_128_bits() {
        let made = (0..10_000).map(|_| random_secret().unwrap());
        let made: std::collections::HashSet<_> = made.collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|secret| secret.len() == 32));
        // Each bit is set in half of them, give or take ten deviations of 50.
        let bytes = made.iter().map(|secret| HEX.decode(secret.as_bytes()));
        let bytes: Vec<Vec<u8>> = bytes.map(Result::unwrap).collect();
        for bit in 0..128 {
            let set = |bytes: &&Vec<u8>| bytes[bit / 8] >> (bit % 8) & 1 == 1;
            let ones = bytes.iter().filter(set).count();
            assert!(ones.abs_diff(5000) < 500, "bit {bit}: {ones}");
        }
    }

    #[test]
    fn a_secret_is_made_once_and_kept_to_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let place = directory("secret");
        let (first, path) = secret(&place, CONTROLLER).unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(secret(&place, CONTROLLER).unwrap().0, first);
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let _ = fs::remove_dir_all(&place);
    }
}
