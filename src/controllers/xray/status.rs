//! How a gRPC call ends: a code and a message (the gRPC documentation's status codes, and its
//! HTTP/2 mapping for the message's encoding).

use std::fmt::Write as _;

use super::protobuf::Malformed;

/// The codes that this server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// What Xray answers to nearly every failure (xray-api.md 2.11).
    Unknown = 2,
    /// The request lacks what it must have.
    InvalidArgument = 3,
    /// The client was too slow.
    DeadlineExceeded = 4,
    /// There is no such counter.
    NotFound = 5,
    /// A message or a client's share is too large.
    ResourceExhausted = 8,
    /// No such method, or an encoding that is not spoken.
    Unimplemented = 12,
    /// The request is not what its method takes.
    Internal = 13,
    /// The daemon is stopping.
    Unavailable = 14,
    /// The secret is missing or wrong.
    Unauthenticated = 16,
}

/// The end of a call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its code.
    pub code: Code,
    /// For people, and for clients that compare its end. Holds no secret.
    pub message: String,
}

impl Status {
    /// A failure of that code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A failure as Xray tells it: code 2 and a text.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// The message as `grpc-message` carries it: printable ASCII, everything else percent-encoded.
    #[must_use]
    pub fn encoded_message(&self) -> String {
        let mut encoded = String::with_capacity(self.message.len());
        for byte in self.message.bytes() {
            if matches!(byte, b' '..=b'~') && byte != b'%' {
                encoded.push(byte.into());
            } else {
                // Writing to a string cannot fail.
                let _ok = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    }
}

impl From<Malformed> for Status {
    /// As grpc-go tells it.
    fn from(error: Malformed) -> Self {
        let message = format!("grpc: error unmarshalling request: proto: {error}");
        Self::new(Code::Internal, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_printable_on_the_wire() {
        let status = Status::unknown("100% of \u{fc}\n");
        assert_eq!(status.encoded_message(), "100%25 of %C3%BC%0A");
    }
}
