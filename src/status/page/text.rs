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
    match now.saturating_sub(at) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
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
