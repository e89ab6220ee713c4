//! How a line of the log looks.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use log::Level;
use serde::Serialize;

use crate::util::calendar::rfc3339;

/// Longest message; what is behind it is cut. With all that stands around it a line stays below the 4 KiB that a pipe
/// takes as a whole or not at all (pipe(7)), and foreign text is cut where it comes in.
pub(super) const MAX_MESSAGE_BYTES: usize = 2 * 1024;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As simple_logger writes it: `2026-11-25T20:00:00.000Z INFO  [target] message`
    Text,
    /// `<6>INFO  [target] message`: journald knows the time and reads the priority,
    /// <https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html>.
    Journal,
    /// `{"time":"2026-11-25T20:00:00.000Z","level":"INFO","target":"target","message":"message"}`
    Json,
}

/// A line of [`Format::Json`].
#[derive(Serialize)]
struct JsonLine<'a> {
    time: &'a str,
    level: &'a str,
    target: &'a str,
    message: &'a str,
}

impl Format {
    /// What suits the reader of stderr: journald, where the service manager has connected it to that, else people.
    pub fn for_stderr() -> Self {
        let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        match stderr_file() {
            Ok(stderr) if journal == stderr => Format::Journal,
            _ => Format::Text,
        }
    }

    /// A whole line with its end; none where simple_logger writes it.
    pub(super) fn line(self, line: &Line) -> Option<String> {
        let Line {
            time,
            level,
            target,
            message,
        } = line;
        match self {
            Format::Text => None,
            Format::Journal => Some(format!("<{}>{level:<5} [{target}] {message}\n", priority(*level))),
            Format::Json => {
                let json = JsonLine {
                    time: &rfc3339(*time),
                    level: level.as_str(),
                    target,
                    message,
                };
                // Text can always be written as JSON.
                Some(serde_json::to_string(&json).unwrap_or_default() + "\n")
            }
        }
    }
}

/// A line that waits to be written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) target: String,
    /// One line of bounded length.
    pub(super) message: String,
}

impl Line {
    pub(super) fn new(time: SystemTime, level: Level, target: &str, message: &str) -> Self {
        Self {
            time,
            level,
            target: target.to_owned(),
            message: one_line(message),
        }
    }
}

/// Device and inode of stderr, as `JOURNAL_STREAM` has them: systemd.exec(5).
fn stderr_file() -> io::Result<String> {
    let stderr = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata()?;
    Ok(format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Priorities of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The text without what could begin another line or steer a terminal, and no longer than a line may be.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') {
            true => line.extend(char.escape_debug()),
            false => line.push(char),
        }
        if line.len() > MAX_MESSAGE_BYTES {
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn each_format_has_its_own_shape() {
        let time = UNIX_EPOCH + Duration::from_millis(1_250);
        let line = Line::new(time, Level::Info, "infernet_router", "a \"b\"");
        assert_eq!(Format::Text.line(&line), None);
        let journal = Format::Journal.line(&line);
        assert_eq!(journal.as_deref(), Some("<6>INFO  [infernet_router] a \"b\"\n"));
        let json =
            r#"{"time":"1970-01-01T00:00:01.25Z","level":"INFO","target":"infernet_router","message":"a \"b\""}"#;
        assert_eq!(Format::Json.line(&line), Some(format!("{json}\n")));
        let levels = [Level::Error, Level::Warn, Level::Debug, Level::Trace];
        assert_eq!(levels.map(priority), [3, 4, 7, 7]);
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\n\u{1b}[2J\u{2028}é"), "a\\n\\u{1b}[2J\\u{2028}é");
        let most = "x".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(one_line(&most), most);
        assert_eq!(one_line(&(most.clone() + "xyz")), most + "x…");
    }
}
