//! What the readers of foreign JSON share: values of any kind, and reasons fit for the log.

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use std::fmt;

/// Longest reason: what was found at its start, what was expected and where at its end.
const MAX_REASON_CHARS: usize = 300;
/// Characters kept of each end of a longer one.
const REASON_END_CHARS: usize = 140;

/// Any value, where only a text or a whole number is of use. Never fails on a kind, so that one
/// odd field doesn't spoil what stands around it; skips what is nested without recursion.
pub(super) enum Loose {
    Text(String),
    Number(u64),
    Other,
}

impl Loose {
    pub(super) fn text(self) -> Option<String> {
        match self {
            Loose::Text(text) => Some(text),
            Loose::Number(_) | Loose::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loose, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Loose, E> {
        Ok(Loose::Text(text))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Loose, E> {
        Ok(Loose::Number(number))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Loose, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Loose::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loose, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Loose::Other)
    }
}

/// Why a body was not taken. serde escapes the foreign text in its errors, but doesn't cut it.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = match error.classify() {
        Category::Data => error.to_string(),
        Category::Io | Category::Syntax | Category::Eof => format!("not JSON: {error}"),
    };
    let chars = text.chars().count();
    if chars <= MAX_REASON_CHARS {
        return text;
    }
    let start = text.chars().take(REASON_END_CHARS);
    let end = text.chars().skip(chars - REASON_END_CHARS);
    start.chain(['…']).chain(end).collect()
}
