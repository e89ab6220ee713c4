//! Reads settings one by one and collects their values, errors and warnings.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
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
    /// Whether the value means something else than the default.
    pub(super) is_changed: bool,
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

/// Reads the settings of a lookup by name.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<(OsString, SetBy)>,
    pub(super) values: Vec<SettingValue>,
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<(OsString, SetBy)>, errors: Vec<String>) -> Self {
        Self {
            lookup,
            values: Vec::new(),
            errors,
            warnings: Vec::new(),
        }
    }

    /// Reads a setting. An invalid one is an error, and the default is returned so that all errors are found.
    pub(super) fn read<T: PartialEq>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        let setting = Setting::named(name);
        let default = Some(setting.default).filter(|default| !default.is_empty());
        let default = default.and_then(|default| parse(default).ok());
        let given = (self.lookup)(name).filter(|(value, _)| !is_blank(value));
        let Some((value, set_by)) = given else {
            self.note(name, setting.default, SetBy::Default, false);
            return default;
        };
        let parsed = parse_value(&value, parse);
        let is_changed = parsed.as_ref().ok() != default.as_ref();
        let shown = text::redact(value.to_string_lossy().trim()).into_owned();
        self.note(name, &shown, set_by, is_changed);
        match parsed {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.errors.push(message(setting, &value, invalid));
                default
            }
        }
    }

    /// Reads a setting with a default.
    pub(super) fn required<T: PartialEq>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> T {
        self.read(name, parse).expect("a test parses every default")
    }

    pub(super) fn number(&mut self, name: &'static str) -> f64 {
        self.required(name, number_of(name))
    }

    pub(super) fn optional_number(&mut self, name: &'static str) -> Option<f64> {
        self.read(name, number_of(name))
    }

    pub(super) fn seconds(&mut self, name: &'static str) -> Duration {
        Duration::from_secs_f64(self.number(name))
    }

    pub(super) fn word(&mut self, name: &'static str) -> &'static str {
        self.required(name, |text| Setting::named(name).form.word(text).ok_or(Invalid::Form))
    }

    /// Reads the log level. An invalid level does not prevent service: it is a warning.
    pub(super) fn level(&mut self, name: &'static str) -> LevelFilter {
        let errors_before = self.errors.len();
        let level = self.word(name).parse().unwrap_or(LevelFilter::Info);
        let errors = self.errors.drain(errors_before..);
        self.warnings.extend(errors.map(|error| error + "; using info"));
        level
    }

    fn note(&mut self, name: &'static str, value: &str, set_by: SetBy, is_changed: bool) {
        self.values.push(SettingValue {
            name,
            value: value.to_owned(),
            set_by,
            is_changed,
        });
    }
}

/// An invalid value or item as an error message repeats it.
pub(super) fn shown(value: &str) -> String {
    text::quote(&text::redact(value), MAX_SHOWN_CHARS)
}

fn number_of(name: &str) -> impl Fn(&str) -> Result<f64, Invalid> {
    |text| Setting::named(name).form.number(text).ok_or(Invalid::Form)
}

fn parse_value<T>(value: &OsStr, parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<T, Invalid> {
    match value.to_str().map(str::trim) {
        Some(text) if is_quoted(text) => Err(Invalid::Expected(
            "a value without quotes around it (docker's --env-file passes them on)".into(),
        )),
        Some(text) => parse(text),
        None => Err(Invalid::Expected("UTF-8".into())),
    }
}

fn message(setting: &Setting, value: &OsStr, invalid: Invalid) -> String {
    let (name, value) = (setting.name, shown(&value.to_string_lossy()));
    match invalid {
        Invalid::Form => format!("{name}={value}: expected {}", setting.expected()),
        Invalid::Item(item) => format!(
            "{name}={value}: expected {}; {} is invalid",
            setting.expected(),
            shown(&item)
        ),
        Invalid::Expected(expected) => format!("{name}={value}: expected {expected}"),
    }
}

/// Whether the value is in quotes, which a shell would have removed.
fn is_quoted(text: &str) -> bool {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).is_some()
}

/// Whether the value is treated as unset.
pub(super) fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}
