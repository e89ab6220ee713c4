//! The description of this API, OpenAPI 3.1, without the whitespace between its tokens: that is half of it.

const SOURCE: &[u8] = include_bytes!("openapi.json");
const MINIFIED: ([u8; SOURCE.len()], usize) = minified();

/// The body of `/openapi.json`.
pub(super) static OPENAPI: [u8; MINIFIED.1] = *MINIFIED.0.first_chunk().expect("it is not longer than its source");

const fn minified() -> ([u8; SOURCE.len()], usize) {
    let mut bytes = [0; SOURCE.len()];
    let (mut from, mut to) = (0, 0);
    let (mut is_in_string, mut is_escaped) = (false, false);
    while from < SOURCE.len() {
        let byte = SOURCE[from];
        if is_in_string || !byte.is_ascii_whitespace() {
            bytes[to] = byte;
            to += 1;
        }
        is_in_string ^= byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        from += 1;
    }
    (bytes, to)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn minified_document_has_the_same_content() {
        let source: Value = serde_json::from_slice(SOURCE).expect("JSON");
        let minified: Value = serde_json::from_slice(&OPENAPI).expect("JSON");
        assert_eq!(minified, source);
        assert!(!OPENAPI.contains(&b'\n') && OPENAPI.len() < SOURCE.len());
    }
}
