//! Rules about text that more than one room needs.

use std::time::Duration;

/// The units of a time, the largest first, in seconds.
pub const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// The longest beginning of `text` of at most `bytes_max` bytes that ends between characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// The same where the text stands.
pub fn truncate(text: &mut String, bytes_max: usize) {
    let end = cut(text, bytes_max).len();
    text.truncate(end);
}

/// A time as people write it: a whole number and its unit, `45s`, `30m`, `12h`, `7d`. `None` when it is none; what is
/// too large for a number is as long as can be.
pub fn time(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, seconds) = TIME_UNITS.into_iter().find(|(name, _)| *name == unit.trim_start())?;
    let number: u64 = if number.is_empty() { return None } else { number.parse().unwrap_or(u64::MAX) };
    Some(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 99), "aé");
        let mut text = "ééé".to_owned();
        truncate(&mut text, 5);
        assert_eq!(text, "éé");
    }

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        for (text, seconds) in [("45s", 45), ("30m", 1_800), ("12 h", 43_200), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(time("99999999999999999999d"), Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["", "2", "h", "-2h", "two hours", "2hh", "2H", "1.5h", "é"] {
            assert_eq!(time(nonsense), None, "{nonsense}");
        }
    }
}
