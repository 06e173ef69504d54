//! Xray's settings of REALITY, of a server and of a client, in mihomo's words (xray-api.md 2.10).
//!
//! Pure. What would leave somebody in whom Xray keeps out is refused; the rest of what headgate does not have
//! only tunes.

use serde_json::{Value, json};

use super::protobuf::Field;
use super::status::Status;
use super::stream::Entry;
use super::typed::Typed;
use crate::encoding::{BASE64URL_NOPAD, HEX};

/// The type of the settings.
pub(super) const KIND: &str = "transport.internet.reality.Config";

/// `max-time-difference` is read up to here, in microseconds.
const DIFFERENCE_MAX: u64 = u32::MAX as u64;

fn key(field: &Field<'_>) -> Result<Value, Status> {
    Ok(json!(BASE64URL_NOPAD.encode(field.bytes()?)))
}

/// `reality-config` of a listener.
///
/// # Errors
/// A site that is no host with a port, or conditions that headgate does not check.
pub(super) fn serve(settings: &Typed<'_>, listener: &mut Entry) -> Result<(), Status> {
    let (mut options, mut names, mut ids) = (Entry::new(), Vec::new(), Vec::new());
    for field in settings.fields() {
        let field = field?;
        match field.number {
            2 => {
                let site = field.text()?;
                let bare = site.bytes().all(|byte| byte.is_ascii_digit());
                let local = format!("127.0.0.1:{site}");
                options.insert("dest".to_owned(), json!(if bare { &local } else { site }));
            }
            3 if !matches!(field.text()?, "" | "tcp") => return refused("a site that is no TCP"),
            4 if field.integer()? != 0 => return refused("the PROXY protocol to the site"),
            5 => names.push(json!(field.text()?)),
            6 => {
                options.insert("private-key".to_owned(), key(&field)?);
            }
            7 | 8 if !field.bytes()?.is_empty() => return refused("versions of clients"),
            9 => {
                let microseconds = field.integer()?.saturating_mul(1000).min(DIFFERENCE_MAX);
                options.insert("max-time-difference".to_owned(), json!(microseconds));
            }
            10 => ids.push(json!(HEX.encode(field.bytes()?))),
            11 if !field.bytes()?.is_empty() => return refused("ML-DSA-65"),
            12 | 13 if !field.bytes()?.is_empty() => return refused("limits of strangers"),
            _ => {}
        }
    }
    options.insert("server-names".to_owned(), Value::Array(names));
    options.insert("short-id".to_owned(), Value::Array(ids));
    listener.insert("reality-config".to_owned(), Value::Object(options));
    Ok(())
}

/// `reality-opts` of a proxy, whose type calls the server's name `name_key`.
///
/// # Errors
/// A proof that headgate does not ask for.
pub(super) fn ask(settings: &Typed<'_>, name_key: &str, proxy: &mut Entry) -> Result<(), Status> {
    let mut options = Entry::new();
    for field in settings.fields() {
        let field = field?;
        match field.number {
            22 => {
                proxy.insert(name_key.to_owned(), json!(field.text()?));
            }
            23 => {
                options.insert("public-key".to_owned(), key(&field)?);
            }
            24 => {
                let id = json!(HEX.encode(field.bytes()?));
                options.insert("short-id".to_owned(), id);
            }
            25 if !field.bytes()?.is_empty() => return refused("ML-DSA-65"),
            _ => {}
        }
    }
    proxy.insert("tls".to_owned(), json!(true));
    proxy.insert("reality-opts".to_owned(), Value::Object(options));
    Ok(())
}

fn refused<T>(what: &str) -> Result<T, Status> {
    let text = format!("headgate does not support {what} in REALITY");
    Err(Status::unknown(text))
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::{Fields, Message};
    use super::*;

    /// What becomes of settings.
    fn made(
        settings: &Message,
        make: impl Fn(&Typed<'_>, &mut Entry) -> Result<(), Status>,
    ) -> Result<Value, String> {
        let mut outer = Message::default();
        outer.message(1, &super::super::typed::typed(KIND, settings));
        let field = Fields::new(outer.as_bytes()).next().unwrap().unwrap();
        let mut entry = Entry::new();
        let done = make(&Typed::read(&field).unwrap(), &mut entry);
        done.map(|()| Value::Object(entry))
            .map_err(|status| status.message)
    }

    #[test]
    fn both_ends_are_said_in_the_configurations_words() {
        let mut server = Message::default();
        server.text(2, "www.example.com:443").text(3, "tcp");
        server.text(5, "www.example.com").bytes(6, &[1; 32]);
        server
            .integer(9, 60_000)
            .bytes(10, &[10, 0, 0, 0, 0, 0, 0, 1]);
        let want = json!({"reality-config": {
            "dest": "www.example.com:443", "server-names": ["www.example.com"],
            "private-key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
            "max-time-difference": 60_000_000, "short-id": ["0a00000000000001"],
        }});
        assert_eq!(made(&server, serve), Ok(want));
        let mut client = Message::default();
        client.text(21, "chrome").text(22, "www.example.com");
        client
            .bytes(23, &[1; 32])
            .bytes(24, &[10, 0, 0, 0, 0, 0, 0, 1]);
        let want = json!({"tls": true, "servername": "www.example.com", "reality-opts": {
            "public-key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
            "short-id": "0a00000000000001",
        }});
        let ask = |settings: &Typed<'_>, entry: &mut Entry| ask(settings, "servername", entry);
        assert_eq!(made(&client, ask), Ok(want));
    }

    #[test]
    fn a_condition_that_is_not_checked_is_refused() {
        let refused = |number, bytes: &[u8]| {
            let mut server = Message::default();
            server.bytes(number, bytes);
            made(&server, serve).unwrap_err()
        };
        let of = |what: &str| format!("headgate does not support {what} in REALITY");
        assert_eq!(refused(3, b"unix"), of("a site that is no TCP"));
        assert_eq!(refused(7, &[1, 8, 0]), of("versions of clients"));
        assert_eq!(refused(11, &[0; 32]), of("ML-DSA-65"));
        assert_eq!(refused(12, &[8, 1]), of("limits of strangers"));
    }
}
