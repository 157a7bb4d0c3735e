//! A time in the past, as people write it.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::text;

/// The last moment that can be written in every time zone: 9999-12-30T22:00:00Z.
const LAST: Timestamp = Timestamp::from_millis(253_402_207_200_000);

/// A time in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl Since {
    /// `90m`, `2h`, `3d`, or a time such as 2026-01-31T12:00:00Z; without a zone it is UTC.
    ///
    /// # Errors
    /// When the text is neither; what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Without a zone it is UTC.
        let at = ["", "Z"].iter().find_map(|zone| Timestamp::parse_rfc3339(&format!("{text}{zone}")));
        if let Some(at) = at {
            return Ok(Self::At(at));
        }
        let ago = text::time(text).map(Self::Ago);
        ago.ok_or_else(|| "write `90m`, `2h`, `3d`, or a time such as 2026-01-31T12:00:00Z".to_owned())
    }

    /// The moment as of now, where the duration says in how long; the end of the year 9999 at most.
    pub fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(time) => now.plus(time).min(LAST),
        }
    }

    /// The moment, as of now; 1970 at least.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(ago).max(0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_the_past_is_said_in_two_ways() {
        let now = Timestamp::from_millis(1_769_860_800_000);
        assert_eq!(Since::parse("2h").unwrap().before(now).as_millis(), now.as_millis() - 7_200_000);
        assert_eq!(Since::parse("90m").unwrap(), Since::Ago(Duration::from_secs(5_400)));
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T12:00", "2026-01-31T13:00:00+01:00"] {
            assert_eq!(Since::parse(text).unwrap().before(now), now, "{text}");
        }
        assert_eq!(Since::parse("2h").unwrap().after(now).as_millis(), now.as_millis() + 7_200_000);
        let for_ever = Since::parse("99999999999999999999d").unwrap();
        for moment in [for_ever.before(now), for_ever.after(now)] {
            assert_eq!(Timestamp::parse_rfc3339(&moment.to_string()), Some(moment), "it can be written");
        }
        for nonsense in ["", "2", "h", "-2h", "two hours", "2hh"] {
            assert!(Since::parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
