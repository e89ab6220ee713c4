//! Seconds, speeds, origins and formats.

use super::*;

#[test]
fn seconds_are_read_within_their_ranges() {
    let config = accepted("IDLE_TIMEOUT", "3600");
    assert_eq!(config.idle_timeout, Duration::from_secs(3600));
    assert_eq!(
        accepted("SHUTDOWN_DELAY", "2.5").shutdown_delay,
        Duration::from_millis(2500)
    );
    assert_eq!(accepted("RESOURCES_INTERVAL", "0").resources_interval, None);
    let interval = accepted("RESOURCES_INTERVAL", "60").resources_interval;
    assert_eq!(interval, Some(Duration::from_secs(60)));
    for (name, wrong) in [
        ("IDLE_TIMEOUT", ["0", "0.9", "3601"]),
        ("SHUTDOWN_DELAY", ["300.1", "-1", "1e1"]),
        ("RESOURCES_INTERVAL", ["59", "86401", "never"]),
    ] {
        wrong
            .iter()
            .for_each(|wrong| assert!(refused(name, wrong).contains("expected seconds, ")));
    }
    assert_eq!(
        refused("RESOURCES_INTERVAL", "59"),
        "RESOURCES_INTERVAL=\"59\": expected seconds, 60 to 86400, or 0"
    );
}

#[test]
fn speedup_is_a_number_from_1_to_64() {
    assert_eq!(accepted("MAX_SPEEDUP", "8").max_speedup, Some(8.0));
    assert_eq!(accepted("MAX_SPEEDUP", "1.5").max_speedup, Some(1.5));
    for wrong in ["0", "0.9", "64.1", "-1", "x"] {
        assert!(refused("MAX_SPEEDUP", wrong).ends_with("expected a decimal number, 1 to 64"));
    }
}

#[test]
fn origins_have_the_form_of_browsers() {
    assert_eq!(accepted("CORS_ORIGINS", "*").cors_origins, CorsOrigins::Any);
    let listed = accepted(
        "CORS_ORIGINS",
        "https://App.example:443, http://localhost:3000/,http://a:80,",
    )
    .cors_origins;
    let expected = ["https://app.example", "http://localhost:3000", "http://a"].map(str::to_owned);
    assert_eq!(listed, CorsOrigins::Listed(expected.into()));
    for wrong in [
        "app.example",
        "https://a/x",
        "ftp://a",
        "https://*.example",
        "*,https://a",
        "null",
    ] {
        assert!(refused("CORS_ORIGINS", wrong).contains("expected * or origins like https://app.example"));
    }
}

#[test]
fn log_format_is_text_or_json() {
    assert!(accepted("LOG_FORMAT", "JSON").is_json_log);
    assert!(!accepted("LOG_FORMAT", "text").is_json_log);
    assert!(refused("LOG_FORMAT", "xml").ends_with("expected text or json"));
}
