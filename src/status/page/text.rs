//! Untrusted text, times and links as HTML.

use askama::filters::Safe;
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
        match entity(char) {
            Some(entity) => html.push_str(entity),
            None => html.extend(escape(char)),
        }
    }
    html
}

/// Returns untrusted text as the value of an attribute. A browser sends it back unchanged.
pub(super) fn attribute(text: &str) -> Safe<String> {
    let html = |char: char| entity(char).map_or_else(|| char.to_string(), str::to_owned);
    Safe(text.chars().map(html).collect())
}

fn entity(char: char) -> Option<&'static str> {
    match char {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    }
}

impl Filter {
    pub(super) fn has_state(&self, state: &NodeState) -> bool {
        self.state.as_ref() == Some(state)
    }

    pub(super) fn with_state(&self, state: &NodeState) -> Safe<String> {
        self.link(|to| to.state = Some(*state))
    }

    pub(super) fn without_state(&self) -> Safe<String> {
        self.link(|to| to.state = None)
    }

    pub(super) fn with_container(&self, id: &str) -> Safe<String> {
        self.link(|to| to.container = Some(id.to_owned()))
    }

    pub(super) fn without_container(&self) -> Safe<String> {
        self.link(|to| to.container = None)
    }

    pub(super) fn without_part(&self) -> Safe<String> {
        self.link(|to| to.part = None)
    }

    pub(super) fn at_offset(&self, offset: usize) -> Safe<String> {
        self.link(|to| to.offset = offset)
    }

    pub(super) fn with_pause_toggled(&self) -> Safe<String> {
        self.link(|to| (to.offset, to.is_paused) = (self.offset, !self.is_paused))
    }

    /// Returns a link to the first page of a changed filter, as the value of an attribute.
    fn link(&self, change: impl FnOnce(&mut Filter)) -> Safe<String> {
        let mut to = self.clone();
        to.offset = 0;
        change(&mut to);
        let encoded = |text: String| utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
        let number = |number: usize, default: usize| (number != default).then(|| number.to_string());
        let parameters = [
            ("n", number(to.n, DEFAULT_N as usize)),
            ("offset", number(to.offset, 0)),
            ("state", to.state.map(|state| state.name().to_owned())),
            ("q", to.part.map(encoded)),
            ("container", to.container.map(encoded)),
            ("refresh", to.is_paused.then(|| "off".to_owned())),
        ];
        let parameters = parameters.into_iter();
        let parameters = parameters.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
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
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\\"
        );
        assert_eq!(shown("a\u{202e}b\n\u{301}ä", 99), "a\\u{202e}b\\n\\u{301}ä");
        assert_eq!(shown("aaaaa", 5), "aaaaa");
        assert_eq!(shown("aaaaaa", 5), "aaaaa…");
        assert_eq!(shown("<<<", 5), "&lt;&lt;…");
    }

    #[test]
    fn attribute_value_survives_a_round_trip() {
        assert_eq!(attribute("\"><b>'&\u{202e}").0, "&quot;&gt;&lt;b&gt;&#39;&amp;\u{202e}");
    }

    #[test]
    fn link_has_only_values_other_than_defaults() {
        let mut filter = Filter {
            n: DEFAULT_N as usize,
            part: Some("a&b".to_owned()),
            ..Filter::default()
        };
        assert_eq!(filter.link(|_| {}).0, "?q=a%26b");
        filter.is_paused = true;
        assert_eq!(
            filter.link(|to| to.offset = 7).0,
            "?offset=7&amp;q=a%26b&amp;refresh=off"
        );
    }
}
