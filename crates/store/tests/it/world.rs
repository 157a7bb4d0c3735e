//! A store in a world whose clock and chance the tests turn by hand.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use queue::delivery::{AttemptEnd, AttemptReport, DueDelivery, Timings, Verdict};
use queue::lease::Lease;
use queue::outcome::{Code, Finish, Finished, Outcome, RunError};
use queue::port::{Accepted, AppEvents, Claim, Deliveries, Inboxes, Logs, Registry, Room, Runs, Secrets};
use queue::registry::NewProject;
use queue::run::{EndpointUrl, Generation, LeasedRun, Mode, NewRun, RunOptions, RunView};
use queue::{AppId, Clock, Entropy, LeaseToken, ProjectId, RunId, Timestamp};

/// What a conformance test asks of an engine.
pub(crate) trait Engine: Runs + Deliveries + Registry + Secrets + Inboxes + Logs + AppEvents {}
impl<T: Runs + Deliveries + Registry + Secrets + Inboxes + Logs + AppEvents> Engine for T {}

/// Bounds small enough to be met by a test. Every engine under test is opened with these.
pub(crate) const QUEUED_MAX: u64 = 8;
pub(crate) const INBOX_REQUESTS_MAX: u64 = 5;
pub(crate) const INBOX_BYTES_MAX: u64 = 100;
pub(crate) const INLINE_RESULT_BYTES_MAX: usize = 1024;

/// A clock that moves when it is told to.
pub(crate) struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Chance without surprises: a sequence that does not repeat.
pub(crate) struct Sequence(AtomicU64);

impl Entropy for Sequence {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut mixed = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let length = chunk.len();
            chunk.copy_from_slice(&mixed.to_le_bytes()[..length]);
        }
    }
}

/// The time at which every world begins.
pub(crate) const BEGINNING: Timestamp = Timestamp::from_millis(1_769_860_800_000);

pub(crate) fn clock() -> Arc<HandClock> {
    Arc::new(HandClock(AtomicI64::new(BEGINNING.as_millis())))
}

pub(crate) fn entropy() -> Arc<Sequence> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    Arc::new(Sequence(AtomicU64::new(SEED.fetch_add(1 << 40, Ordering::SeqCst))))
}

/// What every attempt of [`World::end`] took.
pub(crate) const TIMINGS: Timings = Timings {
    reused_connection: true,
    dns: Some(Duration::from_micros(1)),
    connect: Some(Duration::from_micros(22)),
    tls: None,
    first_byte: Some(Duration::from_micros(1_111)),
};

/// A store, and all that is around it.
pub(crate) struct World<S> {
    pub(crate) store: S,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) entropy: Arc<Sequence>,
    /// What must live as long as the store.
    pub(crate) ground: Box<dyn Any + Send>,
}

/// An app of the project `p-1`.
pub(crate) fn app(name: &str) -> AppId {
    AppId::new(&project(1), &name.parse().unwrap())
}

pub(crate) fn project(number: u8) -> ProjectId {
    format!("p-{number}").parse().unwrap()
}

pub(crate) fn url(text: &str) -> EndpointUrl {
    EndpointUrl::checked(text)
}

/// As much room as anybody could want.
pub(crate) fn room() -> Room {
    Room { total: 100, per_receiver: 100, ..Room::default() }
}

impl<S: Engine> World<S> {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn run_id(&self) -> RunId {
        RunId::generate(self.now(), self.entropy.as_ref())
    }

    pub(crate) fn token(&self) -> LeaseToken {
        LeaseToken::generate(self.entropy.as_ref())
    }

    /// A run of `app` that tells `webhooks`, accepted a millisecond after the one before.
    pub(crate) fn new_run(&self, app: &AppId, webhooks: &[&str]) -> NewRun {
        self.pass(Duration::from_millis(1));
        NewRun {
            id: self.run_id(),
            app: app.clone(),
            function: "predict".into(),
            generation: Generation::V3,
            mode: Mode::Async,
            input: Bytes::from_static(br#"{"delayMins":0}"#),
            webhooks: webhooks.iter().map(|text| url(text)).collect(),
            limit: Duration::from_secs(900),
            accepted_at: self.now(),
            warning: None,
            options: RunOptions::default(),
        }
    }

    /// A run that waits in the queue.
    pub(crate) async fn queued(&self, app: &AppId, webhooks: &[&str]) -> RunId {
        let run = self.new_run(app, webhooks);
        let id = run.id;
        assert!(matches!(self.store.accept(run, Claim::Later).await.unwrap(), Accepted::Queued));
        id
    }

    /// A run that is executed.
    pub(crate) async fn leased(&self, app: &AppId, webhooks: &[&str]) -> Lease {
        let run = self.new_run(app, webhooks);
        match self.store.accept(run, Claim::Now(self.token())).await.unwrap() {
            Accepted::Leased(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn claim_one(&self, app: &AppId) -> LeasedRun {
        let mut runs = self.store.claim(app, 1, usize::MAX).await.unwrap();
        assert_eq!(runs.len(), 1);
        runs.remove(0)
    }

    pub(crate) fn success(&self) -> Outcome {
        let result = Bytes::from_static(br#"{"result": "Delayed for 0 mins"}"#);
        Outcome::succeeded(result, 200, 1.757, self.now())
    }

    pub(crate) fn failure(&self) -> Outcome {
        let error = RunError {
            code: Code::UserError,
            kind: "ValueError".into(),
            message: "no".into(),
            traceback: Some("line 1\nline 2".into()),
        };
        Outcome::failed(error, 0.1 + 0.2, self.now())
    }

    pub(crate) async fn finish(&self, lease: Lease, outcome: Outcome, first_attempts: &[bool]) -> Finished {
        let first_attempts = first_attempts.to_vec();
        self.store.finish(Finish { lease, outcome, first_attempts }).await.unwrap()
    }

    /// A run that succeeded, with no attempt to deliver it yet.
    pub(crate) async fn succeeded(&self, app: &AppId, webhooks: &[&str]) -> RunId {
        let lease = self.leased(app, webhooks).await;
        let finished = self.finish(lease, self.success(), &[]).await;
        assert!(matches!(finished, Finished::Recorded(due) if due.is_empty()));
        lease.run
    }

    pub(crate) async fn view(&self, run: RunId) -> RunView {
        self.store.run(&project(1), run).await.unwrap().expect("the run is there")
    }

    pub(crate) async fn begin(&self) -> Vec<DueDelivery> {
        self.store.begin(self.now(), room()).await.unwrap()
    }

    pub(crate) fn end(&self, due: &DueDelivery, verdict: Verdict, status_code: u16) {
        let reason = (!(200..300).contains(&status_code)).then(|| "http_status".to_owned());
        let report = AttemptReport {
            status_code: Some(status_code),
            reason,
            response: Some("said the receiver".into()),
            duration: Duration::from_micros(1_234),
            timings: TIMINGS,
            thin: due.thin,
        };
        let (id, url, attempt) = (due.id, due.url.clone(), due.attempt);
        let project = Some(due.project.clone());
        self.store.complete(AttemptEnd { id, project, url, attempt, ended_at: self.now(), verdict, report });
    }

    /// Returns when all that was noted without waiting is visible.
    pub(crate) async fn settled(&self) {
        self.store.backlog().await.unwrap();
    }

    pub(crate) fn new_project(&self, number: u8) -> NewProject {
        NewProject {
            id: project(number),
            public_key_hash: [number; 32],
            private_key_hash: [100 + number; 32],
            webhook_secret: format!("whsec_{number}"),
            token_secret: vec![number; 32],
            created_at: self.now(),
        }
    }
}

/// Runs until `check` says yes; nothing is waited for longer than ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut check: impl FnMut() -> F) {
    let patience = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), patience).await.expect("what was waited for never came");
}
