//! How a line of the log looks.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use log::Level;
use serde::Serialize;

/// Longest message; what is behind it is cut. Ours stay below it: foreign text in them is cut where it comes in.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-25T20:00:00.000Z INFO  [target] message`
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
    /// What suits whoever reads stderr: journald, where the service manager has connected it to that, else people.
    pub fn for_stderr() -> Self {
        let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        match stderr_file() {
            Ok(stderr) if journal == stderr => Format::Journal,
            _ => Format::Text,
        }
    }

    /// A whole line with its end.
    pub(super) fn line(self, time: SystemTime, level: Level, target: &str, message: &str) -> String {
        let message = one_line(message);
        match self {
            Format::Text => format!("{} {level:<5} [{target}] {message}\n", timestamp(time)),
            Format::Journal => format!("<{}>{level:<5} [{target}] {message}\n", priority(level)),
            Format::Json => {
                let (time, level) = (timestamp(time), level.as_str());
                let line = JsonLine {
                    time: &time,
                    level,
                    target,
                    message: &message,
                };
                // Text can always be written as JSON.
                serde_json::to_string(&line).unwrap_or_default() + "\n"
            }
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

/// RFC 3339 in UTC with milliseconds; a clock that is wrong by millennia is shown as it is.
fn timestamp(time: SystemTime) -> String {
    let since = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    };
    let (days, millis) = (since.div_euclid(86_400_000), since.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = String::with_capacity(24);
    // Writing to a String can't fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z"
    );
    text
}

/// Year, month and day of so many days after 1970-01-01: `civil_from_days` of
/// <https://howardhinnant.github.io/date_algorithms.html>, whose years begin in March, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_774_916_400, "2026-03-31T00:20:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
            (253_402_300_800, "10000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(at(seconds)), text);
        }
        assert_eq!(
            timestamp(UNIX_EPOCH - Duration::from_millis(1)),
            "1969-12-31T23:59:59.999Z"
        );
        assert_eq!(
            timestamp(UNIX_EPOCH - Duration::from_secs(62_135_596_800)),
            "0001-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn each_format_has_its_own_shape() {
        let line = |format: Format| format.line(at(1), Level::Info, "infernet_router", "a \"b\"");
        assert_eq!(
            line(Format::Text),
            "1970-01-01T00:00:01.000Z INFO  [infernet_router] a \"b\"\n"
        );
        assert_eq!(line(Format::Journal), "<6>INFO  [infernet_router] a \"b\"\n");
        let json =
            r#"{"time":"1970-01-01T00:00:01.000Z","level":"INFO","target":"infernet_router","message":"a \"b\""}"#;
        assert_eq!(line(Format::Json), format!("{json}\n"));
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
