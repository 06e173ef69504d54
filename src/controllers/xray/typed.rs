//! What stands in many of Xray's messages: typed messages, addresses, ports, users and their accounts
//! (xray-api.md 2.3 and 2.10).
//!
//! Pure. What is read borrows from the request.

use std::net::IpAddr;

use super::protobuf::{Field, Fields, Malformed, Message};
use super::status::Status;

/// Prefixes of type names: the second is taken for the first.
const XRAY: &str = "xray.";
const V2RAY: &str = "v2ray.core.";

/// `xray.common.serial.TypedMessage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Typed<'a> {
    kind: &'a str,
    /// The message's bytes.
    pub value: &'a [u8],
}

impl<'a> Typed<'a> {
    /// Of a field.
    ///
    /// # Errors
    /// No such message.
    pub fn read(field: &Field<'a>) -> Result<Self, Malformed> {
        let mut typed = Self::default();
        for field in field.message()? {
            let field = field?;
            match field.number {
                1 => typed.kind = field.text()?,
                2 => typed.value = field.bytes()?,
                _ => {}
            }
        }
        Ok(typed)
    }

    /// A type without a message.
    #[must_use]
    pub fn named(kind: &'a str) -> Self {
        Self { kind, value: &[] }
    }

    /// The type's name without its prefix, `proxy.vmess.Account`; as it is when it has neither.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        let bare = self.kind.strip_prefix(XRAY);
        bare.or_else(|| self.kind.strip_prefix(V2RAY))
            .unwrap_or(self.kind)
    }

    /// The fields of the message.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.value)
    }

    /// Whether no message was there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.kind.is_empty()
    }
}

/// A typed message of `xray.` and `kind`.
#[must_use]
pub fn typed(kind: &str, value: &Message) -> Message {
    let mut message = Message::default();
    message.text(1, &format!("{XRAY}{kind}"));
    message.bytes(2, value.as_bytes());
    message
}

/// `xray.common.net.IPOrDomain` as text.
///
/// # Errors
/// No such message, or an address of another length than 4 or 16.
pub fn host(field: &Field<'_>) -> Result<String, Status> {
    let mut host = String::new();
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => host = address(field.bytes()?)?.to_string(),
            2 => field.text()?.clone_into(&mut host),
            _ => {}
        }
    }
    Ok(host)
}

/// An address from its bytes.
///
/// # Errors
/// Another length than 4 or 16.
pub fn address(bytes: &[u8]) -> Result<IpAddr, Status> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.map_err(|_| Status::unknown("invalid length of IP"))
}

/// The message of an address.
#[must_use]
pub fn host_message(text: &str) -> Message {
    let mut message = Message::default();
    match text.parse() {
        Ok(IpAddr::V4(address)) => message.item(1, &address.octets()),
        Ok(IpAddr::V6(address)) => message.item(1, &address.octets()),
        Err(_) => message.item(2, text.as_bytes()),
    };
    message
}

/// The ranges of a `PortList`.
///
/// # Errors
/// No such message.
pub fn ports(field: &Field<'_>) -> Result<Vec<(u32, u32)>, Malformed> {
    let mut ranges = Vec::new();
    for range in field.message()? {
        let (mut from, mut to) = (0, 0);
        for field in range?.message()? {
            let field = field?;
            match field.number {
                1 => from = field.short()?,
                2 => to = field.short()?,
                _ => {}
            }
        }
        ranges.push((from, to));
    }
    Ok(ranges)
}

/// An entry of a `map<string, string>`.
///
/// # Errors
/// No such message.
pub fn entry<'a>(field: &Field<'a>) -> Result<(&'a str, &'a str), Malformed> {
    let (mut key, mut value) = ("", "");
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// `xray.common.protocol.User`. Its account's secrets are never shown.
#[derive(Clone, Copy, Default)]
pub struct User<'a> {
    /// `level`.
    pub level: u32,
    /// `email`.
    pub email: &'a str,
    /// `account`.
    pub account: Typed<'a>,
}

impl<'a> User<'a> {
    /// Of a field.
    ///
    /// # Errors
    /// No such message.
    pub fn read(field: &Field<'a>) -> Result<Self, Malformed> {
        let mut user = Self::default();
        for field in field.message()? {
            let field = field?;
            match field.number {
                1 => user.level = field.short()?,
                2 => user.email = field.text()?,
                3 => user.account = Typed::read(&field)?,
                _ => {}
            }
        }
        Ok(user)
    }

    /// The strings of the account's first two fields: user name and password, an id and a flow, or a
    /// password alone (a cipher, which is a number, is none).
    ///
    /// # Errors
    /// They are none.
    pub fn words(&self) -> Result<(&'a str, &'a str), Malformed> {
        let (mut first, mut second) = ("", "");
        for field in self.account.fields() {
            let field = field?;
            match field.number {
                1 => first = field.text()?,
                2 if field.bytes().is_ok() => second = field.text()?,
                _ => {}
            }
        }
        Ok((first, second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_taken_by_either_name_and_given_by_xrays() {
        let mut outer = Message::default();
        outer.message(1, &typed("proxy.socks.Account", &Message::default()));
        let mut old = Message::default();
        old.text(1, "v2ray.core.proxy.socks.Account");
        outer.message(2, &old);
        let fields: Vec<_> = Fields::new(outer.as_bytes()).map(Result::unwrap).collect();
        for field in &fields {
            assert_eq!(Typed::read(field).unwrap().kind(), "proxy.socks.Account");
        }
        let written = fields[0].bytes().unwrap();
        assert!(written.ends_with(b"xray.proxy.socks.Account"));
    }

    #[test]
    fn an_address_is_four_or_sixteen_bytes_or_a_name() {
        for text in ["192.0.2.1", "2001:db8::1", "node.example"] {
            let mut outer = Message::default();
            outer.message(1, &host_message(text));
            let field = Fields::new(outer.as_bytes()).next().unwrap().unwrap();
            assert_eq!(host(&field).unwrap(), text);
        }
        assert!(address(&[1, 2, 3]).is_err());
    }
}
