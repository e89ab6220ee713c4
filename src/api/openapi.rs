//! The description of this API, OpenAPI 3.1, without line breaks and indentation: that is nearly half of it.

use std::sync::LazyLock;

const SOURCE: &str = include_str!("openapi.json");

/// The body of `/openapi.json`.
pub(super) static OPENAPI: LazyLock<String> = LazyLock::new(|| SOURCE.lines().map(str::trim_start).collect());

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn minified_document_has_the_same_content() {
        let source: Value = serde_json::from_str(SOURCE).expect("JSON");
        let minified: Value = serde_json::from_str(&OPENAPI).expect("JSON");
        assert_eq!(minified, source);
        assert!(!OPENAPI.contains('\n') && OPENAPI.len() < SOURCE.len());
    }
}
