//! Makes untrusted text safe to show: escapes, truncates and quotes text, and masks passwords. Finds the word that a
//! typo was meant to be.

use std::borrow::Cow;

/// Most letters that may be wrong in a typo.
const MAX_TYPO_DISTANCE: usize = 2;
/// Marks the end of a truncated text.
const ELLIPSIS: char = '…';

/// Writes control characters and invisible characters as Rust escapes. Quotes and backslashes remain as they are.
pub(crate) fn escape(char: char) -> impl Iterator<Item = char> {
    let has_backslash = matches!(char, '"' | '\'' | '\\');
    char.escape_debug().skip(has_backslash.into())
}

/// Escapes at most `max_chars` characters of the text.
pub(crate) fn shorten(text: &str, max_chars: usize) -> String {
    let (start, ellipsis) = truncate(text, max_chars);
    start.chars().flat_map(escape).chain(ellipsis).collect()
}

/// Quotes at most `max_chars` characters of the text. Inner quotes and backslashes are escaped too.
pub(crate) fn quote(text: &str, max_chars: usize) -> String {
    let (start, ellipsis) = truncate(text, max_chars);
    format!("{start:?}").chars().chain(ellipsis).collect()
}

/// Replaces everything before the last `@` by `***`, except a scheme. A password may contain any character, also `@`.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    let Some(at) = text.rfind('@') else {
        return Cow::Borrowed(text);
    };
    let first_at = text.find('@').unwrap_or(at);
    let begin = text[..first_at].find("://").map_or(0, |scheme| scheme + "://".len());
    match begin == at {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("{}***{}", &text[..begin], &text[at..])),
    }
}

/// The candidate that the word is a typo of: up to two letters are added, missing, replaced or swapped, and at most a
/// third of the candidate, because a short word is close to many words.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let candidates = candidates.into_iter();
    let (distance, closest) = candidates.map(|to| (strsim::osa_distance(word, to), to)).min()?;
    (distance <= MAX_TYPO_DISTANCE.min(closest.len() / 3)).then_some(closest)
}

/// The first `max_chars` characters, and an ellipsis if the text is longer.
fn truncate(text: &str, max_chars: usize) -> (&str, Option<char>) {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => (&text[..end], Some(ELLIPSIS)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        let text = "a\"'\\\n\u{1b}\u{202e}\u{301}é";
        assert_eq!(shorten(text, 99), "a\"'\\\\n\\u{1b}\\u{202e}\\u{301}é");
        assert_eq!(quote("a\"'\\\n\u{202e}é", 99), r#""a\"'\\\n\u{202e}é""#);
    }

    #[test]
    fn text_above_the_limit_is_truncated() {
        assert_eq!(shorten("éé", 2), "éé");
        assert_eq!(shorten("ééé", 2), "éé…");
        assert_eq!(quote("ab", 2), "\"ab\"");
        assert_eq!(quote("abc", 2), "\"ab\"…");
    }

    #[test]
    fn typo_of_two_letters_finds_its_word() {
        for (typo, meant) in [
            ("drian", Some("drain")),
            ("drain", Some("drain")),
            ("bakupp", Some("backup")),
            ("bkp", None),
            ("grin", None),
        ] {
            assert_eq!(closest(typo, ["drain", "backup", "as"]), meant, "{typo}");
        }
        assert_eq!(closest("a", []), None);
    }

    #[test]
    fn passwords_are_masked() {
        for (text, redacted) in [
            ("http://user:pw@host/a", "http://***@host/a"),
            ("user:p@w/:://@host", "***@host"),
            ("user:pw@http://host", "***@http://host"),
            ("http://a:b@c,https://d:e@f", "http://***@f"),
            ("http://@host", "http://@host"),
            ("http://host", "http://host"),
            ("", ""),
        ] {
            assert_eq!(redact(text), redacted);
        }
    }
}
