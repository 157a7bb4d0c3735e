//! A delivery: the duty to tell one endpoint about one outcome, and the moves it may make.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{DeliveryId, EndpointId, ProjectId, RunId};
use crate::run::{EndpointUrl, Receiver};
use crate::signature::CallerSecret;
use crate::webhook::{Event, Schedule, WebhookHeaders};

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Due now or later.
    Pending,
    /// An attempt is under way.
    Sending,
    /// A receiver answered 2xx.
    Delivered,
    /// The whole schedule failed.
    Exhausted,
    /// Its endpoint is disabled; it waits for the re-enabling.
    Disabled,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Sending, Self::Delivered, Self::Exhausted, Self::Disabled];

    /// The word used in API, CLI, pages and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What follows from an attempt.
///
/// ```text
/// pending ──begin──► sending ──Delivered──► delivered
///    ▲                  │ ├────Exhausted──► exhausted
///    ├──Retry at────────┘ └────Disabled───► disabled
///    └──redeliver── pending | delivered | exhausted
/// ```
///
/// A delivery that is exhausted when its endpoint has taken nothing for the length of the whole schedule
/// waits as `disabled` instead, with the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// Try again, not before this time.
    Retry(Timestamp),
    /// This server could not make the attempt: try again, not before this time, and the schedule stands
    /// where it stood.
    Postponed(Timestamp),
    /// The schedule is used up.
    Exhausted,
    /// The receiver said 410: nothing more goes to this endpoint.
    Disabled,
}

impl Verdict {
    /// When to try again.
    pub const fn again_at(self) -> Option<Timestamp> {
        match self {
            Self::Retry(at) | Self::Postponed(at) => Some(at),
            Self::Delivered | Self::Exhausted | Self::Disabled => None,
        }
    }

    /// The state of the delivery after it.
    pub const fn state(self) -> DeliveryState {
        match self {
            Self::Delivered => DeliveryState::Delivered,
            Self::Retry(_) | Self::Postponed(_) => DeliveryState::Pending,
            Self::Exhausted => DeliveryState::Exhausted,
            Self::Disabled => DeliveryState::Disabled,
        }
    }
}

/// A delivery whose next attempt is recorded and must now be made.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// Which delivery.
    pub id: DeliveryId,
    /// The project whose secret signs it.
    pub project: ProjectId,
    /// Where it goes.
    pub url: EndpointUrl,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Which attempt of its schedule this is, from 1: a redelivery begins the schedule anew.
    pub step: u32,
    /// The schedule of the run's own, if it has one.
    pub schedule: Option<Schedule>,
    /// The body, the same bytes on every attempt in the same form.
    pub body: Bytes,
    /// Whether that is the thin form: a link to the result instead of the result.
    pub thin: bool,
    /// Bytes of its result, when that is large: what it takes of the room for such results.
    pub large_bytes: usize,
    /// The caller's own secret, if the call brought one.
    pub caller_secret: Option<CallerSecret>,
    /// The caller's own headers, if there are any.
    pub headers: Option<WebhookHeaders>,
}

/// An attempt that ended.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    /// Which delivery.
    pub id: DeliveryId,
    /// Of which project; `None` when nothing was sent, which says nothing about the receiver and is not counted.
    pub project: Option<ProjectId>,
    /// Where it went.
    pub url: EndpointUrl,
    /// Which attempt of it.
    pub attempt: u32,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What follows.
    pub verdict: Verdict,
    /// What was seen.
    pub report: AttemptReport,
}

/// What an attempt saw on the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptReport {
    /// The receiver's HTTP status, if it sent one.
    pub status_code: Option<u16>,
    /// The end code, such as `http_status`, `timeout:connect`, `address_not_allowed`; `None` for 2xx.
    pub reason: Option<String>,
    /// The first bytes of the receiver's answer, as text.
    pub response: Option<String>,
    /// Time spent in all.
    #[serde(rename = "durationMs", serialize_with = "as_millis")]
    pub duration: Duration,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the body carried a link to the result instead of the result.
    pub thin: bool,
}

/// How long each step of an attempt took. A step that was not taken, or that did not come to its end, has
/// no time: the attempt's reason says where it stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// Whether the request went out on a connection that an earlier attempt had opened.
    pub reused_connection: bool,
    /// Looking up the receiver's name.
    #[serde(rename = "dnsMs", serialize_with = "as_optional_millis")]
    pub dns: Option<Duration>,
    /// Opening the connection, of several addresses the first that took it.
    #[serde(rename = "connectMs", serialize_with = "as_optional_millis")]
    pub connect: Option<Duration>,
    /// The TLS handshake.
    #[serde(rename = "tlsMs", serialize_with = "as_optional_millis")]
    pub tls: Option<Duration>,
    /// From the request's first byte to the answer: its status and headers.
    #[serde(rename = "firstByteMs", serialize_with = "as_optional_millis")]
    pub first_byte: Option<Duration>,
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(millis(*duration))
}

#[expect(clippy::ref_option, reason = "the form that serde calls")]
pub(crate) fn as_optional_millis<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(millis).serialize(serializer)
}

/// One attempt of a delivery as shown to people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryAttemptView {
    /// From 1.
    pub number: u32,
    /// When it was recorded, right before it was sent.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What was seen; `None` while it is under way.
    #[serde(flatten)]
    pub report: Option<AttemptReport>,
}

/// A delivery as shown to people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    /// The `webhook-id`.
    pub id: String,
    /// The run that it tells about …
    pub run_id: RunId,
    /// … and what of it: `completed` for the outcome.
    pub event: Event,
    /// Where it goes.
    pub url: EndpointUrl,
    /// Where it stands.
    pub state: DeliveryState,
    /// When the next attempt is due, while it is pending.
    pub next_attempt_at: Option<Timestamp>,
    /// Its attempts, oldest first; in lists the last one only.
    pub attempts: Vec<DeliveryAttemptView>,
}

/// Whether anything goes to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Deliveries go there.
    Enabled,
    /// Deliveries wait until somebody enables it.
    Disabled,
}

impl EndpointState {
    /// Every state.
    pub const ALL: [Self; 2] = [Self::Enabled, Self::Disabled];

    /// The word used in API, CLI, pages and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

/// A change of an endpoint: of its state, or of what was set for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointEvent {
    /// When.
    pub at: Timestamp,
    /// What it became, or stayed.
    pub state: EndpointState,
    /// Why: `http_status 410`, `exhausted: …` with how often it was tried, or `requested`.
    pub reason: String,
}

/// An endpoint that was disabled or set once, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// Its id.
    pub id: EndpointId,
    /// Its address.
    pub url: EndpointUrl,
    /// Where it stands …
    pub state: EndpointState,
    /// … since when …
    pub since: Timestamp,
    /// … and why.
    pub reason: String,
    /// Deliveries that wait for it to be enabled.
    pub waiting: u64,
    /// Bodies of more bytes than this are told in the thin form.
    pub body_bytes_max: Option<u64>,
    /// Its last changes, oldest first.
    pub events: Vec<EndpointEvent>,
}

impl EndpointView {
    /// Of an endpoint that deliveries went to, and that was never disabled or set.
    pub fn seen(project: &ProjectId, url: EndpointUrl, since: Timestamp) -> Self {
        Self {
            id: EndpointId::of(project, &url),
            url,
            state: EndpointState::Enabled,
            since,
            reason: "never disabled".to_owned(),
            waiting: 0,
            body_bytes_max: None,
            events: Vec::new(),
        }
    }
}

/// What became of the wish to enable an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// It was disabled, and gets what waited for it: so many deliveries.
    Replayed(u64),
    /// It was not disabled: nothing waited, and nothing was changed.
    Already,
    /// The project knows nothing of it.
    Unknown,
}

/// Some of a project's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// All that share an origin.
    Of(Receiver),
    /// This one.
    One(EndpointUrl),
}

impl Endpoints {
    /// The origin they share.
    pub fn receiver(&self) -> Receiver {
        match self {
            Self::Of(receiver) => receiver.clone(),
            Self::One(url) => url.receiver(),
        }
    }

    /// The only one, when it is one.
    pub const fn url(&self) -> Option<&EndpointUrl> {
        match self {
            Self::Of(_) => None,
            Self::One(url) => Some(url),
        }
    }
}

/// Which deliveries to list, newest run first.
#[derive(Clone, Debug)]
pub struct DeliveryFilter {
    /// Of this project …
    pub project: ProjectId,
    /// … and to these endpoints, if given.
    pub endpoints: Option<Endpoints>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only what comes after this one in the list: the cursor of the next page.
    pub after: Option<DeliveryId>,
    /// At most so many.
    pub limit: usize,
}

/// What became of a wish to deliver once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redelivered {
    /// It is due now, and its schedule begins anew.
    Due,
    /// An attempt is under way.
    UnderWay,
    /// Its endpoint is disabled: it waits until that is enabled.
    EndpointDisabled,
    /// The project has no such delivery.
    Unknown,
}
