//! A test event: a webhook that somebody asks for to see whether a receiver takes it.
//!
//! It is the end of a run that nobody executed, of an app that nobody can deploy: kept, signed, sent, shown and
//! delivered once more like every other, but tried once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Entropy, Timestamp};
use crate::id::{AppId, LeaseToken, ProjectId, RunId};
use crate::outcome::{Finish, Outcome};
use crate::port::{Accepted, Claim, Outbox, Runs, StoreError, Stored};
use crate::run::{EndpointUrl, Generation, Mode, NewRun, RunOptions};
use crate::webhook::{Metadata, Schedule};

/// The name of the app whose runs test events are; reserved.
pub const TEST_APP: &str = "webhook-test";
/// What receivers are told.
const RESULT: &[u8] = br#"{"test":true,"message":"This is a test event from postback: nothing ran."}"#;
const METADATA: &str = r#"{"test":true}"#;
/// Nobody executes the run, so it ends at once.
const LIMIT: Duration = Duration::from_secs(60);

/// Has an endpoint told a test event. Returns the run whose delivery it is, once that is durable and due.
///
/// # Errors
/// When the store refuses.
pub async fn send(
    runs: &dyn Runs,
    outbox: &dyn Outbox,
    project: &ProjectId,
    url: EndpointUrl,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Stored<RunId> {
    let run = new_run(project, url, now, entropy);
    let id = run.id;
    let lease = match runs.accept(run, Claim::Now(LeaseToken::generate(entropy))).await? {
        Accepted::Leased(lease) => lease,
        other => return Err(StoreError::Unavailable(format!("a test event was not taken: {other:?}"))),
    };
    let outcome = Outcome::succeeded(Bytes::from_static(RESULT), 200, 0.0, now);
    runs.finish(Finish { lease, outcome, first_attempts: vec![false] }).await?;
    outbox.wake();
    Ok(id)
}

fn new_run(project: &ProjectId, url: EndpointUrl, now: Timestamp, entropy: &dyn Entropy) -> NewRun {
    let name = TEST_APP.parse().expect("the name is one of an app");
    NewRun {
        id: RunId::generate(now, entropy),
        app: AppId::new(project, &name),
        function: Arc::from("test"),
        generation: Generation::V4,
        mode: Mode::Async,
        input: Bytes::from_static(b"{}"),
        webhooks: vec![url],
        limit: LIMIT,
        accepted_at: now,
        warning: None,
        options: RunOptions {
            // A crash between the two writes leaves a run that must not wait for a replica of no app.
            max_attempts: Some(1),
            start_by: Some(now.plus(LIMIT)),
            schedule: Some(Schedule::parse([]).expect("no steps are a schedule")),
            metadata: Some(Metadata::stored(METADATA)),
            ..RunOptions::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Entropy for Zeros {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    #[test]
    fn what_it_is_made_of_is_valid() {
        let project: ProjectId = "p-11111111".parse().unwrap();
        let url = EndpointUrl::checked("https://a.example/");
        let run = new_run(&project, url, Timestamp::from_millis(0), &Zeros);
        assert_eq!(run.app.as_str(), "p-11111111-webhook-test");
        assert_eq!(run.options.schedule.unwrap().waits(), [Duration::ZERO], "one attempt");
        assert!(Metadata::parse(METADATA).is_ok());
        assert!(serde_json::from_slice::<serde_json::Value>(RESULT).is_ok());
    }
}
