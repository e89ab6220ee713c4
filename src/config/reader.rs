//! Reads settings one by one and collects their values, errors and warnings.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use super::table::Setting;
use crate::util::text;

/// Longest part of an invalid value in an error message: any valid value fits, in one line.
pub(super) const MAX_SHOWN_CHARS: usize = 80;

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// The environment.
    Environment,
    /// `.env` in the working directory.
    Dotenv,
    /// The table of settings.
    Default,
}

/// The value of one setting as it may be shown: without a password.
#[derive(Clone, Debug)]
pub struct SettingValue {
    /// The name of the setting.
    pub name: &'static str,
    /// The value as written; empty if unset.
    pub value: String,
    /// The source of the value.
    pub set_by: SetBy,
}

/// Why a value is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// The value does not have the form of the setting.
    Form,
    /// This item of a list does not have the form of the setting.
    Item(String),
    /// The value does not have this more specific form.
    Expected(Cow<'static, str>),
}

pub(super) type Parsed<T> = Result<T, Invalid>;

/// Reads the settings of a lookup by name.
pub(super) struct Reader<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<(OsString, SetBy)>,
    pub(super) values: Vec<SettingValue>,
    /// The values that mean something else than the default.
    pub(super) changed: BTreeMap<String, String>,
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Reader<'_> {
    /// Reads a setting. An invalid one is an error, and the default is returned so that all errors are found.
    pub(super) fn read<T: PartialEq>(&mut self, name: &'static str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let setting = Setting::named(name);
        let default = parse_value(setting.default.as_ref(), &parse).ok().flatten();
        let given = (self.lookup)(name).filter(|(value, _)| !is_blank(value));
        let (value, set_by) = given.unwrap_or((setting.default.into(), SetBy::Default));
        let parsed = parse_value(&value, parse);
        let shown = text::redact(value.to_string_lossy().trim()).into_owned();
        if parsed.as_ref().ok() != Some(&default) {
            self.changed.insert(name.to_owned(), shown.clone());
        }
        self.values.push(SettingValue {
            name,
            value: shown,
            set_by,
        });
        parsed.unwrap_or_else(|invalid| {
            self.errors.push(message(setting, &value, invalid));
            default
        })
    }

    /// Reads a setting with a default.
    pub(super) fn required<T: PartialEq>(&mut self, name: &'static str, parse: impl Fn(&str) -> Parsed<T>) -> T {
        self.read(name, parse).expect("a test parses every default")
    }

    pub(super) fn number(&mut self, name: &'static str) -> f64 {
        self.required(name, number_of(name))
    }

    pub(super) fn seconds(&mut self, name: &'static str) -> Duration {
        Duration::from_secs_f64(self.number(name))
    }

    /// Reads the log level. An invalid level does not prevent service: it is a warning.
    pub(super) fn level(&mut self, name: &'static str) -> LevelFilter {
        let errors_before = self.errors.len();
        let level = self.required(name, from_str);
        let errors = self.errors.drain(errors_before..);
        self.warnings.extend(errors.map(|error| error + "; using info"));
        level
    }
}

/// An invalid value or item as an error message repeats it.
pub(super) fn shown(value: &str) -> String {
    text::quote(&text::redact(value), MAX_SHOWN_CHARS)
}

/// The parser of a number in the range of this setting.
pub(super) fn number_of(name: &str) -> impl Fn(&str) -> Parsed<f64> {
    |text| Setting::named(name).form.number(text).ok_or(Invalid::Form)
}

/// Parses a value; `None` if it is empty.
fn parse_value<T>(value: &OsStr, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Option<T>> {
    match value.to_str().map(str::trim) {
        Some("") => Ok(None),
        // A shell would have removed the quotes.
        Some(text) if matches!(text.as_bytes(), [b'"', .., b'"'] | [b'\'', .., b'\'']) => Err(Invalid::Expected(
            "a value without quotes around it (docker's --env-file passes them on)".into(),
        )),
        Some(text) => parse(text).map(Some),
        None => Err(Invalid::Expected("UTF-8".into())),
    }
}

fn message(setting: &Setting, value: &OsStr, invalid: Invalid) -> String {
    let expected = match invalid {
        Invalid::Form => setting.expected(),
        Invalid::Item(item) => format!("{}; {} is invalid", setting.expected(), shown(&item)),
        Invalid::Expected(expected) => expected.into_owned(),
    };
    format!(
        "{}={}: expected {expected}",
        setting.name,
        shown(&value.to_string_lossy())
    )
}

/// Whether the value is treated as unset.
pub(super) fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

pub(super) fn from_str<T: FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_| Invalid::Form)
}
