//! JSON written straight into one string: no tree between the state and its text.
//!
//! A list of a thousand connections would cost a megabyte as `serde_json::Value`; here it costs
//! its own text. Strings are escaped as Go's encoder does (`<`, `>`, `&` and the two line
//! separators too), which is what clients of mihomo see. The caller keeps brackets in pairs.

use std::fmt::{Display, Write as _};

/// A JSON text in the making.
#[derive(Default)]
pub struct Json(String);

impl Json {
    /// An empty text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty text with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Opens an object.
    pub fn open_object(&mut self) -> &mut Self {
        self.separate();
        self.0.push('{');
        self
    }

    /// Closes an object.
    pub fn close_object(&mut self) -> &mut Self {
        self.0.push('}');
        self
    }

    /// Opens an array.
    pub fn open_array(&mut self) -> &mut Self {
        self.separate();
        self.0.push('[');
        self
    }

    /// Closes an array.
    pub fn close_array(&mut self) -> &mut Self {
        self.0.push(']');
        self
    }

    /// Names the member whose value comes next.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.string(key);
        self.0.push(':');
        self
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.separate();
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(character));
                }
                other => self.0.push(other),
            }
        }
        self.0.push('"');
        self
    }

    /// What prints as digits, `true`, `false` or `null`.
    pub fn plain(&mut self, value: impl Display) -> &mut Self {
        self.separate();
        let _ = write!(self.0, "{value}");
        self
    }

    /// What prints as text that needs no escapes (addresses, numbers as strings, times).
    pub fn quoted(&mut self, value: impl Display) -> &mut Self {
        self.separate();
        let _ = write!(self.0, "\"{value}\"");
        self
    }

    /// An array of strings.
    pub fn strings(&mut self, texts: impl IntoIterator<Item = impl AsRef<str>>) -> &mut Self {
        self.open_array();
        for text in texts {
            self.string(text.as_ref());
        }
        self.close_array()
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The finished text with the line end that mihomo's encoder leaves.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push('\n');
        self.0.into_bytes()
    }

    /// A comma, unless the text stands at the start of an object, an array or a member's value. The
    /// last byte tells: strings end in a quote, so that it never is a bracket from within one.
    fn separate(&mut self) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(',');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_members_only() {
        let mut json = Json::new();
        json.open_object().key("a").open_array();
        json.plain(1).plain(true).open_object().close_object();
        json.close_array()
            .key("b")
            .string("{")
            .key("c")
            .strings(["[", "x"]);
        json.key("d").quoted(80).close_object();
        assert_eq!(
            String::from_utf8(json.finish()).unwrap(),
            "{\"a\":[1,true,{}],\"b\":\"{\",\"c\":[\"[\",\"x\"],\"d\":\"80\"}\n"
        );
    }

    #[test]
    fn strings_are_escaped_as_mihomo_does() {
        let mut json = Json::new();
        json.string("<a href=\"x\">&\\\u{1}\n\u{2028}\u{1f1ed}\u{1f1f0} \u{7f}");
        assert_eq!(
            String::from_utf8(json.finish()).unwrap(),
            "\"\\u003ca href=\\\"x\\\"\\u003e\\u0026\\\\\\u0001\\n\\u2028\u{1f1ed}\u{1f1f0} \u{7f}\"\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_string_reads_back(text: String) {
            let mut json = Json::new();
            json.string(&text);
            let value: serde_json::Value = serde_json::from_slice(&json.finish()).unwrap();
            proptest::prop_assert_eq!(value.as_str(), Some(&*text));
        }
    }
}
