//! What the gateway counts.
//!
//! Handles are made once, after the binary has installed its recorder; a count is then one atomic add.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, Histogram, counter, histogram};
use queue::run::{Generation, Mode};

const RESPONSES: &str = "postback_http_responses_total";

/// Statuses that have a handle of their own; the others are looked up.
const COMMON: [u16; 14] = [200, 202, 204, 400, 401, 404, 405, 409, 413, 422, 429, 500, 503, 504];

/// The part of the HTTP surface that a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteClass {
    Inference,
    Control,
    Inbox,
    Health,
    Other,
}

impl RouteClass {
    const ALL: [Self; 5] = [Self::Inference, Self::Control, Self::Inbox, Self::Health, Self::Other];

    /// By the first look at a path; good enough to count by, and bounded.
    pub(crate) fn of(path: &str) -> Self {
        if path.starts_with("/v2/projects") || path.starts_with("/v3/projects") {
            Self::Control
        } else if path.starts_with("/v4/") || path.starts_with("/v3/") || path.ends_with("/predict") {
            Self::Inference
        } else if path.starts_with("/inbox") {
            Self::Inbox
        } else if matches!(path, "/healthz" | "/readyz" | "/metrics") {
            Self::Health
        } else {
            Self::Other
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Control => "control",
            Self::Inbox => "inbox",
            Self::Health => "health",
            Self::Other => "other",
        }
    }
}

pub(crate) struct Meter {
    accepted: [[Counter; 2]; 3],
    acknowledged: Histogram,
    responses: [[OnceLock<Counter>; COMMON.len()]; RouteClass::ALL.len()],
}

impl Meter {
    pub(crate) fn new() -> Self {
        let accepted = |generation: &'static str| {
            ["sync", "async"].map(
                |mode| counter!("postback_runs_accepted_total", "generation" => generation, "mode" => mode),
            )
        };
        Self {
            accepted: ["legacy", "v3", "v4"].map(accepted),
            acknowledged: histogram!("postback_acknowledgement_seconds"),
            responses: Default::default(),
        }
    }

    /// A run was kept, or a call answered.
    pub(crate) fn accepted(&self, generation: Generation, mode: Mode) {
        let generation = match generation {
            Generation::Legacy => 0,
            Generation::V3 => 1,
            Generation::V4 => 2,
        };
        let mode = match mode {
            Mode::Sync => 0,
            Mode::Async => 1,
        };
        self.accepted[generation][mode].increment(1);
    }

    /// An acknowledgement is ready to leave, so long after its request's header came.
    pub(crate) fn acknowledged(&self, after: Duration) {
        self.acknowledged.record(after.as_secs_f64());
    }

    pub(crate) fn responded(&self, class: RouteClass, status: StatusCode) {
        let count = || counter!(RESPONSES, "route" => class.as_str(), "status" => status.as_str().to_owned());
        match COMMON.iter().position(|common| *common == status.as_u16()) {
            Some(index) => self.responses[class as usize][index].get_or_init(count).increment(1),
            None => count().increment(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_one_class() {
        for (path, class) in [
            ("/v4/p-1/a/run", RouteClass::Inference),
            ("/v3/p-1/a/predict", RouteClass::Inference),
            ("/a/predict", RouteClass::Inference),
            ("/v2/projects/p-1/apps", RouteClass::Control),
            ("/v3/projects/p-1/apps/x/run", RouteClass::Control),
            ("/inbox/0", RouteClass::Inbox),
            ("/healthz", RouteClass::Health),
            ("/", RouteClass::Other),
        ] {
            assert_eq!(RouteClass::of(path), class, "{path}");
        }
        for (index, class) in RouteClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
        }
    }
}
