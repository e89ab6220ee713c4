//! The key-values of a log line: fields of a JSON line, and ` key=value` at the end of the message.

use std::fmt::Write as _;

use log::kv::{Error, Key, Source, Value, VisitSource, VisitValue};
use serde_json::{Map, Value as Json};

use crate::util::text;

/// Longest value in characters: long enough for a URL or a TLS error. Ten such values fit a message.
const MAX_VALUE_CHARS: usize = 200;

/// Collects key-values in both forms.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) json: Map<String, Json>,
    /// `, key=value key=value`, or empty.
    pub(super) text: String,
}

impl Fields {
    pub(super) fn of(source: &dyn Source) -> Self {
        let mut fields = Self::default();
        // This visitor returns no error.
        let _ = source.visit(&mut fields);
        fields
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        value.visit(Field {
            fields: self,
            key: key.as_str(),
        })
    }
}

/// One value on its way to the fields.
struct Field<'a> {
    fields: &'a mut Fields,
    key: &'a str,
}

impl Field<'_> {
    fn add(&mut self, text: &str, json: impl Into<Json>) -> Result<(), Error> {
        let comma = if self.fields.text.is_empty() { "," } else { "" };
        let _ = write!(self.fields.text, "{comma} {}={text}", self.key);
        self.fields.json.insert(self.key.to_owned(), json.into());
        Ok(())
    }
}

impl<'v> VisitValue<'v> for Field<'_> {
    /// Quotes and escapes the value: text from outside arrives here.
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        let value = value.to_string();
        self.add(
            &text::quote(&value, MAX_VALUE_CHARS),
            text::shorten(&value, MAX_VALUE_CHARS),
        )
    }

    /// Omits the key: `None` or no suppressed lines.
    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Leaves a single word bare, as in `signal=SIGTERM`.
    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match (1..=MAX_VALUE_CHARS).contains(&value.len()) && value.bytes().all(is_word) {
            true => self.add(value, value),
            false => self.visit_any(value.into()),
        }
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.add(&value.to_string(), value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.add(&value.to_string(), value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.add(&value.to_string(), value)
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.add(&value.to_string(), value)
    }
}
