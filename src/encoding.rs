//! Bytes as text and back: Base64 and hexadecimal digits (RFC 4648).
//!
//! Ours, although there are crates: the one that also does every other base costs 50 KB on mipsel.

/// The text is not in this encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEncoded;

/// A form of Base64.
#[derive(Clone, Copy, Debug)]
pub struct Base64 {
    last: [u8; 2],
    padded: bool,
    /// Bits behind the last byte have to be zero.
    canonical: bool,
}

/// With `=` at the end (section 4).
pub const BASE64: Base64 = Base64 {
    last: *b"+/",
    padded: true,
    canonical: true,
};

/// Without `=` (section 4).
pub const BASE64_NOPAD: Base64 = Base64 {
    padded: false,
    ..BASE64
};

/// [`BASE64_NOPAD`] of writers that leave bits behind the last byte.
pub const BASE64_NOPAD_TOLERANT: Base64 = Base64 {
    canonical: false,
    ..BASE64_NOPAD
};

/// Safe in URLs, without `=` (section 5).
pub const BASE64URL_NOPAD: Base64 = Base64 {
    last: *b"-_",
    ..BASE64_NOPAD
};

impl Base64 {
    fn digit(self, value: u8) -> u8 {
        match value & 63 {
            value @ 0..26 => b'A' + value,
            value @ 26..52 => b'a' + value - 26,
            value @ 52..62 => b'0' + value - 52,
            62 => self.last[0],
            _ => self.last[1],
        }
    }

    fn value(self, digit: u8) -> Option<u8> {
        match digit {
            b'A'..=b'Z' => Some(digit - b'A'),
            b'a'..=b'z' => Some(digit - b'a' + 26),
            b'0'..=b'9' => Some(digit - b'0' + 52),
            _ if digit == self.last[0] => Some(62),
            _ if digit == self.last[1] => Some(63),
            _ => None,
        }
    }

    /// The text.
    #[must_use]
    pub fn encode(self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for group in bytes.chunks(3) {
            let mut four = [0; 4];
            let given = four.iter_mut().skip(1).zip(group);
            given.for_each(|(to, from)| *to = *from);
            let bits = u32::from_be_bytes(four);
            for (n, shift) in [18, 12, 6, 0].into_iter().enumerate() {
                if n <= group.len() {
                    text.push(char::from(self.digit((bits >> shift & 63) as u8)));
                } else if self.padded {
                    text.push('=');
                }
            }
        }
        text
    }

    /// The bytes.
    ///
    /// # Errors
    /// A character of no digit, a length that no bytes have, missing or surplus `=`, bits left over.
    pub fn decode(self, text: &[u8]) -> Result<Vec<u8>, NotEncoded> {
        let mut digits = text;
        if self.padded {
            if !text.len().is_multiple_of(4) {
                return Err(NotEncoded);
            }
            let one = text.strip_suffix(b"=").unwrap_or(text);
            digits = one.strip_suffix(b"=").unwrap_or(one);
        }
        let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
        for group in digits.chunks(4) {
            let mut bits = 0_u32;
            for digit in group {
                bits = bits << 6 | u32::from(self.value(*digit).ok_or(NotEncoded)?);
            }
            let used = match group.len() {
                4 => 3,
                3 => 2,
                2 => 1,
                _ => return Err(NotEncoded),
            };
            let bits = (bits << (6 * (4 - group.len()))).to_be_bytes();
            let (_, three) = bits.split_at(1);
            let (used, rest) = three.split_at(used);
            if self.canonical && rest.iter().any(|byte| *byte != 0) {
                return Err(NotEncoded);
            }
            bytes.extend_from_slice(used);
        }
        Ok(bytes)
    }
}

/// Hexadecimal digits (section 8); both cases are read.
#[derive(Clone, Copy, Debug)]
pub struct Hex {
    digits: &'static [u8; 16],
}

/// Written in lower case.
pub const HEX: Hex = Hex {
    digits: b"0123456789abcdef",
};

/// Written in upper case.
pub const HEX_UPPER: Hex = Hex {
    digits: b"0123456789ABCDEF",
};

impl Hex {
    /// The two digits of each byte.
    fn pairs(self, bytes: &[u8]) -> impl Iterator<Item = u8> {
        bytes.iter().flat_map(move |byte| {
            let digit = |value: u8| self.digits.get(usize::from(value)).copied().unwrap_or(b'0');
            [digit(byte >> 4), digit(byte & 15)]
        })
    }

    /// The text.
    #[must_use]
    pub fn encode(self, bytes: &[u8]) -> String {
        self.pairs(bytes).map(char::from).collect()
    }

    /// Writes the digits that `room` holds.
    pub fn encode_into(self, bytes: &[u8], room: &mut [u8]) {
        let places = room.iter_mut().zip(self.pairs(bytes));
        places.for_each(|(place, digit)| *place = digit);
    }

    /// The bytes.
    ///
    /// # Errors
    /// A character of no digit, or an odd number of them.
    pub fn decode(self, text: &[u8]) -> Result<Vec<u8>, NotEncoded> {
        let value = |digit: u8| char::from(digit).to_digit(16);
        text.chunks(2)
            .map(|pair| match pair {
                [high, low] => {
                    let (high, low) = (value(*high)?, value(*low)?);
                    u8::try_from(high << 4 | low).ok()
                }
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or(NotEncoded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The vectors of RFC 4648 section 10.
    #[test]
    fn the_vectors_of_the_rfc() {
        for (plain, base64, hex) in [
            ("", "", ""),
            ("f", "Zg==", "66"),
            ("fo", "Zm8=", "666f"),
            ("foo", "Zm9v", "666f6f"),
            ("foob", "Zm9vYg==", "666f6f62"),
            ("fooba", "Zm9vYmE=", "666f6f6261"),
            ("foobar", "Zm9vYmFy", "666f6f626172"),
        ] {
            assert_eq!(BASE64.encode(plain.as_bytes()), base64);
            assert_eq!(BASE64.decode(base64.as_bytes()).unwrap(), plain.as_bytes());
            assert_eq!(
                BASE64_NOPAD.encode(plain.as_bytes()),
                base64.trim_end_matches('=')
            );
            assert_eq!(HEX.encode(plain.as_bytes()), hex);
            assert_eq!(
                HEX.decode(hex.to_uppercase().as_bytes()).unwrap(),
                plain.as_bytes()
            );
        }
    }

    #[test]
    fn what_is_not_the_one_text_of_its_bytes_is_refused() {
        for bad in [
            "Zg", "Zg=", "Zg===", "Zh==", "Zg=a", "====", "Z===", "Zm9v\n", "Zm9-", "=m9v",
        ] {
            assert_eq!(BASE64.decode(bad.as_bytes()), Err(NotEncoded), "{bad}");
        }
        assert_eq!(BASE64_NOPAD.decode(b"Zg=="), Err(NotEncoded));
        assert_eq!(BASE64_NOPAD.decode(b"Zh"), Err(NotEncoded));
        assert_eq!(BASE64_NOPAD_TOLERANT.decode(b"Zh").unwrap(), b"f");
        assert_eq!(BASE64URL_NOPAD.decode(b"-_8").unwrap(), b"\xfb\xff");
        assert_eq!(BASE64URL_NOPAD.decode(b"+/8"), Err(NotEncoded));
        for bad in ["0", "0g", "+1", " 1"] {
            assert_eq!(HEX.decode(bad.as_bytes()), Err(NotEncoded), "{bad}");
        }
    }

    #[test]
    fn digits_are_written_as_far_as_there_is_room() {
        let mut room = *b"....";
        HEX_UPPER.encode_into(b"\xab\xcd\xef", &mut room);
        assert_eq!(&room, b"ABCD");
    }

    proptest! {
        #[test]
        fn every_form_reads_what_it_wrote(bytes: Vec<u8>) {
            for form in [BASE64, BASE64_NOPAD, BASE64URL_NOPAD] {
                prop_assert_eq!(form.decode(form.encode(&bytes).as_bytes()).unwrap(), &*bytes);
            }
            prop_assert_eq!(HEX_UPPER.decode(HEX_UPPER.encode(&bytes).as_bytes()).unwrap(), bytes);
        }

        #[test]
        fn what_is_read_is_written_as_it_was(text: Vec<u8>) {
            if let Ok(bytes) = BASE64.decode(&text) {
                prop_assert_eq!(BASE64.encode(&bytes).into_bytes(), text);
            }
        }
    }
}
