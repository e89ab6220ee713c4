//! `infernet-router settings`: the value of each setting and where it comes from. Contacts no other machine.

use std::fmt::Write;

use crate::config::{SetBy, SettingValue};
use crate::util::text;

/// Longest value in characters: a path or a list of blocks.
const MAX_VALUE_CHARS: usize = 1_000;

/// One line for each setting: name, source and value.
pub fn to_table(values: &[SettingValue]) -> String {
    let mut table = format!("{:<22}  {:<11}  VALUE\n", "SETTING", "SOURCE");
    for setting in values {
        let (name, value) = (setting.name, &setting.value);
        let source = match setting.set_by {
            SetBy::Environment => "environment",
            SetBy::Dotenv => ".env",
            SetBy::Default => "default",
        };
        let value = match value.is_empty() {
            true => "unset".to_owned(),
            false => text::shorten(value, MAX_VALUE_CHARS),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:<22}  {source:<11}  {value}");
    }
    table
}
