//! How a line of the log looks.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::util::calendar::rfc3339;
use crate::util::text::{quote, shorten};

/// Longest message. A text line then remains below the 4 KiB that a pipe accepts as a whole or not at all (pipe(7)).
pub(super) const MAX_MESSAGE_CHARS: usize = 1_000;
/// Longest value: long enough for a URL or a TLS error.
const MAX_VALUE_CHARS: usize = 200;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// simple_logger's form: `2026-11-25T20:00:00.000Z INFO  [target] message, key=value`
    Text,
    /// `<6>INFO  [target] message, key=value`: journald adds the time and reads the priority,
    /// <https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html>.
    Journal,
    /// `{"time":"2026-11-25T20:00:00.000Z","level":"INFO","target":"target","message":"message,
    /// key=value","key":"value"}`
    Json,
}

impl Format {
    /// Selects the journal's form if the service manager has connected stderr to journald, else the text form.
    pub fn for_stderr() -> Self {
        // Device and inode of stderr: systemd.exec(5).
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        match rustix::fs::fstat(io::stderr()) {
            Ok(stderr) if stream == format!("{}:{}", stderr.st_dev, stderr.st_ino) => Format::Journal,
            _ => Format::Text,
        }
    }

    /// What a line starts with so that its reader knows the priority.
    pub fn prefix(self, level: Level) -> String {
        match self {
            Format::Journal => format!("<{}>", priority(level)),
            Format::Text | Format::Json => String::new(),
        }
    }
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

/// A line in the queue, and as [`Format::Json`] writes it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    time: String,
    pub(super) level: Level,
    pub(super) target: String,
    /// One line of bounded length, with `, key=value key=value` at its end.
    pub(super) message: String,
    #[serde(flatten)]
    fields: Map<String, Json>,
}

impl Line {
    pub(super) fn new(time: SystemTime, record: &Record<'_>) -> Self {
        let mut line = Self {
            time: rfc3339(time),
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
            fields: Map::new(),
        };
        // This visitor returns no error.
        let _ = record.key_values().visit(&mut line);
        line.message = shorten(&line.message, MAX_MESSAGE_CHARS);
        line
    }
}

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        value.visit(Field(self, key.as_str()))
    }
}

/// The key of a value on its way to the line.
struct Field<'a>(&'a mut Line, &'a str);

impl Field<'_> {
    fn add(&mut self, text: &str, json: Json) -> Result<(), Error> {
        let Self(line, key) = self;
        let comma = if line.fields.is_empty() { "," } else { "" };
        line.fields.insert((*key).to_owned(), json);
        Ok(write!(line.message, "{comma} {key}={text}")?)
    }
}

impl<'v> VisitValue<'v> for Field<'_> {
    /// Quotes and escapes text from outside. Leaves numbers and booleans bare.
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        let number = value.to_i64().map(Json::from);
        let number = number.or_else(|| value.to_f64().map(Json::from));
        let bare = number.or_else(|| value.to_bool().map(Json::from));
        let text = value.to_string();
        match bare {
            Some(json) => self.add(&text, json),
            None => self.add(&quote(&text, MAX_VALUE_CHARS), shorten(&text, MAX_VALUE_CHARS).into()),
        }
    }

    /// Omits the key: `None` or no suppressed lines.
    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Leaves a single word bare, as in `signal=SIGTERM`.
    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=MAX_VALUE_CHARS).contains(&value.len()) || !value.bytes().all(is_word) {
            return self.visit_any(value.into());
        }
        self.add(value, value.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use log::kv::Source;

    use super::*;

    fn line(message: &str, fields: &dyn Source) -> Line {
        let time = UNIX_EPOCH + Duration::from_millis(1_250);
        Line::new(
            time,
            &Record::builder()
                .level(Level::Info)
                .target("infernet_router")
                .args(format_args!("{message}"))
                .key_values(&fields)
                .build(),
        )
    }

    #[test]
    fn json_line_has_message_and_fields() {
        let line = line("a \"b\"", &[("n", 1)]);
        let json = r#"{"time":"1970-01-01T00:00:01.25Z","level":"INFO","target":"infernet_router","message":"a \"b\", n=1","n":1}"#;
        assert_eq!(serde_json::to_string(&line).expect("JSON"), json);
        let levels = [Level::Error, Level::Warn, Level::Debug, Level::Trace];
        assert_eq!(levels.map(priority), [3, 4, 7, 7]);
    }

    #[test]
    fn strings_are_quoted_and_numbers_bare() {
        let node = "a\n\"b\"";
        let fields: [(&str, Value<'_>); 6] = [
            ("node", Value::from_display(&node)),
            ("file", "ips.txt".into()),
            ("signal", "SIGTERM".into()),
            ("delay_s", 0.5.into()),
            ("is_up", true.into()),
            ("suppressed", Value::null()),
        ];
        let line = line("event: text", &fields);
        let text = r#"event: text, node="a\n\"b\"" file="ips.txt" signal=SIGTERM delay_s=0.5 is_up=true"#;
        assert_eq!(line.message, text);
        let json = r#"{"delay_s":0.5,"file":"ips.txt","is_up":true,"node":"a\\n\"b\"","signal":"SIGTERM"}"#;
        assert_eq!(serde_json::to_string(&line.fields).expect("JSON"), json);
    }

    #[test]
    fn long_value_is_truncated() {
        let long = "x".repeat(5_000);
        let line = line("event: text", &[("reason", long.as_str()), ("url", long.as_str())]);
        let short = "x".repeat(200);
        assert_eq!(
            line.message,
            format!("event: text, reason=\"{short}\"… url=\"{short}\"…")
        );
    }

    #[test]
    fn message_is_one_line_of_bounded_length() {
        let none: [(&str, u32); 0] = [];
        let message = |text: &str| line(text, &none).message;
        assert_eq!(message("a\n\u{1b}[2J\u{2028}é"), "a\\n\\u{1b}[2J\\u{2028}é");
        let most = "x".repeat(MAX_MESSAGE_CHARS);
        assert_eq!(message(&most), most);
        assert_eq!(message(&(most.clone() + "xyz")), most + "…");
    }
}
