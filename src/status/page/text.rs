//! Untrusted text, times, numbers and links as HTML.

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::status::report::Moment;
use crate::status::{DEFAULT_N, Filter};
use crate::util::text::escape;

/// Returns untrusted text as HTML of at most about `max` bytes. Characters that are invisible or reorder other text are
/// escaped as in Rust; characters with a meaning in HTML become entities.
pub(super) fn shown(text: &str, max: usize) -> String {
    let mut html = String::with_capacity(text.len().min(max));
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
pub(super) fn attribute(text: &str) -> String {
    let html = text
        .chars()
        .map(|char| entity(char).map_or_else(|| char.to_string(), str::to_owned));
    html.collect()
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

/// Returns the URL of `/info` of the node at this address.
pub(super) fn link_target(address: &str) -> String {
    match address.contains("://") {
        true => format!("{address}/info"),
        false => format!("http://{address}/info"),
    }
}

/// A link to a page with this filter, as the value of an attribute.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) filter: Filter,
    pub(super) is_paused: bool,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = &self.filter;
        let encoded = |text: &String| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let number = |number: usize, default: usize| (number != default).then(|| number.to_string());
        let parameters = [
            ("n", number(filter.n, DEFAULT_N as usize)),
            ("offset", number(filter.offset, 0)),
            ("state", filter.state.map(|state| state.name().to_owned())),
            ("q", filter.part.as_ref().map(encoded)),
            ("container", filter.container.as_ref().map(encoded)),
            ("refresh", self.is_paused.then(|| "off".to_owned())),
        ];
        let parameters = parameters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        write!(f, "?{}", parameters.collect::<Vec<_>>().join("&amp;"))
    }
}

/// Returns the age of a moment, with the time itself as its title.
pub(super) fn time(at: &Moment) -> String {
    let (text, age) = (&at.text, span(at.age.as_secs()));
    format!("<time datetime=\"{text}\" title=\"{text}\">{age}</time>")
}

/// Returns seconds in a unit that is easy to read.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Returns a number with separators: 10,000.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Returns a number and its noun.
pub(super) fn plural(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {noun}{s}", grouped(number))
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
        assert_eq!(attribute("\"><b>'&\u{202e}"), "&quot;&gt;&lt;b&gt;&#39;&amp;\u{202e}");
    }

    #[test]
    fn numbers_and_durations_are_readable() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [119, 120, 7_200, 172_800].map(span),
            ["119 s", "2 min", "2 h", "2 days"]
        );
        assert_eq!([plural(1, "node"), plural(0, "node")], ["1 node", "0 nodes"]);
    }

    #[test]
    fn link_has_only_values_other_than_defaults() {
        let filter = Filter {
            n: DEFAULT_N as usize,
            part: Some("a&b".to_owned()),
            ..Filter::default()
        };
        let mut link = Link {
            filter,
            is_paused: false,
        };
        assert_eq!(link.to_string(), "?q=a%26b");
        link.is_paused = true;
        link.filter.offset = 7;
        assert_eq!(link.to_string(), "?offset=7&amp;q=a%26b&amp;refresh=off");
    }
}
