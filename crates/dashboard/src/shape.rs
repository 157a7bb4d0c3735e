//! Numbers, times and bodies as people read them.

use std::time::Duration;

use pages::inert::visible;
use queue::Timestamp;
use queue::text::cut;

/// Bytes of a body that a page shows; the rest is a download.
pub(crate) const BODY_SHOWN_MAX: usize = 64 << 10;

/// `0.4 ms`, `17 ms`, `1.20 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub(crate) fn duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    let secs = duration.as_secs();
    match secs {
        _ if millis < 10.0 => format!("{millis:.1} ms"),
        _ if millis < 1_000.0 => format!("{millis:.0} ms"),
        0..60 => format!("{:.2} s", millis / 1e3),
        60..3_600 => two(secs / 60, "min", secs % 60, "s"),
        3_600..86_400 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        _ => two(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
    }
}

/// Two units, or the larger one alone when it says all.
fn two(large: u64, unit: &str, small: u64, smaller: &str) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {smaller}") }
}

/// How long ago, or in how long: `3 min ago`, `in 4 h`.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    let coarse = |apart: Duration| match apart.as_secs() {
        secs @ 0..60 => format!("{secs} s"),
        secs @ 60..3_600 => format!("{} min", secs / 60),
        secs @ 3_600..86_400 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    };
    if at > now { format!("in {}", coarse(at.since(now))) } else { format!("{} ago", coarse(now.since(at))) }
}

/// `2026-01-31 12:00:05` UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = at.to_rfc3339();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// A body for a page: JSON with a line per item where it is JSON, inert, and no longer than fits.
pub(crate) fn body(body: &[u8]) -> String {
    beginning(body, body.len() as u64)
}

/// The same for the beginning of a body that has so many bytes.
pub(crate) fn beginning(body: &[u8], all: u64) -> String {
    let shown = &body[..body.len().min(BODY_SHOWN_MAX)];
    let text = String::from_utf8_lossy(shown);
    if shown.len() as u64 != all {
        return format!("{}\n… {} in all", visible(cut(&text, BODY_SHOWN_MAX)), pages::size(all));
    }
    let text = pages::pretty(&text, usize::MAX).unwrap_or_else(|| text.into_owned());
    visible(&text).into_owned()
}

/// A number as people read it: `1,240,000`.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_have_their_thousands_apart() {
        let shown = [0, 999, 1_000, 10_000, 1_240_000].map(thousands);
        assert_eq!(shown, ["0", "999", "1,000", "10,000", "1,240,000"]);
    }

    #[test]
    fn durations_have_the_digits_that_matter() {
        let shown = |millis: u64| duration(Duration::from_micros(millis));
        assert_eq!(shown(400), "0.4 ms");
        assert_eq!(shown(17_300), "17 ms");
        assert_eq!(shown(1_204_000), "1.20 s");
        assert_eq!(shown(185_000_000), "3 min 5 s");
        assert_eq!(shown(900_000_000), "15 min");
        assert_eq!(shown(7_800_000_000), "2 h 10 min");
        assert_eq!(shown(273_600_000_000), "3 d 4 h");
    }

    #[test]
    fn a_body_keeps_its_digits_and_obeys_nobody() {
        assert_eq!(
            body(br#"{"a":[1,12345678901234567890.0],"b":{}}"#),
            "{\n  \"a\": [1,12345678901234567890.0],\n  \"b\": {}\n}"
        );
        assert_eq!(body("\u{1b}[31m".as_bytes()), "␛[31m");
        assert!(body(&vec![b'x'; BODY_SHOWN_MAX + 1]).ends_with("64.0 KiB in all"));
    }

    #[test]
    fn times_are_said_from_now() {
        let at = |secs: i64| Timestamp::from_millis(secs * 1_000);
        assert_eq!(relative(at(0), at(185)), "3 min ago");
        assert_eq!(relative(at(14_400), at(0)), "in 4 h");
        assert_eq!(moment(at(0)), "1970-01-01 00:00:00");
    }
}
