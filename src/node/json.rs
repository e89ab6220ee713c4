//! Shared readers of untrusted JSON. Each level is read as raw values of the next, without recursion: an odd field
//! affects no other field, and a reason names the field that it is about.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::util::text::shorten;

/// UTF-8's, which some editors and servers write.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Characters shown of an unexpected value.
pub(super) const MAX_FOUND_CHARS: usize = 40;

/// Why a body or a line is rejected: one sentence, in which untrusted text is escaped and truncated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ParseError(pub(super) String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ParseError {}

/// Values are read raw first, so no untrusted text is in serde's message.
impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        ParseError(match error.classify() {
            Category::Data => error.to_string(),
            Category::Io | Category::Syntax | Category::Eof => format!("not JSON: {error}"),
        })
    }
}

/// The value that a body consists of. A byte order mark before it is skipped.
///
/// # Errors
/// The body is not JSON.
pub(super) fn parse(body: &[u8]) -> Result<&RawValue, ParseError> {
    Ok(serde_json::from_slice(
        body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body),
    )?)
}

/// The JSON of a value that begins as an object (`{`) or a list (`[`).
///
/// # Errors
/// It is another value than the expected one.
pub(super) fn expect<'a>(raw: &'a RawValue, begin: char, expected: &str) -> Result<&'a str, ParseError> {
    match raw.get().starts_with(begin) {
        true => Ok(raw.get()),
        false => Err(unexpected(expected, raw)),
    }
}

/// The text of a value. `None` for a value of another kind, or one with half a character (`"\ud800"`).
pub(super) fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The expected value and the found one.
pub(super) fn unexpected(expected: &str, found: &RawValue) -> ParseError {
    ParseError(format!(
        "expected {expected}, found {}",
        shorten(found.get(), MAX_FOUND_CHARS)
    ))
}

/// The name of a field. A name with half a character is empty: no field that counts has it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let plain = raw.get().trim_matches('"');
        Ok(Self(match plain.contains('\\') {
            true => text(raw).unwrap_or_default().into(),
            false => plain.into(),
        }))
    }
}

/// The first two values of each field of an object with these names. All other fields are skipped, nested as deep as
/// they like.
///
/// # Errors
/// The value is not an object.
pub(super) fn fields<'a, const N: usize>(
    object: &'a RawValue,
    expected: &str,
    names: [&str; N],
) -> Result<[Vec<&'a RawValue>; N], ParseError> {
    let mut fields = [const { Vec::new() }; N];
    each(expect(object, '{', expected)?, |name, value| {
        let at = names.iter().position(|known| *known == name);
        if let Some(values) = at.map(|at| &mut fields[at])
            && values.len() < 2
        {
            values.push(value);
        }
        Ok(())
    })?;
    Ok(fields)
}

/// The only value of a field.
///
/// # Errors
/// The field is missing, or occurs twice: each reader would make something else of it.
pub(super) fn once<'a>(values: &[&'a RawValue], name: &str) -> Result<&'a RawValue, ParseError> {
    match values {
        [] => Err(ParseError(format!("missing field `{name}`"))),
        [value] => Ok(value),
        _ => Err(ParseError(format!("duplicate field `{name}`"))),
    }
}

/// Shows the fields of an object, or the elements of a list without a name, to `visit` one by one: a list of 100,000
/// needs little memory.
///
/// # Errors
/// That of `visit`.
pub(super) fn each<'a>(
    json: &'a str,
    visit: impl FnMut(&str, &'a RawValue) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    Ok(serde_json::Deserializer::from_str(json).deserialize_any(Each(visit))?)
}

struct Each<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue) -> Result<(), ParseError>> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            self.0(&name, value).map_err(A::Error::custom)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element()? {
            self.0("", value).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
