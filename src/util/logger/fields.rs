//! The key-values of a log line: fields of a JSON line, and ` key=value` at the end of the message.

use std::fmt::Write as _;

use log::kv::{Error, Key, Source, Value, VisitSource, VisitValue};
use serde_json::{Map, Value as Json};

use crate::util::text;

/// Longest value in characters: long enough for a URL or a TLS error. Ten such values fit a message.
const MAX_VALUE_CHARS: usize = 200;
/// Keys of the JSON line itself.
const RESERVED: [&str; 4] = ["time", "level", "target", "message"];

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

    fn add(&mut self, key: &str, text: &str, json: Json) {
        debug_assert!(!RESERVED.contains(&key), "{key} is a key of the line itself");
        let comma = if self.text.is_empty() { "," } else { "" };
        let _ = write!(self.text, "{comma} {key}={text}");
        if !RESERVED.contains(&key) {
            self.json.insert(key.to_owned(), json);
        }
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let fields = self;
        value.visit(Field {
            fields,
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
    fn add_bare(self_: &mut Self, value: impl ToString + Into<Json>) {
        self_.fields.add(self_.key, &value.to_string(), value.into());
    }
}

impl<'v> VisitValue<'v> for Field<'_> {
    /// Quotes and escapes the value: text from outside arrives here.
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        let value = value.to_string();
        let quoted = text::quote(&value, MAX_VALUE_CHARS);
        let json = text::shorten(&value, MAX_VALUE_CHARS);
        self.fields.add(self.key, &quoted, json.into());
        Ok(())
    }

    /// Omits the key: `None` or no suppressed lines.
    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Leaves a single word bare, as in `signal=SIGTERM`.
    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match !value.is_empty() && value.len() <= MAX_VALUE_CHARS && value.bytes().all(is_word) {
            true => self.fields.add(self.key, value, value.into()),
            false => return self.visit_any(value.into()),
        }
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        Self::add_bare(self, value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        Self::add_bare(self, value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        Self::add_bare(self, value);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        Self::add_bare(self, value);
        Ok(())
    }
}
