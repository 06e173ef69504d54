//! `cipher` and `password` of `type: ss`: which ciphers there are and what a key must look like
//! (SIP022 section 2.1 for the 2022 edition). Passwords are never quoted in a message.

use super::error::{ConfigError, Excerpt, Reason};
use super::section::Section;

/// The ciphers that take any password.
const PASSWORD_CIPHERS: &[&str] = &["aes-128-gcm", "aes-256-gcm", "chacha20-ietf-poly1305"];

/// The ciphers of the 2022 edition: the bytes of each key, whether several may be joined by `:`
/// (identity headers exist for AES only), and what to say of another key.
const KEY_CIPHERS: &[(&str, usize, bool, &str)] = &[
    (
        "2022-blake3-aes-128-gcm",
        16,
        true,
        "keys of 16 bytes in base64, joined by colons",
    ),
    (
        "2022-blake3-aes-256-gcm",
        32,
        true,
        "keys of 32 bytes in base64, joined by colons",
    ),
    (
        "2022-blake3-chacha20-poly1305",
        32,
        false,
        "a key of 32 bytes in base64",
    ),
];

/// Takes both keys, checked against each other.
pub(super) fn cipher_and_password(
    section: &mut Section<'_>,
) -> Result<(Box<str>, Box<str>), ConfigError> {
    let cipher_at = section.require("cipher")?;
    let cipher = cipher_at.text()?.to_ascii_lowercase();
    let password_at = section.require("password")?;
    let password = password_at.text()?;
    let row = KEY_CIPHERS.iter().find(|row| row.0 == cipher);
    if let Some(&(_, length, several, expected)) = row {
        let mut keys = password.split(':');
        let right = |key: &str| base64_length(key) == Some(length);
        if !keys.next().is_some_and(right) || !keys.all(|key| several && right(key)) {
            return Err(password_at.fail(Reason::SecretValue(expected)));
        }
    } else if !PASSWORD_CIPHERS.contains(&&*cipher) {
        return Err(cipher_at.fail(Reason::Unknown("cipher", Excerpt::of(&cipher))));
    }
    Ok((cipher.into(), password.into()))
}

/// How many bytes a text in padded base64 (RFC 4648 section 4) stands for.
fn base64_length(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    if !text.len().is_multiple_of(4) || padding > 2 || !digits.bytes().all(alphabet) {
        return None;
    }
    Some(digits.len() * 3 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_measured_and_checked() {
        for (text, length) in [
            ("", Some(0)),
            ("AA==", Some(1)),
            ("AAA=", Some(2)),
            ("AAAA", Some(3)),
            ("AAAAAAAAAAAAAAAAAAAAAA==", Some(16)),
            ("A", None),
            ("A===", None),
            ("AA=A", None),
            ("AA-_", None),
        ] {
            assert_eq!(base64_length(text), length, "{text}");
        }
    }
}
