//! Protocol buffers, the wire format alone: fields out of bytes, and messages into bytes.
//!
//! Pure functions. Which number means what is known to those who read and write a message; the
//! same numbers stand in `proto/`, which reflection hands out, and the tests hold one against the
//! other. A message is read in place: nothing is allocated here, and nesting is as deep as its
//! readers are, so hostile bytes cost their own length at most. Groups, which proto3 does not
//! have, are refused. Unknown fields are for the reader to pass over.
//!
//! Source: the encoding chapter of the protocol buffers documentation.

use std::fmt;

/// Why bytes are no message. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends within a field.
    Truncated,
    /// A number of more than 64 bits, or field number 0.
    Number,
    /// A wire type that proto3 does not have.
    WireType,
    /// A field of another wire type than its message says.
    Unexpected,
    /// A string that is not UTF-8.
    Utf8,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "unexpected end",
            Self::Number => "number out of range",
            Self::WireType => "unknown wire type",
            Self::Unexpected => "field of an unexpected type",
            Self::Utf8 => "string field contains invalid UTF-8",
        })
    }
}

impl std::error::Error for Malformed {}

/// What a field holds, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer, a boolean or an enum's number.
    Varint(u64),
    /// Eight bytes, least significant first.
    Fixed64([u8; 8]),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes, least significant first.
    Fixed32([u8; 4]),
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number, from 1.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The bytes of a string, of bytes or of a message.
    ///
    /// # Errors
    /// [`Malformed::Unexpected`].
    pub fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::Unexpected),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// Another type, or not UTF-8.
    pub fn text(&self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.bytes()?).map_err(|_| Malformed::Utf8)
    }

    /// An integer; a negative one as its two's complement.
    ///
    /// # Errors
    /// [`Malformed::Unexpected`].
    pub fn integer(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(Malformed::Unexpected),
        }
    }

    /// A `uint32` or an enum's number; what is longer is cut, as protobuf says.
    ///
    /// # Errors
    /// [`Malformed::Unexpected`].
    pub fn short(&self) -> Result<u32, Malformed> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "protobuf cuts longer numbers"
        )]
        self.integer().map(|number| number as u32)
    }

    /// A boolean.
    ///
    /// # Errors
    /// [`Malformed::Unexpected`].
    pub fn boolean(&self) -> Result<bool, Malformed> {
        self.integer().map(|number| number != 0)
    }

    /// The fields of a message.
    ///
    /// # Errors
    /// [`Malformed::Unexpected`].
    pub fn message(&self) -> Result<Fields<'a>, Malformed> {
        self.bytes().map(Fields)
    }

    /// Adds the numbers of a repeated field, packed or one by one.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn push_shorts(&self, list: &mut Vec<u32>) -> Result<(), Malformed> {
        let Value::Bytes(mut packed) = self.value else {
            list.push(self.short()?);
            return Ok(());
        };
        while !packed.is_empty() {
            let value = Value::Varint(varint(&mut packed)?);
            list.push(Field { value, ..*self }.short()?);
        }
        Ok(())
    }
}

/// The fields of a message, in the order of their bytes. Ends with the first error.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of a message's bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn read(&mut self) -> Result<Field<'a>, Malformed> {
        let key = varint(&mut self.0)?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed::Number)?;
        if number == 0 {
            return Err(Malformed::Number);
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => Value::Fixed64(self.array()?),
            2 => {
                let length = varint(&mut self.0)?;
                let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(self.array()?),
            _ => return Err(Malformed::WireType),
        };
        Ok(Field { number, value })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Truncated)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed::Truncated)?;
        *bytes = rest;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            return Err(Malformed::Number);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::Number)
}

/// A message that is being written. Fields at their default are left out, as proto3 does, except by
/// [`Message::present`], [`Message::message`] and [`Message::item`], where being there says something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// An integer, a boolean as 0 or 1, or an enum's number.
    pub fn integer(&mut self, number: u32, value: u64) -> &mut Self {
        if value != 0 {
            self.present(number, value);
        }
        self
    }

    /// An integer, also when it is 0.
    pub fn present(&mut self, number: u32, value: u64) -> &mut Self {
        self.key(number, 0);
        self.varint(value);
        self
    }

    /// A signed integer.
    pub fn signed(&mut self, number: u32, value: i64) -> &mut Self {
        self.integer(number, value.cast_unsigned())
    }

    /// A string.
    pub fn text(&mut self, number: u32, text: &str) -> &mut Self {
        self.bytes(number, text.as_bytes())
    }

    /// Bytes.
    pub fn bytes(&mut self, number: u32, bytes: &[u8]) -> &mut Self {
        if !bytes.is_empty() {
            self.item(number, bytes);
        }
        self
    }

    /// An item of a repeated string or bytes field, also when it is empty.
    pub fn item(&mut self, number: u32, bytes: &[u8]) -> &mut Self {
        self.key(number, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A field as it was read.
    pub fn field(&mut self, field: &Field<'_>) -> &mut Self {
        match field.value {
            Value::Varint(value) => self.present(field.number, value),
            Value::Bytes(bytes) => self.item(field.number, bytes),
            Value::Fixed64(bytes) => {
                self.key(field.number, 1);
                self.0.extend_from_slice(&bytes);
                self
            }
            Value::Fixed32(bytes) => {
                self.key(field.number, 5);
                self.0.extend_from_slice(&bytes);
                self
            }
        }
    }

    /// A message, also when it is empty.
    pub fn message(&mut self, number: u32, message: &Self) -> &mut Self {
        self.item(number, &message.0)
    }

    /// Its bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn key(&mut self, number: u32, wire_type: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire_type));
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
        Fields::new(bytes).collect()
    }

    #[test]
    fn the_documentations_examples_are_read() {
        let field = |number, value| Ok(vec![Field { number, value }]);
        assert_eq!(fields(&[0x08, 0x96, 0x01]), field(1, Value::Varint(150)));
        assert_eq!(
            fields(b"\x12\x07testing"),
            field(2, Value::Bytes(b"testing"))
        );
        let packed = Field {
            number: 6,
            value: Value::Bytes(&[0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]),
        };
        let mut numbers = vec![1];
        packed.push_shorts(&mut numbers).unwrap();
        assert_eq!(numbers, [1, 3, 270, 86_942]);
    }

    #[test]
    fn what_is_no_message_is_named_and_ends_the_reading() {
        assert_eq!(fields(&[0x08]), Err(Malformed::Truncated));
        assert_eq!(fields(b"\x12\x07test"), Err(Malformed::Truncated));
        assert_eq!(fields(&[0x0b]), Err(Malformed::WireType));
        assert_eq!(fields(&[0x00, 0x00]), Err(Malformed::Number));
        let mut long = vec![0x08];
        long.extend([0xff; 10]);
        assert_eq!(fields(&long), Err(Malformed::Number));
        let mut reading = Fields::new(&[0x0b, 0x08, 0x01]);
        assert!(reading.next().is_some_and(|field| field.is_err()));
        assert!(reading.next().is_none());
        let text = Field {
            number: 1,
            value: Value::Bytes(&[0xff]),
        };
        assert_eq!(text.text(), Err(Malformed::Utf8));
        assert_eq!(text.integer(), Err(Malformed::Unexpected));
    }

    #[test]
    fn defaults_are_left_out_but_items_and_messages_are_not() {
        let mut message = Message::default();
        message
            .integer(1, 0)
            .text(2, "")
            .message(3, &Message::default())
            .item(4, b"");
        assert_eq!(message.as_bytes(), [0x1a, 0x00, 0x22, 0x00]);
        let mut negative = Message::default();
        negative.signed(1, -1);
        let written = fields(negative.as_bytes()).unwrap();
        assert_eq!(written[0].integer(), Ok(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 1_u32..1 << 29, value in 1_u64.., text in ".+") {
            let mut message = Message::default();
            message.integer(number, value).text(number, &text);
            let written = fields(message.as_bytes()).unwrap();
            prop_assert_eq!(written[0].integer(), Ok(value));
            prop_assert_eq!(written[1].text(), Ok(&*text));
            prop_assert_eq!(written[1].number, number);
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            prop_assert!(Fields::new(&bytes).count() <= bytes.len());
        }
    }
}
