//! What the readers of foreign JSON share: kinds of raw values, and reasons fit for the log.

use serde_json::error::Category;
use serde_json::value::RawValue;

/// Characters shown of a value that is not what was expected.
pub(super) const MAX_FOUND_CHARS: usize = 40;

/// Whether a value is an object. What serde derives takes a list for one, field by field.
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

pub(super) fn is_list(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

/// A value that is a text. None where it is something else, or names half a character (`"\ud800"`).
pub(super) fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Why a body was not taken. Values are taken raw first, so no foreign text stands in what serde says.
pub(super) fn reason(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => error.to_string(),
        Category::Io | Category::Syntax | Category::Eof => format!("not JSON: {error}"),
    }
}

/// What was expected and what was found instead, the latter escaped and cut.
pub(super) fn unexpected(wanted: &str, found: &RawValue) -> String {
    let (mut chars, mut shown) = (found.get().chars(), String::new());
    shown.extend(chars.by_ref().take(MAX_FOUND_CHARS).flat_map(escape_control));
    if chars.next().is_some() {
        shown.push_str("...");
    }
    format!("expected {wanted}, found {shown}")
}

/// Quotes belong to a value's JSON and stay as they are.
fn escape_control(c: char) -> impl Iterator<Item = char> {
    let is_plain = c == '"' || c == '\\' || c == '\'';
    let escaped = (!is_plain).then(|| c.escape_debug());
    is_plain.then_some(c).into_iter().chain(escaped.into_iter().flatten())
}
