//! Runs and their deliveries as the API shows them, as far as the checker asks.

use queue::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// A run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Run {
    pub id: String,
    pub state: String,
    pub error: Option<RunError>,
    pub accepted_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    #[serde(default)]
    pub result: Value,
    pub attempts: Vec<Attempt>,
    pub deliveries: Vec<Delivery>,
}

/// Why a run did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct RunError {
    pub code: String,
}

/// An attempt to run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Attempt {
    pub number: usize,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub end: Option<String>,
}

/// A delivery of a run's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Delivery {
    pub id: String,
    pub state: String,
    pub attempts: Vec<DeliveryAttempt>,
}

/// An attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct DeliveryAttempt {
    pub number: usize,
    pub ended_at: Option<Timestamp>,
    pub status_code: Option<u16>,
    pub reason: Option<String>,
}

impl Run {
    /// The request that it answers: the functions of the tests return it as `value`.
    pub(super) fn request(&self) -> Option<u64> {
        self.result["value"].as_u64()
    }
}

impl Delivery {
    /// Nothing more happens to it by itself.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "delivered" | "exhausted" | "disabled")
    }
}
