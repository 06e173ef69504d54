//! Reason codes (MQTT 5.0 section 2.4) and what is left of them in MQTT 3.

/// Why something was answered as it was. From [`Reason::UNSPECIFIED`] on: a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason(pub u8);

impl Reason {
    /// Success, or a normal disconnection, or granted QoS 0.
    pub const SUCCESS: Self = Self(0x00);
    /// Disconnected, and the will is wanted.
    pub const DISCONNECT_WITH_WILL: Self = Self(0x04);
    /// Accepted, but nobody subscribes to it.
    pub const NO_MATCHING_SUBSCRIBERS: Self = Self(0x10);
    /// Nothing to unsubscribe.
    pub const NO_SUBSCRIPTION: Self = Self(0x11);
    /// The first of the failures.
    pub const UNSPECIFIED: Self = Self(0x80);
    /// Bytes that are no packet.
    pub const MALFORMED: Self = Self(0x81);
    /// A packet out of place.
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    /// A protocol version that is not spoken.
    pub const UNSUPPORTED_VERSION: Self = Self(0x84);
    /// A client identifier that is not accepted.
    pub const BAD_CLIENT_ID: Self = Self(0x85);
    /// Unknown user or wrong password.
    pub const BAD_CREDENTIALS: Self = Self(0x86);
    /// Not allowed.
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    /// The broker is full.
    pub const SERVER_BUSY: Self = Self(0x89);
    /// Banned by the administrator.
    pub const BANNED: Self = Self(0x8a);
    /// The broker stops.
    pub const SHUTTING_DOWN: Self = Self(0x8b);
    /// No such way of authentication.
    pub const BAD_AUTH_METHOD: Self = Self(0x8c);
    /// Silent for one and a half keep-alives.
    pub const KEEP_ALIVE_TIMEOUT: Self = Self(0x8d);
    /// Another connection has this client identifier now.
    pub const TAKEN_OVER: Self = Self(0x8e);
    /// A filter that is none.
    pub const FILTER_INVALID: Self = Self(0x8f);
    /// A topic that is none.
    pub const TOPIC_INVALID: Self = Self(0x90);
    /// No such packet identifier is in use.
    pub const PACKET_ID_NOT_FOUND: Self = Self(0x92);
    /// More unacknowledged messages than allowed.
    pub const RECEIVE_MAXIMUM: Self = Self(0x93);
    /// A topic alias out of range, or without a topic.
    pub const ALIAS_INVALID: Self = Self(0x94);
    /// Larger than allowed.
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    /// Messages come too fast.
    pub const RATE_TOO_HIGH: Self = Self(0x96);
    /// More of something than allowed.
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    /// Closed by the administrator.
    pub const ADMINISTRATIVE: Self = Self(0x98);

    /// Whether this is a failure.
    #[must_use]
    pub fn is_failure(self) -> bool {
        self >= Self::UNSPECIFIED
    }

    /// Why a connection ended, in EMQX's words.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::SUCCESS | Self::DISCONNECT_WITH_WILL => "normal",
            Self::MALFORMED => "malformed_packet",
            Self::PROTOCOL_ERROR => "protocol_error",
            Self::NOT_AUTHORIZED => "not_authorized",
            Self::BANNED => "banned",
            Self::SHUTTING_DOWN => "server_shutting_down",
            Self::KEEP_ALIVE_TIMEOUT => "keepalive_timeout",
            Self::TAKEN_OVER => "takeovered",
            Self::TOPIC_INVALID => "topic_name_invalid",
            Self::RECEIVE_MAXIMUM => "receive_maximum_exceeded",
            Self::ALIAS_INVALID => "topic_alias_invalid",
            Self::PACKET_TOO_LARGE => "packet_too_large",
            Self::RATE_TOO_HIGH => "message_rate_too_high",
            Self::QUOTA_EXCEEDED => "quota_exceeded",
            Self::ADMINISTRATIVE => "kicked",
            _ => "unspecified_error",
        }
    }

    /// The return code of a CONNACK of MQTT 3 (3.1.1 section 3.2.2.3). `None`: that version has no
    /// word for it, and the connection is closed without one.
    #[must_use]
    pub fn return_code(self) -> Option<u8> {
        Some(match self {
            Self::SUCCESS => 0,
            Self::UNSUPPORTED_VERSION => 1,
            Self::BAD_CLIENT_ID => 2,
            Self::SERVER_BUSY => 3,
            Self::BAD_CREDENTIALS => 4,
            Self::NOT_AUTHORIZED | Self::BANNED | Self::BAD_AUTH_METHOD => 5,
            _ => return None,
        })
    }
}
