//! Texts within links: base64 of every alphabet, percent-encoding, and the query.

use crate::encoding::BASE64_NOPAD_TOLERANT;

use super::LinkError;

/// Parameters that are looked at; the rest are passed over.
const PARAMETERS_MAX: usize = 64;

/// Text in base64: either alphabet, with or without its padding.
///
/// # Errors
/// It is none, or no text.
pub(super) fn base64(text: &str) -> Result<String, LinkError> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace() && *b != b'=')
        .map(|b| match b {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    // Some writers leave bits behind the last byte.
    let bytes = BASE64_NOPAD_TOLERANT.decode(&digits);
    let bytes = bytes.map_err(|_| LinkError::Encoding)?;
    String::from_utf8(bytes).map_err(|_| LinkError::Encoding)
}

/// Text with its `%41` replaced. A `+` is a plus: passwords have them.
///
/// # Errors
/// It is no text.
pub(super) fn percent_decoded(text: &str) -> Result<String, LinkError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| {
            let digit = after.get(at).map(|&b| char::from(b));
            digit.and_then(|c| c.to_digit(16))
        };
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| LinkError::Encoding)
}

/// The parameters of a link.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes `a=b&c=d` apart.
    ///
    /// # Errors
    /// A value is no text.
    pub(super) fn parse(text: &str) -> Result<Self, LinkError> {
        let parts = text.split('&').filter(|part| !part.is_empty());
        let pairs = parts.take(PARAMETERS_MAX).map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((key.to_owned(), percent_decoded(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The value of `key`, unless it is empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, _)| known == key);
        pair.map(|(_, value)| &**value)
            .filter(|value| !value.is_empty())
    }
}
