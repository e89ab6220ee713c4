//! Foreign text, times and numbers as HTML.

use crate::status::shown_time;

/// Foreign text as HTML of at most about `most` bytes: what is invisible or moves other text is written as Rust escapes
/// it, what means something in HTML as an entity.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut html = String::with_capacity(text.len().min(most));
    for char in text.chars() {
        if html.len() >= most {
            html.push('…');
            break;
        }
        match entity(char) {
            Some(entity) => html.push_str(entity),
            None if char == '\\' => html.push(char),
            None => html.extend(char.escape_debug()),
        }
    }
    html
}

/// Foreign text as the value of an attribute, unchanged when a browser sends it back.
pub(super) fn attribute(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for char in text.chars() {
        match entity(char) {
            Some(entity) => html.push_str(entity),
            None => html.push(char),
        }
    }
    html
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

/// A time, and how long ago that is.
pub(super) fn when(now: u64, at: u64) -> String {
    format!("{} ago", lasting(now, at))
}

/// How long something lasts, and since when.
pub(super) fn lasting(now: u64, since: u64) -> String {
    format!(
        "<time datetime=\"{0}\" title=\"{0}\">{1}</time>",
        shown_time(since),
        age(now, since)
    )
}

pub(super) fn age(now: u64, at: u64) -> String {
    span(now.saturating_sub(at))
}

/// Some seconds, in the unit that people would take.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number as people read it: 10,000.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_html_or_can_not_be_seen_is_written_out_and_cut() {
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
    fn a_value_comes_back_as_it_was() {
        assert_eq!(attribute("\"><b>'&\u{202e}"), "&quot;&gt;&lt;b&gt;&#39;&amp;\u{202e}");
    }

    #[test]
    fn numbers_and_times_are_as_people_read_them() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [119, 120, 7_200, 172_800].map(span),
            ["119 s", "2 min", "2 h", "2 days"]
        );
        assert_eq!(age(5, 9), "0 s", "a clock that was set back");
        assert_eq!(
            when(90, 30),
            "<time datetime=\"1970-01-01T00:00:30Z\" title=\"1970-01-01T00:00:30Z\">60 s</time> ago"
        );
    }
}
