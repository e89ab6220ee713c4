//! Untrusted text, times and links as HTML.

use askama::filters::{Escaper, Html, Safe};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::registry::NodeState;
use crate::status::numbers::span;
use crate::status::report::Moment;
use crate::status::{DEFAULT_N, Filter};
use crate::util::text::escape;

/// Maximum length of an id, an image, a setting or an invalid line in bytes of HTML.
const SHORT: usize = 120;
/// Maximum length of a reason in bytes of HTML.
const LONG: usize = 400;

/// Returns an untrusted id or value as HTML.
pub(super) fn short(text: impl AsRef<str>) -> Safe<String> {
    Safe(shown(text.as_ref(), SHORT))
}

/// Returns an untrusted reason or address as HTML.
pub(super) fn long(text: impl AsRef<str>) -> Safe<String> {
    Safe(shown(text.as_ref(), LONG))
}

/// Returns untrusted text as HTML of at most about `max` bytes. Characters that are invisible or reorder other text are
/// escaped as in Rust; characters with a meaning in HTML become entities.
fn shown(text: &str, max: usize) -> String {
    let mut html = String::new();
    for char in text.chars() {
        if html.len() >= max {
            html.push('…');
            break;
        }
        for char in escape(char) {
            // Writing to a String cannot fail.
            let _ = Html.write_escaped_char(&mut html, char);
        }
    }
    html
}

impl Filter {
    pub(super) fn has_state(&self, state: &NodeState) -> bool {
        self.state.as_ref() == Some(state)
    }

    /// Returns a link with another value of this parameter, as the value of an attribute. The link leads to the first
    /// page, unless the parameter is `offset` or `refresh`. Empty values are omitted.
    pub(super) fn link(&self, name: &str, value: impl ToString) -> Safe<String> {
        let n = match self.n == DEFAULT_N as usize {
            true => String::new(),
            false => self.n.to_string(),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let state = self.state.map_or("", NodeState::name);
        let refresh = if self.is_paused { "off" } else { "" };
        let offset = if name == "refresh" { self.offset } else { 0 };
        let mut parameters = [
            ("n", n),
            ("offset", offset.to_string()),
            ("state", state.to_owned()),
            ("q", text(&self.part)),
            ("container", text(&self.container)),
            ("refresh", refresh.to_owned()),
        ];
        if let Some((_, old)) = parameters.iter_mut().find(|(known, _)| *known == name) {
            *old = value.to_string();
        }
        let is_default = |(name, value): &(&str, String)| value.is_empty() || *name == "offset" && value == "0";
        let parameters = parameters.iter().filter(|parameter| !is_default(parameter));
        let parameters =
            parameters.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        Safe(format!("?{}", parameters.collect::<Vec<_>>().join("&amp;")))
    }
}

/// Returns the age of a moment, with the time itself as its title.
pub(super) fn time(at: &Moment) -> Safe<String> {
    let (text, age) = (&at.text, span(at.age.as_secs()));
    Safe(format!("<time datetime=\"{text}\" title=\"{text}\">{age}</time>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_invisible_characters_are_escaped_and_truncated() {
        assert_eq!(
            shown("<a href='x'>&\"\\", 99),
            "&#60;a href=&#39;x&#39;&#62;&#38;&#34;\\"
        );
        assert_eq!(shown("a\u{202e}b\n\u{301}ä", 99), "a\\u{202e}b\\n\\u{301}ä");
        assert_eq!(shown("aaaaa", 5), "aaaaa");
        assert_eq!(shown("aaaaaa", 5), "aaaaa…");
        assert_eq!(shown("<<<", 5), "&#60;…");
    }

    #[test]
    fn link_has_only_values_other_than_defaults() {
        let mut filter = Filter {
            n: DEFAULT_N as usize,
            part: Some("a&b".to_owned()),
            ..Filter::default()
        };
        assert_eq!(filter.link("offset", "").0, "?q=a%26b");
        assert_eq!(filter.link("offset", 0).0, "?q=a%26b");
        filter.is_paused = true;
        assert_eq!(filter.link("offset", 7).0, "?offset=7&amp;q=a%26b&amp;refresh=off");
    }
}
