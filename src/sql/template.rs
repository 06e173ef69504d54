//! `${a.b}` in texts, filled in from the row that a rule selected.

use super::error::Fault;
use super::json;
use super::run::VALUE_BYTES;
use super::syntax::Step;
use super::value::{Map, Value};

/// A text with places to fill in.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(Box<str>),
    /// The keys that lead to a value.
    Value(Box<[Step]>),
}

impl Template {
    /// Any text is a template: what is no `${…}` stays as it is.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((key, after)) = after.split_once('}') else {
                break;
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let keys = key.split('.').map(|key| Step::Key(key.into()));
            parts.push(Part::Value(keys.collect()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        let parts = parts.into();
        Self { parts }
    }

    /// Whether it is the empty text, which means the whole row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The text for a row, of at most `max` bytes; an empty template is the whole row as JSON.
    ///
    /// # Errors
    /// [`Fault::TooMuchMemory`] beyond `max`.
    pub fn render(&self, row: &Map<'_>, max: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        if self.parts.is_empty() {
            if row.weight() > max {
                return Err(Fault::TooMuchMemory);
            }
            json::write_map(row, &mut out);
        }
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value(keys) => {
                    let value = lookup(row, keys).unwrap_or_default();
                    if value.weight() > max.saturating_add(VALUE_BYTES) {
                        return Err(Fault::TooMuchMemory);
                    }
                    value.print(&mut out);
                }
            }
            if out.len() > max {
                return Err(Fault::TooMuchMemory);
            }
        }
        (out.len() <= max)
            .then_some(out)
            .ok_or(Fault::TooMuchMemory)
    }

    /// The value of a template that is one `${…}` and nothing else.
    #[must_use]
    pub fn value<'r>(&self, row: &'r Map<'_>) -> Option<Value<'r>> {
        match &*self.parts {
            [Part::Value(keys)] => lookup(row, keys),
            _ => None,
        }
    }
}

/// Goes into maps, and into the JSON of a text that stands at the top, as the payload does.
fn lookup<'r>(row: &'r Map<'_>, keys: &[Step]) -> Option<Value<'r>> {
    let (Step::Key(first), rest) = keys.split_first()? else {
        return None;
    };
    let mut value = row.get(first.as_bytes())?;
    if let (Value::Text(text), false) = (value, rest.is_empty()) {
        let (found, _) = json::find(text.bytes(), rest).ok()?;
        return json::parse(found?).ok();
    }
    for step in rest {
        value = match (step, value) {
            (Step::Key(key), Value::Map(map)) => map.get(key.as_bytes())?,
            _ => return None,
        };
    }
    Some(value.clone())
}
