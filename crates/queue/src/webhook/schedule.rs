//! When the deliveries of a run are tried again, where an app or a call says so itself.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;
use crate::limits::{
    WEBHOOK_SCHEDULE_MAX, WEBHOOK_SCHEDULE_STEP_MAX, WEBHOOK_SCHEDULE_STEP_MIN, WEBHOOK_SCHEDULE_STEPS_MAX,
};
use crate::text::{self, TIME_UNITS};

/// A schedule without a step: one attempt and no more.
const NONE: &str = "none";

/// The waits between the attempts of a delivery, in place of [`SCHEDULE`](crate::retry::SCHEDULE).
///
/// Written as the waits after each attempt that failed, `5s, 1m, 2h, 1d`: the first attempt is always made at
/// once, so that there is one more attempt than steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Arc<[Duration]>);

impl Schedule {
    /// From its steps.
    ///
    /// # Errors
    /// When one of them is no time, too short or too long, or there are too many.
    pub fn parse<'w>(steps: impl IntoIterator<Item = &'w str>) -> Result<Self, Invalid> {
        let mut waits = vec![Duration::ZERO];
        for text in steps {
            if waits.len() > WEBHOOK_SCHEDULE_STEPS_MAX {
                return Err(Invalid(format!(
                    "has more than {WEBHOOK_SCHEDULE_STEPS_MAX} steps; name fewer, with longer waits"
                )));
            }
            waits.push(step(text.trim())?);
        }
        if waits.iter().sum::<Duration>() > WEBHOOK_SCHEDULE_MAX {
            return Err(Invalid(format!(
                "takes longer than {}, all steps together; name fewer or shorter ones",
                Wait(WEBHOOK_SCHEDULE_MAX)
            )));
        }
        Ok(Self(waits.into()))
    }

    /// The waits before each attempt, from the first, which waits for nothing.
    pub fn waits(&self) -> &[Duration] {
        &self.0
    }

    fn steps(&self) -> impl Iterator<Item = Wait> {
        self.0.iter().skip(1).copied().map(Wait)
    }
}

fn step(text: &str) -> Result<Duration, Invalid> {
    let Some(wait) = text::time(text) else {
        let shown: String = text.chars().take(40).collect();
        return Err(Invalid(format!(
            "has the step `{shown}`, which is no wait; write a whole number and its unit (s, m, h or d), such as \
             `5s, 1m, 2h, 1d`"
        )));
    };
    if (WEBHOOK_SCHEDULE_STEP_MIN..=WEBHOOK_SCHEDULE_STEP_MAX).contains(&wait) {
        return Ok(wait);
    }
    let shown: String = text.chars().take(40).collect();
    Err(Invalid(format!(
        "has the step `{shown}`; a step is {} to {}, and the first attempt, which is made at once, needs none",
        Wait(WEBHOOK_SCHEDULE_STEP_MIN),
        Wait(WEBHOOK_SCHEDULE_STEP_MAX)
    )))
}

impl FromStr for Schedule {
    type Err = Invalid;

    /// From text with commas between the steps, or `none`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.trim() == NONE { Self::parse([]) } else { Self::parse(text.split(',')) }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = self.steps();
        let Some(first) = steps.next() else { return f.write_str(NONE) };
        write!(f, "{first}")?;
        steps.try_for_each(|step| write!(f, ",{step}"))
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.steps().map(|step| step.to_string()))
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let steps = Vec::<String>::deserialize(deserializer)
            .map_err(|_| D::Error::custom("is a list of waits such as [\"5s\", \"1m\", \"2h\"]"))?;
        Self::parse(steps.iter().map(String::as_str)).map_err(D::Error::custom)
    }
}

/// A wait in the largest unit that it is a whole number of.
struct Wait(Duration);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (unit, size) =
            TIME_UNITS.into_iter().find(|(_, size)| seconds.is_multiple_of(*size)).unwrap_or(("s", 1));
        write!(f, "{}{unit}", seconds / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_numbers_with_a_unit_and_come_back_as_they_were_meant() {
        let schedule: Schedule = "5s, 90 s,60m ,36h,7d".parse().unwrap();
        let waits = [0, 5, 90, 3_600, 36 * 3_600, 7 * 86_400].map(Duration::from_secs);
        assert_eq!(schedule.waits(), waits);
        assert_eq!(schedule.to_string(), "5s,90s,1h,36h,7d");
        assert_eq!(schedule.to_string().parse(), Ok(schedule.clone()));
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(json, r#"["5s","90s","1h","36h","7d"]"#);
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    }

    #[test]
    fn no_step_is_one_attempt() {
        let once: Schedule = " none ".parse().unwrap();
        assert_eq!(once.waits(), [Duration::ZERO]);
        assert_eq!(once.to_string().parse(), Ok(once.clone()));
        assert_eq!(serde_json::from_str::<Schedule>("[]").unwrap(), once);
    }

    #[test]
    fn what_is_no_schedule_is_told_with_what_is() {
        for (wrong, said) in [
            ("", "``"),
            ("5", "`5`, which is no wait"),
            ("s", "`s`, which is no wait"),
            ("5s,,1m", "``, which is no wait"),
            ("-5s", "`-5s`"),
            ("1.5h", "`1.5h`"),
            ("5 min", "s, m, h or d"),
            ("5s;1m", "`5s;1m`"),
            ("1h30m", "`1h30m`"),
            ("0s", "a step is 1s to 7d, and the first attempt"),
            ("8d", "a step is 1s to 7d"),
            ("99999999999999999999d", "a step is 1s to 7d"),
            ("7d,7d,7d,7d,2d,1s", "longer than 30d"),
        ] {
            let message = wrong.parse::<Schedule>().unwrap_err().to_string();
            assert!(message.contains(said), "{wrong}: {message}");
        }
        let steps = |count| vec!["1s"; count].join(",").parse::<Schedule>();
        assert_eq!(steps(WEBHOOK_SCHEDULE_STEPS_MAX).unwrap().waits().len(), 33);
        assert!(steps(33).unwrap_err().to_string().contains("more than 32 steps"));
        let message = serde_json::from_str::<Schedule>("\"5s\"").unwrap_err().to_string();
        assert!(message.contains("list of waits"), "{message}");
    }
}
