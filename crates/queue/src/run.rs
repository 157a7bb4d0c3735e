//! A run: one call of one function of an app, and the moves it may make.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::delivery::{DeliveryState, DeliveryView};
use crate::id::{AppId, BuildId, ProjectId, RunId};
use crate::lease::{AttemptView, Lease};
use crate::limits::{RESULT_RETENTION, UNDELIVERED_RETENTION};
use crate::outcome::{Ending, RunError};
use crate::rerun::RetryPolicy;
use crate::search::Search;
use crate::signature::CallerSecret;
use crate::webhook::{EventFilter, Metadata, Schedule, WebhookHeaders};

/// Which generation of the API a run came through. It decides the keys of answers and webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// `POST /{app}/predict`
    Legacy,
    /// `POST /v3/{project}/{app}/{function}`
    V3,
    /// `POST /v4/{project}/{app}/{function}`
    V4,
}

/// Whether somebody waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The caller waits; the record is metadata only.
    Sync,
    /// The caller has a promise; the run survives everything.
    Async,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Accepted, not claimed.
    Queued,
    /// Claimed under a lease.
    Running,
    /// The function returned.
    Succeeded,
    /// It raised, crashed, ran out of time, or its result could not be kept.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
    /// It never started in time.
    Expired,
}

/// What can happen to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMove {
    /// A worker takes it under a lease.
    Claim,
    /// Its lease ends without an outcome: the server was lost, the replica drained or crashed.
    Release,
    /// It ends.
    End(Ending),
}

/// A move that a state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {state} run cannot {wanted:?}")]
pub struct IllegalMove {
    state: RunState,
    wanted: RunMove,
}

impl RunState {
    /// Every state, in the order of the path.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired];

    /// The state after `wanted`.
    ///
    /// ```text
    /// queued ──Claim──► running ──End──► succeeded | failed | cancelled
    ///   ▲ │                │
    ///   │ └──End───────────┼───────────► cancelled | expired | failed (interrupted)
    ///   └─────Release──────┘
    /// ```
    ///
    /// # Errors
    /// When this state does not allow it: nothing ever leaves a terminal state.
    pub fn after(self, wanted: RunMove) -> Result<Self, IllegalMove> {
        match (self, wanted) {
            (Self::Queued, RunMove::Claim) => Ok(Self::Running),
            (Self::Running, RunMove::Release) => Ok(Self::Queued),
            (Self::Running, RunMove::End(ending)) if ending != Ending::Expired => Ok(ending.state()),
            (Self::Queued, RunMove::End(ending)) if ending != Ending::Succeeded => Ok(ending.state()),
            _ => Err(IllegalMove { state: self, wanted }),
        }
    }

    /// Whether the run has ended.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// The word used in API, CLI, pages and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A checked webhook address: made by [`crate::port::AddressGuard`], read back by the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointUrl(Arc<str>);

impl EndpointUrl {
    /// Wraps an address that a guard has checked, or that was stored after such a check.
    pub fn checked(url: &str) -> Self {
        Self(url.into())
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The receiver: scheme, host and port. The unit of caps, fair turn and breaker.
    pub fn receiver(&self) -> Receiver {
        if let Some(origin) = plain_origin(&self.0) {
            return Receiver(origin.into());
        }
        let origin = url::Url::parse(&self.0)
            .map_or_else(|_| self.0.as_ref().to_owned(), |url| url.origin().ascii_serialization());
        Receiver(origin.into())
    }
}

/// The origin of an address that shows it as it is: what a guard has checked, as good as always. Each delivery
/// asks for it several times, and taking the whole address apart is twenty times the work.
fn plain_origin(url: &str) -> Option<&str> {
    let (scheme, default_port) =
        if url.starts_with("https://") { ("https://", "443") } else { ("http://", "80") };
    let rest = url.strip_prefix(scheme)?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    // A last label that begins with a digit may be a number of any spelling: it is plain as an IPv4 address only.
    let last = host.trim_end_matches('.').rsplit('.').next()?;
    let is_plain_host = host.bytes().all(is_name)
        && match last.as_bytes().first()? {
            b'0'..=b'9' => host.parse::<std::net::Ipv4Addr>().is_ok(),
            _ => true,
        };
    let is_plain_port = port.is_none_or(|port| {
        port != default_port
            && !port.starts_with('0')
            && port.parse::<u16>().is_ok_and(|_| !port.starts_with('+'))
    });
    (is_plain_host && is_plain_port).then(|| &url[..scheme.len() + authority.len()])
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The origin of endpoints: `https://example.com`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Receiver(Arc<str>);

impl Receiver {
    /// From the text form that [`Receiver::as_str`] gave.
    pub fn stored(origin: &str) -> Self {
        Self(origin.into())
    }

    /// The origin's text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A caller's own name for a call, so that asking again does not run it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique among the calls of one function of one app.
    pub key: Arc<str>,
    /// SHA-256 over all that makes two calls the same call.
    pub fingerprint: [u8; 32],
}

/// What a caller may ask for beyond the call itself. Nothing, most of the time.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The caller's own name for the call.
    pub idempotency: Option<Idempotency>,
    /// The run is not to start before then.
    pub not_before: Option<Timestamp>,
    /// The run is to start by then, or to end as expired.
    pub start_by: Option<Timestamp>,
    /// Higher ones start first; see [`PRIORITY_MAX`](crate::limits::PRIORITY_MAX).
    pub priority: i8,
    /// When it is executed again after a failure.
    pub retry: Option<Arc<RetryPolicy>>,
    /// How often it may be executed, whatever the reason.
    pub max_attempts: Option<u32>,
    /// Signs the run's deliveries beside the project's secret.
    pub caller_secret: Option<CallerSecret>,
    /// Headers that the run's deliveries carry beside ours.
    pub webhook_headers: Option<WebhookHeaders>,
    /// What the run's endpoints are told.
    pub events: EventFilter,
    /// When the run's deliveries are tried again, if not as usual.
    pub schedule: Option<Schedule>,
    /// Told back in views and webhooks.
    pub metadata: Option<Metadata>,
}

/// A run about to be accepted.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Made by the gateway.
    pub id: RunId,
    /// The app it calls.
    pub app: AppId,
    /// The function it calls.
    pub function: Arc<str>,
    /// The generation of the API it came through.
    pub generation: Generation,
    /// `Async`, or `Sync` when a caller waits although a webhook was asked for.
    pub mode: Mode,
    /// The raw JSON body, as it arrived.
    pub input: Bytes,
    /// Endpoints to tell about the outcome.
    pub webhooks: Vec<EndpointUrl>,
    /// Limit of one attempt.
    pub limit: Duration,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// What the caller should know although nothing was refused.
    pub warning: Option<String>,
    /// What the caller asked for beyond the call.
    pub options: RunOptions,
}

/// A run in a worker's hands: all that is needed to execute it and to record its outcome.
#[derive(Clone, Debug)]
pub struct LeasedRun {
    /// The lease under which it runs.
    pub lease: Lease,
    /// The app it calls.
    pub app: AppId,
    /// The function it calls.
    pub function: Arc<str>,
    /// The generation of the API it came through.
    pub generation: Generation,
    /// The raw JSON body.
    pub input: Bytes,
    /// Endpoints to tell …
    pub webhooks: Vec<EndpointUrl>,
    /// … of these events.
    pub events: EventFilter,
    /// Limit of this attempt.
    pub limit: Duration,
    /// When the run was accepted.
    pub accepted_at: Timestamp,
    /// Deaths of its own replica that this run has seen.
    pub crashes: u32,
    /// Higher ones start first.
    pub priority: i8,
    /// When it is executed again after a failure.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Failures after which it was executed again.
    pub failures: u32,
    /// It may not be executed once more after this attempt.
    pub last_attempt: bool,
}

/// A synchronous call that ended: metadata only, recorded without being waited for.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The call's id, also told to the caller.
    pub id: RunId,
    /// The app it called.
    pub app: AppId,
    /// The function it called.
    pub function: Arc<str>,
    /// The generation of the API it came through.
    pub generation: Generation,
    /// The build that served it, when one did.
    pub build: Option<BuildId>,
    /// How it ended.
    pub ending: Ending,
    /// Why, when it did not succeed.
    pub error: Option<RunError>,
    /// The HTTP status the caller saw.
    pub status_code: u16,
    /// Time inside the function.
    pub run_time_ms: f64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When a replica got it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What the caller wants to be told back.
    pub metadata: Option<Metadata>,
}

/// A run as the API, the CLI and the pages show it.
#[derive(Clone, Debug)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// The app it calls.
    pub app: AppId,
    /// The function it calls.
    pub function: String,
    /// The generation of the API it came through.
    pub generation: Generation,
    /// Whether a caller waited.
    pub mode: Mode,
    /// Where it stands.
    pub state: RunState,
    /// Why it ended, when it did not succeed.
    pub error: Option<RunError>,
    /// HTTP status of the outcome, once there is one.
    pub status_code: Option<u16>,
    /// Time inside the function, once it ended.
    pub run_time_ms: Option<f64>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Higher ones start first.
    pub priority: i8,
    /// Before which it was not to start, when there is such a moment.
    pub not_before: Option<Timestamp>,
    /// When it is executed again after a failure.
    pub retry: Option<Arc<RetryPolicy>>,
    /// How often it may be executed, when there is a bound of its own.
    pub max_attempts: Option<u32>,
    /// When its current or last attempt was claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The build that served it, when one did.
    pub build: Option<BuildId>,
    /// Endpoints to tell …
    pub webhooks: Vec<EndpointUrl>,
    /// … of these events …
    pub events: EventFilter,
    /// … by this schedule, where it is the run's own …
    pub schedule: Option<Schedule>,
    /// … with headers of these names.
    pub webhook_headers: Vec<String>,
    /// What the caller wants to be told back.
    pub metadata: Option<Metadata>,
    /// What the caller should know although nothing was refused.
    pub warning: Option<String>,
    /// Its attempts, oldest first; empty in lists.
    pub attempts: Vec<AttemptView>,
    /// Its deliveries; empty in lists.
    pub deliveries: Vec<DeliveryView>,
    /// The raw JSON result; `None` in lists, before the end, and for synchronous calls.
    pub result: Option<Bytes>,
}

impl RunView {
    /// Until when it is kept at least; `None` while it has not ended or somebody waits for it. Known
    /// with its deliveries only, not in lists.
    pub fn kept_until(&self) -> Option<Timestamp> {
        let mut until = self.ended_at?.plus(RESULT_RETENTION);
        for delivery in &self.deliveries {
            match delivery.state {
                DeliveryState::Delivered => {}
                DeliveryState::Exhausted | DeliveryState::Disabled => {
                    // One that found its endpoint disabled was never tried.
                    let last = delivery.attempts.last().and_then(|attempt| attempt.ended_at);
                    until = until.max(last.unwrap_or(self.ended_at?).plus(UNDELIVERED_RETENTION));
                }
                DeliveryState::Pending | DeliveryState::Sending => return None,
            }
        }
        Some(until)
    }
}

/// What became of runs whose time to wait is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Apps that have runs to start now which they had not, each with the highest priority among them.
    pub apps: Vec<(AppId, i8)>,
    /// When the next run may start that still has to wait.
    pub next: Option<Timestamp>,
}

/// Which runs to list, newest first.
#[derive(Clone, Debug)]
pub struct RunFilter {
    /// Of this project …
    pub project: ProjectId,
    /// … and this app, if given.
    pub app: Option<AppId>,
    /// Only asynchronous ones.
    pub async_only: bool,
    /// Only in this state.
    pub state: Option<RunState>,
    /// Only accepted then or later …
    pub since: Option<Timestamp>,
    /// … and before then.
    pub until: Option<Timestamp>,
    /// Only those that say this.
    pub search: Search,
    /// Only older than this run: the cursor of the next page.
    pub before: Option<RunId>,
    /// At most so many.
    pub limit: usize,
}

impl RunFilter {
    /// The newest runs of a project.
    pub fn of(project: ProjectId, limit: usize) -> Self {
        Self {
            project,
            app: None,
            async_only: false,
            state: None,
            since: None,
            until: None,
            search: Search::default(),
            before: None,
            limit,
        }
    }

    /// What the ids of its runs are not below …
    pub fn from(&self) -> Option<RunId> {
        self.since.map(RunId::lowest)
    }

    /// … and what they are below.
    pub fn below(&self) -> Option<RunId> {
        let until = self.until.map(RunId::lowest);
        self.before.into_iter().chain(until).min()
    }
}

/// A page of a list of runs.
#[derive(Clone, Debug, Default)]
pub struct RunList {
    /// Newest first.
    pub runs: Vec<RunView>,
    /// The last run that was looked at, when there are older ones to look at still: the cursor of the next page,
    /// whether this one is full or not.
    pub next: Option<RunId>,
    /// Runs that were looked at to find these.
    pub looked: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legal_moves_are_exactly_these() {
        use RunState::*;
        let moves = [
            RunMove::Claim,
            RunMove::Release,
            RunMove::End(Ending::Succeeded),
            RunMove::End(Ending::Failed),
            RunMove::End(Ending::Cancelled),
            RunMove::End(Ending::Expired),
        ];
        let legal: Vec<_> = RunState::ALL
            .into_iter()
            .flat_map(|state| moves.map(|wanted| (state, state.after(wanted))))
            .filter_map(|(state, after)| Some((state, after.ok()?)))
            .collect();
        assert_eq!(
            legal,
            [
                (Queued, Running),
                (Queued, Failed),
                (Queued, Cancelled),
                (Queued, Expired),
                (Running, Queued),
                (Running, Succeeded),
                (Running, Failed),
                (Running, Cancelled),
            ]
        );
    }

    #[test]
    fn a_receiver_is_the_origin_of_its_endpoints() {
        let receiver = |url| EndpointUrl::checked(url).receiver();
        assert_eq!(receiver("https://a.example/x?y").as_str(), "https://a.example");
        assert_eq!(receiver("https://a.example:443/z"), receiver("https://a.example/x"));
        assert_ne!(receiver("http://a.example/"), receiver("https://a.example/"));
    }

    #[test]
    fn a_plain_origin_is_what_taking_the_address_apart_gives() {
        let hosts = [
            "a.example",
            "a-b.c0.example",
            "localhost",
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "010.0.0.1",
            "1.2.3.4.5",
            "a.1",
            "a.1.",
            "a.0x1",
            "a.example.",
            "[::1]",
            "A.example",
            "u@a.example",
            "u:p@a.example",
            "",
            ".",
            "..",
            "xn--bcher-kva.example",
            "b\u{fc}cher.example",
            "a_b.example",
            "a%2eb",
            "a\\b",
            "a b",
            "1a.example",
        ];
        let ports =
            ["", ":", ":0", ":1", ":80", ":443", ":0443", ":8443", ":65535", ":65536", ":+80", ":x", ":8 0"];
        let rests = ["", "/", "/hook", "?q=//x", "#f", "/a@b:1", "\\x"];
        let mut plain = 0;
        for scheme in ["https://", "http://", "HTTPS://", "ftp://", "https:/", ""] {
            for (host, port, rest) in every(&hosts, &ports, &rests) {
                let url = format!("{scheme}{host}{port}{rest}");
                if let Some(origin) = plain_origin(&url) {
                    plain += 1;
                    let parsed = url::Url::parse(&url).map(|url| url.origin().ascii_serialization());
                    assert_eq!(parsed.as_deref(), Ok(origin), "{url}");
                }
            }
        }
        assert!(plain > 300, "{plain} of them are plain");
        assert_eq!(plain_origin("https://a.example:8443/hook"), Some("https://a.example:8443"));
    }

    fn every<'a>(
        hosts: &'a [&str],
        ports: &'a [&str],
        rests: &'a [&str],
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        let with_port = hosts.iter().flat_map(|host| ports.iter().map(move |port| (*host, *port)));
        with_port.flat_map(|(host, port)| rests.iter().map(move |rest| (host, port, *rest)))
    }
}
