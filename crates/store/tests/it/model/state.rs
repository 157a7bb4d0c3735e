//! The model: what the ports promise about runs, kept in a few maps, and what each answer must be.
//!
//! It is written against the port, not against the engine: where the port leaves a choice (the token of a
//! lease, the jitter of a retry, the words of an error of the store's own), the model checks that the
//! choice is allowed and goes on with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use queue::lease::{AttemptView, Lease, Release, Released};
use queue::outcome::{Cancellation, Code, Expired, Finish, Finished, Outcome, RunError};
use queue::port::{Accepted, Claim};
use queue::progress::Progress;
use queue::run::{CallRecord, LeasedRun, NewRun, Ready, Receiver, RunState};
use queue::webhook::Event;
use queue::{AppId, ProjectId, RunId, Timestamp, limits, rerun};

use super::deliveries::{Delivery, Endpoint};
use crate::world::QUEUED_MAX;

/// Why what was seen is not what must be.
pub(super) type Mismatch = String;

/// Says what was seen and what was expected when they differ.
pub(super) fn same<T: PartialEq + Debug>(what: &str, seen: &T, wanted: &T) -> Result<(), Mismatch> {
    if seen == wanted { Ok(()) } else { Err(format!("{what}: seen {seen:?}, wanted {wanted:?}")) }
}

/// All that the store knows, as far as the ports tell.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) runs: BTreeMap<RunId, Run>,
    /// Runs that were there and went with age: whose they were, and when, as long as that is remembered.
    pub(super) removed: HashMap<RunId, (ProjectId, Option<Timestamp>)>,
    /// Runs by app, function and key, with their fingerprints.
    keys: HashMap<(AppId, String, String), (RunId, [u8; 32])>,
    registered: HashSet<AppId>,
    /// Since when.
    deleted: HashMap<AppId, Timestamp>,
    pub(super) endpoints: BTreeMap<(ProjectId, String), Endpoint>,
    /// Receivers that were passed over for want of room, each with those that were served since.
    pub(super) waiting: HashMap<Receiver, HashSet<Receiver>>,
}

/// One run.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) given: NewRun,
    pub(super) state: RunState,
    pub(super) lease: Option<Lease>,
    pub(super) with_replica: bool,
    pub(super) crashes: u32,
    pub(super) losses: u32,
    /// Failures after which it was to be executed again.
    pub(super) failures: u32,
    /// Attempts that may have been executed.
    pub(super) executions: u32,
    pub(super) cancel_asked: bool,
    pub(super) start_by: Option<Timestamp>,
    /// It may not be claimed before its time has come and somebody has asked.
    pub(super) delayed: bool,
    /// That time: not before the first, not after the second. They differ until the store has said which
    /// moment it chose.
    pub(super) not_before: Option<(Timestamp, Timestamp)>,
    pub(super) attempts: Vec<AttemptView>,
    pub(super) outcome: Option<Outcome>,
    /// The store ended it by itself, and its words are not known yet.
    pub(super) words_open: bool,
    /// What it told on its way, by number.
    pub(super) told: BTreeMap<u32, Progress>,
    /// By what they tell, 0 for the outcome, and by endpoint.
    pub(super) deliveries: BTreeMap<(u32, u16), Delivery>,
}

impl Run {
    fn new(given: NewRun, state: RunState) -> Self {
        let not_before = given.options.not_before.map(|at| (at, at));
        Self {
            state,
            lease: None,
            with_replica: false,
            crashes: 0,
            losses: 0,
            failures: 0,
            executions: 0,
            cancel_asked: false,
            start_by: given.options.start_by,
            delayed: not_before.is_some(),
            not_before,
            attempts: Vec::new(),
            outcome: None,
            words_open: false,
            told: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            given,
        }
    }

    /// It may not be executed again.
    fn is_used_up(&self) -> bool {
        self.given.options.max_attempts.is_some_and(|max| self.executions >= max)
    }

    pub(super) fn project(&self) -> ProjectId {
        self.given.app.project()
    }

    /// The deliveries of its outcome.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter().filter(|((event, _), _)| *event == 0).map(|(_, delivery)| delivery)
    }

    fn begin_attempt(&mut self, lease: Lease, now: Timestamp) {
        self.state = RunState::Running;
        self.lease = Some(lease);
        self.with_replica = false;
        self.attempts.push(AttemptView {
            number: lease.attempt,
            started_at: now,
            ended_at: None,
            end: None,
            error: None,
        });
    }
}

impl Model {
    pub(super) fn is_current(&self, lease: &Lease) -> bool {
        self.runs.get(&lease.run).is_some_and(|run| run.lease.is_some_and(|own| own.token == lease.token))
    }

    /// In the order in which they are claimed.
    fn queued(&self, app: &AppId) -> Vec<&Run> {
        let waits = |run: &&Run| run.state == RunState::Queued && run.given.app == *app;
        let mut queued: Vec<_> = self.runs.values().filter(waits).collect();
        queued.sort_by_key(|run| {
            (std::cmp::Reverse(run.given.options.priority), run.given.accepted_at, run.given.id)
        });
        queued
    }

    pub(super) fn backlog(&self) -> BTreeMap<AppId, u64> {
        let mut backlog = BTreeMap::new();
        for run in self.runs.values().filter(|run| run.state == RunState::Queued && !run.delayed) {
            *backlog.entry(run.given.app.clone()).or_default() += 1;
        }
        backlog
    }

    pub(super) fn accept(
        &mut self,
        new: &NewRun,
        claim: Claim,
        answer: &Accepted,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let key = new.options.idempotency.as_ref().map(|idempotency| {
            let key = (new.app.clone(), new.function.to_string(), idempotency.key.to_string());
            (key, idempotency.fingerprint)
        });
        if let Some((known, fingerprint)) = key.as_ref().and_then(|(key, _)| self.keys.get(key)) {
            let is_same = key.as_ref().is_some_and(|(_, own)| own == fingerprint);
            return match answer {
                Accepted::Replayed(run) if is_same && run == known => Ok(()),
                Accepted::KeyTaken(run) if !is_same && run == known => Ok(()),
                _ => Err(format!("a key that stands for {known} was answered with {answer:?}")),
            };
        }
        let deleted = self.deleted.contains_key(&new.app);
        let token = match claim {
            Claim::Now(token) if !deleted && new.options.not_before.is_none() => Some(token),
            _ => None,
        };
        if token.is_none() && self.queued(&new.app).len() as u64 >= QUEUED_MAX {
            return match answer {
                Accepted::QueueFull => Ok(()),
                _ => Err(format!("a run beyond the bound of its queue was answered with {answer:?}")),
            };
        }
        let mut run = Run::new(new.clone(), RunState::Queued);
        match (token, answer) {
            (None, Accepted::Queued) => {}
            (Some(token), Accepted::Leased(lease)) => {
                same("the lease of an accepted run", lease, &Lease { run: new.id, token, attempt: 1 })?;
                run.begin_attempt(*lease, now);
            }
            _ => return Err(format!("a new run was answered with {answer:?}")),
        }
        if let Some((key, fingerprint)) = key {
            self.keys.insert(key, (new.id, fingerprint));
        }
        self.runs.insert(new.id, run);
        if deleted {
            self.end_by_itself(new.id, Code::Cancelled, now);
        }
        Ok(())
    }

    pub(super) fn claim(
        &mut self,
        app: &AppId,
        max: usize,
        bytes_max: usize,
        claimed: &[LeasedRun],
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        if !self.deleted.contains_key(app) {
            for run in self.queued(app).into_iter().filter(|run| !run.delayed).take(max) {
                if !wanted.is_empty() {
                    bytes += run.given.input.len();
                    if bytes > bytes_max {
                        break;
                    }
                }
                wanted.push(run.given.id);
            }
        }
        let seen: Vec<_> = claimed.iter().map(|leased| leased.lease.run).collect();
        same("the runs of a claim", &seen, &wanted)?;
        for leased in claimed {
            let taken =
                self.runs.values().filter_map(|run| run.lease).any(|own| own.token == leased.lease.token);
            if taken {
                return Err(format!("the token of {:?} is another run's as well", leased.lease));
            }
            let run = self.runs.get_mut(&leased.lease.run).ok_or("a claimed run is unknown")?;
            let given = &run.given;
            let attempts = u32::try_from(run.attempts.len()).unwrap_or(u32::MAX);
            same("the attempt", &leased.lease.attempt, &(attempts + 1))?;
            same("the app", &leased.app, &given.app)?;
            same("the function", &leased.function, &given.function)?;
            same("the generation", &leased.generation, &given.generation)?;
            same("the input", &leased.input, &given.input)?;
            same("the webhooks", &leased.webhooks, &given.webhooks)?;
            same("the limit", &leased.limit, &given.limit)?;
            same("the time of acceptance", &leased.accepted_at, &given.accepted_at)?;
            same("the crashes", &leased.crashes, &run.crashes)?;
            same("the priority", &leased.priority, &given.options.priority)?;
            same("the events", &leased.events, &given.options.events)?;
            same("the retries", &leased.retry, &given.options.retry)?;
            same("the failures", &leased.failures, &run.failures)?;
            let last = given.options.max_attempts.is_some_and(|max| run.executions + 1 >= max);
            same("whether it is the last attempt", &leased.last_attempt, &last)?;
            run.begin_attempt(leased.lease, now);
        }
        Ok(())
    }

    pub(super) fn started(&mut self, leases: &[Lease]) {
        for lease in leases {
            if self.is_current(lease)
                && let Some(run) = self.runs.get_mut(&lease.run)
            {
                run.with_replica = true;
                run.start_by = None;
            }
        }
    }

    pub(super) fn finish(
        &mut self,
        finish: &Finish,
        answer: &Finished,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        match (self.is_current(&finish.lease), answer) {
            (false, Finished::Stale) => Ok(()),
            (true, Finished::Recorded(due)) => {
                self.end(finish.lease.run, finish.outcome.clone(), &finish.first_attempts, now);
                self.first_attempts(finish, due)
            }
            (current, _) => Err(format!("a finish (current lease: {current}) was answered with {answer:?}")),
        }
    }

    pub(super) fn release(
        &mut self,
        lease: &Lease,
        release: Release,
        answer: &Released,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let wanted =
            if self.is_current(lease) { self.requeue(lease.run, release, now) } else { Released::Stale };
        same("the answer to a release", answer, &wanted)
    }

    /// The attempt failed and another one is wanted, after a pause.
    pub(super) fn retry(
        &mut self,
        lease: &Lease,
        error: &RunError,
        answer: &Released,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        if !self.is_current(lease) {
            return same("the answer to a retry", answer, &Released::Stale);
        }
        let run = self.runs.get_mut(&lease.run).ok_or("a leased run is there")?;
        if let Some(attempt) = run.attempts.last_mut() {
            attempt.ended_at = Some(now);
            attempt.end = Some(error.code.as_str().to_owned());
            attempt.error = Some(error.clone());
        }
        run.failures += 1;
        run.executions += 1;
        run.start_by = None;
        run.lease = None;
        run.state = RunState::Queued;
        if run.cancel_asked || self.deleted.contains_key(&run.given.app) {
            self.end_by_itself(lease.run, Code::Cancelled, now);
            return same("the answer to a retry", answer, &Released::Ended(Code::Cancelled));
        }
        if run.is_used_up() {
            self.end_by_itself(lease.run, error.code, now);
            return same("the answer to a retry", answer, &Released::Ended(error.code));
        }
        run.delayed = true;
        let after = |chance| now.plus(rerun::pause(run.failures, chance));
        run.not_before = Some((after(0.0), after(1.0)));
        same("the answer to a retry", answer, &Released::Queued)
    }

    /// The attempt is over; what becomes of the run depends on what it has been through.
    fn requeue(&mut self, id: RunId, release: Release, now: Timestamp) -> Released {
        let deleted = self.runs.get(&id).is_some_and(|run| self.deleted.contains_key(&run.given.app));
        let Some(run) = self.runs.get_mut(&id) else { return Released::Stale };
        if let Some(attempt) = run.attempts.last_mut() {
            attempt.ended_at = Some(now);
            attempt.end = Some(release.as_str().to_owned());
        }
        run.crashes += u32::from(release.is_death());
        run.executions += u32::from(release != Release::Drained);
        run.losses += u32::from(release == Release::ServerLost && run.with_replica);
        if run.with_replica || release.is_death() || release == Release::CutShort {
            run.start_by = None;
        }
        run.lease = None;
        run.state = RunState::Queued;
        let code = if run.cancel_asked {
            Code::Cancelled
        } else if run.crashes >= limits::CRASHES_MAX {
            Code::CrashLoop
        } else if run.losses >= limits::SERVER_LOSSES_MAX {
            Code::Interrupted
        } else if deleted {
            Code::Cancelled
        } else if run.is_used_up() {
            if release.is_death() { Code::WorkerCrashed } else { Code::Interrupted }
        } else if run.start_by.is_some_and(|start_by| start_by <= now) {
            Code::Expired
        } else {
            return Released::Queued;
        };
        self.end_by_itself(id, code, now);
        Released::Ended(code)
    }

    pub(super) fn cancel(
        &mut self,
        project: &ProjectId,
        id: RunId,
        answer: Cancellation,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let wanted = match self.runs.get_mut(&id).filter(|run| run.project() == *project) {
            None => Cancellation::Unknown,
            Some(run) => match run.state {
                RunState::Queued => Cancellation::Done,
                RunState::Running => {
                    run.cancel_asked = true;
                    Cancellation::Asked
                }
                ended => Cancellation::TooLate(ended),
            },
        };
        if wanted == Cancellation::Done {
            self.end_by_itself(id, Code::Cancelled, now);
        }
        same("the answer to a cancellation", &answer, &wanted)
    }

    pub(super) fn expire(&mut self, at: Timestamp, answer: &Expired, now: Timestamp) -> Result<(), Mismatch> {
        let (mut over, mut leased) = (Vec::new(), HashSet::new());
        for run in self.runs.values_mut().filter(|run| run.start_by.is_some_and(|start_by| start_by <= at)) {
            match run.state {
                RunState::Running => {
                    leased.insert((run.given.app.clone(), run.given.id));
                }
                state => {
                    run.start_by = None;
                    over.extend((state == RunState::Queued).then_some(run.given.id));
                }
            }
        }
        same("runs that expired", &answer.ended, &(over.len() as u64))?;
        same("leased runs past their time", &answer.leased.iter().cloned().collect(), &leased)?;
        over.into_iter().for_each(|id| self.end_by_itself(id, Code::Expired, now));
        Ok(())
    }

    pub(super) fn ready(&mut self, answer: &Ready, now: Timestamp) -> Result<(), Mismatch> {
        let (mut apps, mut next) = (BTreeMap::new(), None::<(Timestamp, Timestamp)>);
        for run in self.runs.values_mut().filter(|run| run.delayed && run.state == RunState::Queued) {
            let Some((first, last)) = run.not_before else { continue };
            if last <= now {
                run.delayed = false;
                let priority = run.given.options.priority;
                let highest = apps.entry(run.given.app.clone()).or_insert(priority);
                *highest = priority.max(*highest);
            } else {
                next = Some(next.map_or((first, last), |next| (next.0.min(first), next.1.min(last))));
            }
        }
        same("the apps that have runs to start", &answer.apps.iter().cloned().collect(), &apps)?;
        let fits = answer.next.zip(next).map(|(at, (first, last))| (first..=last).contains(&at));
        if answer.next.is_some() != next.is_some() || fits == Some(false) {
            return Err(format!("when the next run may start: seen {:?}, wanted {next:?}", answer.next));
        }
        Ok(())
    }

    pub(super) fn record_call(&mut self, call: &CallRecord, given: NewRun) {
        let outcome = Outcome {
            ending: call.ending,
            result: None,
            error: call.error.clone(),
            status_code: call.status_code,
            run_time_ms: call.run_time_ms,
            ended_at: call.ended_at,
            build: call.build.clone(),
        };
        let end = end_code(&outcome);
        let attempt = |started_at| AttemptView {
            number: 1,
            started_at,
            ended_at: Some(call.ended_at),
            end: Some(end.clone()),
            error: None,
        };
        let run = Run {
            attempts: call.started_at.map(attempt).into_iter().collect(),
            outcome: Some(outcome),
            ..Run::new(given, call.ending.state())
        };
        self.runs.insert(call.id, run);
    }

    pub(super) fn register(&mut self, app: &AppId) {
        self.registered.insert(app.clone());
        self.deleted.remove(app);
    }

    pub(super) fn delete_app(&mut self, app: &AppId, answer: bool, now: Timestamp) -> Result<(), Mismatch> {
        same("whether the app was there", &answer, &self.registered.remove(app))?;
        if answer {
            self.deleted.insert(app.clone(), now);
            let queued: Vec<_> = self.queued(app).iter().map(|run| run.given.id).collect();
            queued.into_iter().for_each(|id| self.end_by_itself(id, Code::Cancelled, now));
        }
        Ok(())
    }

    /// A start finds what a former process left.
    pub(super) fn restart(&mut self, now: Timestamp) {
        let leased: Vec<_> = self.runs.values().filter_map(|run| run.lease).collect();
        for lease in leased {
            self.requeue(lease.run, Release::ServerLost, now);
        }
        self.lose_attempts(now);
        self.waiting.clear();
    }

    pub(super) fn prune(&mut self, now: Timestamp) -> u64 {
        let before = |age: std::time::Duration| {
            Timestamp::from_millis(now.as_millis() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
        };
        let (old, undelivered) = (before(limits::RESULT_RETENTION), before(30 * super::DAY));
        let goes = |run: &Run| {
            run.outcome.as_ref().is_some_and(|outcome| {
                let keeps = |delivery: &Delivery| delivery.keeps_run(outcome.ended_at, old, undelivered);
                outcome.ended_at < old && !run.outcomes().any(keeps)
            })
        };
        let gone = self.runs.values().filter(|run| goes(run)).map(|run| (run.given.id, run.project()));
        let gone: HashMap<_, _> = gone.collect();
        self.runs.retain(|id, _| !gone.contains_key(id));
        self.keys.retain(|_, (run, _)| !gone.contains_key(run));
        // An app that is gone is forgotten with its last run, and no sooner than that would have been.
        let spoken_of: HashSet<_> = self.runs.values().map(|run| run.given.app.clone()).collect();
        self.deleted.retain(|app, at| spoken_of.contains(app) || *at >= old);
        for endpoint in self.endpoints.values_mut() {
            endpoint.failing = endpoint.failing.take().filter(|failing| failing.last >= undelivered);
        }
        let count = gone.len() as u64;
        self.removed.extend(gone.into_iter().map(|(id, owner)| (id, (owner, Some(now)))));
        let remembered = before(limits::REMOVED_RUNS_REMEMBERED);
        for (_, at) in self.removed.values_mut() {
            *at = at.filter(|at| *at >= remembered);
        }
        count
    }

    /// The store ends a run for reasons of its own, and chooses the words.
    fn end_by_itself(&mut self, id: RunId, code: Code, now: Timestamp) {
        self.end(id, Outcome::failed(RunError::new(code, ""), 0.0, now), &[], now);
        if let Some(run) = self.runs.get_mut(&id) {
            run.words_open = true;
        }
    }

    fn end(&mut self, id: RunId, outcome: Outcome, first_attempts: &[bool], now: Timestamp) {
        let disabled = self.disabled();
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.state = outcome.ending.state();
        run.lease = None;
        if let Some(attempt) = run.attempts.last_mut().filter(|attempt| attempt.end.is_none()) {
            attempt.ended_at = Some(outcome.ended_at);
            attempt.end = Some(end_code(&outcome));
        }
        let project = run.project();
        let is_told = run.given.options.events.has(Event::Completed);
        for (index, url) in (0..).zip(run.given.webhooks.iter().filter(|_| is_told)) {
            let waits = disabled.contains(&(project.clone(), url.as_str().to_owned()));
            let first = first_attempts.get(usize::from(index)).copied().unwrap_or(false);
            let delivery = Delivery::new(url.clone(), outcome.ended_at, waits, first, now);
            run.deliveries.insert((0, index), delivery);
        }
        run.outcome = Some(outcome);
    }
}

/// The end code of the attempt that brought this outcome.
fn end_code(outcome: &Outcome) -> String {
    let code = outcome.error.as_ref().map(|error| error.code.as_str());
    code.unwrap_or(outcome.ending.state().as_str()).to_owned()
}
