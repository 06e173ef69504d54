//! The fields of an HTTP/1.1 head at a forward proxy (RFC 9110, RFC 9112): what they say of the
//! message, and which of them go on to the next hop.
//!
//! Pure. Whatever makes it doubtful where a message ends (Content-Length with
//! Transfer-Encoding, repeated or listed lengths, other transfer codings, folded lines, a space
//! before a colon) is refused, never repaired.

use std::fmt;

use super::body::Framing;

/// How many fields a head may have.
pub(super) const FIELDS_MAX: usize = 100;

/// Why bytes are no message that can be forwarded. Fatal to the connection they came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not the grammar of RFC 9112, or too many fields.
    Syntax,
    /// The target is neither `http://…` nor, for CONNECT, `host:port`.
    Target,
    /// No Host field, or several.
    Host,
    /// It is doubtful where the body ends.
    Framing,
    /// A response that does not fit the request.
    Status,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "bad syntax",
            Self::Target => "target is not a proxy's",
            Self::Host => "not exactly one host field",
            Self::Framing => "ambiguous body length",
            Self::Status => "unexpected status",
        })
    }
}

impl From<httparse::Error> for Malformed {
    fn from(_: httparse::Error) -> Self {
        Self::Syntax
    }
}

/// A message and the length of its head, or `None`: read more.
pub type Decoded<T> = Result<Option<(T, usize)>, Malformed>;

/// The fields of a head.
pub(super) struct Fields<'a>(pub(super) &'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of the fields of this name, in lower case.
    pub(super) fn values(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.0.iter();
        fields
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Whether a field that is a list of words has this one.
    pub(super) fn lists(&self, name: &'static str, word: &str) -> bool {
        let mut words = self
            .values(name)
            .flat_map(|value| value.split(|b| *b == b','));
        words.any(|each| each.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// How the fields say that the body ends, if they do (RFC 9112 section 6.3).
    pub(super) fn framing(&self) -> Result<Option<Framing>, Malformed> {
        let mut codings = self.values("transfer-encoding");
        let mut lengths = self.values("content-length");
        let framing = match (codings.next(), lengths.next()) {
            (None, None) => return Ok(None),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (None, Some(digits)) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let digits = str::from_utf8(digits).map_err(|_| Malformed::Framing)?;
                Framing::Length(digits.parse().map_err(|_| Malformed::Framing)?)
            }
            _ => return Err(Malformed::Framing),
        };
        if codings.next().is_some() || lengths.next().is_some() {
            return Err(Malformed::Framing);
        }
        Ok(Some(framing))
    }

    /// The fields that go on to the next hop (RFC 9110 section 7.6.1). The fields that delimit
    /// the message stay even when Connection names them: taking them off would move its end.
    pub(super) fn end_to_end(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let fields = self.0.iter().map(|field| (field.name, field.value));
        fields.filter(|(name, _)| {
            let among = |names: &[&str]| names.iter().any(|each| name.eq_ignore_ascii_case(each));
            let prefix = name.get(..6).unwrap_or_default();
            let delimits = among(&["content-length", "transfer-encoding", "host"]);
            !among(&["connection", "keep-alive", "te", "upgrade"])
                && !prefix.eq_ignore_ascii_case("proxy-")
                && (delimits || !self.lists("connection", name))
        })
    }

    /// Asks the next hop for the protocol that these fields ask for.
    pub(super) fn append_upgrade(&self, head: &mut Vec<u8>) {
        field(head, "Connection", b"Upgrade");
        for protocol in self.values("upgrade") {
            field(head, "Upgrade", protocol);
        }
    }
}

/// Appends one field.
pub(super) fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}
