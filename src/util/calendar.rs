//! Formats times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last second that RFC 3339 can express: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Whether the clock shows a time from 1970 to 9999. Outside of this range, libraries panic or fail.
pub(crate) fn is_sane(time: SystemTime) -> bool {
    time.duration_since(UNIX_EPOCH)
        .is_ok_and(|since| since.as_secs() <= LAST_SECOND)
}

/// RFC 3339 in UTC, to the millisecond. A time outside the range becomes its first or its last moment.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = since.min(Duration::from_secs(LAST_SECOND));
    let moment = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64);
    moment.format(&Rfc3339).expect("a time from 1970 to 9999 can be shown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_clamped_to_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
            (LAST_SECOND + 1, "9999-12-31T23:59:59Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc3339(time), text);
            assert_eq!(is_sane(time), seconds <= LAST_SECOND);
        }
        assert_eq!(
            rfc3339(UNIX_EPOCH + Duration::from_micros(1_500_999)),
            "1970-01-01T00:00:01.5Z"
        );
        let before = UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(
            (rfc3339(before).as_str(), is_sane(before)),
            ("1970-01-01T00:00:00Z", false)
        );
    }
}
