//! Runs for tests, as the store would tell of them.

use std::time::Duration;

use queue::delivery::{AttemptReport, DeliveryAttemptView, DeliveryState, DeliveryView, Timings};
use queue::lease::AttemptView;
use queue::outcome::{Code, RunError};
use queue::run::{EndpointUrl, Generation, Mode, RunState, RunView};
use queue::webhook::{Event, EventFilter};
use queue::{DeliveryId, RunId, Timestamp};

const HOOK: &str = "https://receiver.example/hook";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// An asynchronous run in this state.
pub(crate) fn run(state: RunState) -> RunView {
    RunView {
        id: RunId::from_bytes([7; 16]),
        app: "p-11111111-demo".parse().unwrap(),
        function: "predict".into(),
        generation: Generation::V4,
        mode: Mode::Async,
        state,
        error: None,
        status_code: None,
        run_time_ms: None,
        accepted_at: at(1_000),
        priority: 0,
        not_before: None,
        retry: None,
        max_attempts: None,
        started_at: None,
        ended_at: None,
        build: None,
        webhooks: vec![EndpointUrl::checked(HOOK)],
        events: EventFilter::default(),
        schedule: None,
        webhook_headers: Vec::new(),
        metadata: None,
        warning: None,
        attempts: Vec::new(),
        deliveries: Vec::new(),
        result: None,
    }
}

fn attempt(number: u32, started: i64, ended: i64, end: &str) -> AttemptView {
    AttemptView {
        number,
        started_at: at(started),
        ended_at: Some(at(ended)),
        end: Some(end.into()),
        error: None,
    }
}

fn told(number: u32, started: i64, status: u16, reason: Option<&str>) -> DeliveryAttemptView {
    DeliveryAttemptView {
        number,
        started_at: at(started),
        ended_at: Some(at(started + 20)),
        report: Some(AttemptReport {
            status_code: Some(status),
            reason: reason.map(str::to_owned),
            response: Some("busy <script>alert(1)</script>".into()),
            duration: Duration::from_millis(20),
            timings: Timings { dns: Some(Duration::from_millis(3)), ..Timings::default() },
            thin: false,
        }),
    }
}

/// Succeeded, and told at the second attempt.
pub(crate) fn delivered() -> RunView {
    let mut run = run(RunState::Succeeded);
    run.started_at = Some(at(1_002));
    run.ended_at = Some(at(1_500));
    run.status_code = Some(200);
    run.run_time_ms = Some(497.0);
    run.attempts = vec![attempt(1, 1_002, 1_500, "succeeded")];
    run.deliveries = vec![DeliveryView {
        id: DeliveryId::outcome(run.id, 0).webhook_id(),
        run_id: run.id,
        event: Event::Completed,
        url: EndpointUrl::checked(HOOK),
        state: DeliveryState::Delivered,
        next_attempt_at: None,
        attempts: vec![told(1, 1_501, 503, Some("http_status")), told(2, 6_600, 200, None)],
    }];
    run.result = Some(bytes::Bytes::from_static(br#"{"answer":"</pre><script>alert(1)</script>"}"#));
    run
}

/// Its replica died once; the second attempt succeeded.
pub(crate) fn crashed_once() -> RunView {
    let mut run = run(RunState::Succeeded);
    run.attempts = vec![attempt(1, 1_002, 1_100, "worker_crashed"), attempt(2, 1_200, 1_300, "succeeded")];
    run.ended_at = Some(at(1_300));
    run
}

/// The model's code raised an error.
pub(crate) fn failed() -> RunView {
    let mut run = run(RunState::Failed);
    run.attempts = vec![attempt(1, 1_002, 1_010, "user_error")];
    run.ended_at = Some(at(1_010));
    run.error = Some(RunError {
        code: Code::UserError,
        kind: "ValueError".into(),
        message: "<img src=x onerror=alert(1)>".into(),
        traceback: Some("Traceback (most recent call last):\n  File \"main.py\", line 3".into()),
    });
    run
}
