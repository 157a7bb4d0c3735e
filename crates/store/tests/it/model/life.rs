//! One life of a store: steps are made, and after each of them everything that the ports show is held
//! against the model.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use queue::delivery::{AttemptEnd, AttemptReport, DeliveryState, DueDelivery, Endpoints, Verdict};
use queue::lease::Lease;
use queue::outcome::{Code, Ending, Finish, Outcome, RunError};
use queue::port::{Claim, Registry as _, Room};
use queue::progress::Progress;
use queue::rerun::RetryPolicy;
use queue::run::{CallRecord, Idempotency, Mode, NewRun};
use queue::signature::CallerSecret;
use queue::webhook::{Event, EventFilter, Metadata, WebhookHeaders};
use queue::{AppId, BuildId, DeliveryId, RunId, retry};

use super::calls::{Call, body};
use super::laws::Laws;
use super::observe::Seen;
use super::state::{Mismatch, Model, Run};
use super::steps::{APPS, EVENTS, FUNCTIONS, Held, How, NewCall, Pick, Said, Step, URLS};
use super::{DAY, Rig};
use crate::world::{INLINE_RESULT_BYTES_MAX, World, project, url};

/// The lists are looked at after every step; each run on its own, with all its attempts, deliveries and
/// its result, after every so many.
const FULL_LOOK_EVERY: usize = 4;

/// A store, its model, and what was heard of it.
pub(super) struct Life<R: Rig> {
    world: Option<World<R::Store>>,
    model: Model,
    laws: Laws,
    /// Every lease that was ever given.
    leases: Vec<Lease>,
    /// Every attempt that was ever to be made.
    attempts: Vec<Made>,
}

/// An attempt that somebody has in hand.
#[derive(Clone, Copy)]
struct Made {
    id: DeliveryId,
    attempt: u32,
    /// Of the schedule.
    step: u32,
    thin: bool,
}

impl<R: Rig> Life<R> {
    /// Lives through the steps, and then brings everything to its end.
    pub(super) async fn live(steps: &[Step]) -> Result<(), Mismatch> {
        let (world, laws) = (Some(R::fresh()), Laws::default());
        let mut life =
            Self { world, model: Model::default(), laws, leases: Vec::new(), attempts: Vec::new() };
        for number in [1, 2] {
            let new = life.world().new_project(number);
            life.world().store.create_project(new).await.unwrap();
        }
        for (number, step) in steps.iter().enumerate() {
            life.step(step, number % FULL_LOOK_EVERY == 0)
                .await
                .map_err(|why| format!("after step {number}, {step:?}: {why}"))?;
        }
        life.end().await.map_err(|why| format!("at the end: {why}"))?;
        R::close(life.world.take().expect("a life has its world")).await;
        Ok(())
    }

    fn world(&self) -> &World<R::Store> {
        self.world.as_ref().expect("a life has its world")
    }

    async fn step(&mut self, step: &Step, look_in_full: bool) -> Result<(), Mismatch> {
        match step {
            Step::Pass(time) => self.world().pass(*time),
            Step::Together(steps) => {
                let calls: Vec<_> = steps.iter().filter_map(|step| self.resolve(step)).collect();
                self.together(calls).await?;
            }
            Step::Kill => self.reopen(true).await,
            Step::Close => self.reopen(false).await,
            Step::Prune => self.prune().await?,
            step => {
                let call = self.resolve(step);
                self.together(call.into_iter().collect()).await?;
            }
        }
        self.compare(look_in_full).await
    }

    /// Makes the calls at once. Some order of them must explain the answers, and what is seen after.
    async fn together(&mut self, calls: Vec<Call>) -> Result<(), Mismatch> {
        let now = self.world().now();
        let store = &self.world().store;
        let answers = join_all(calls.iter().cloned().map(|call| call.make(store))).await;
        for (call, answer) in calls.iter().zip(&answers) {
            self.laws.hear(call, answer)?;
            self.leases.extend(answer.leases());
            let made =
                |due: &DueDelivery| Made { id: due.id, attempt: due.attempt, step: due.step, thin: due.thin };
            self.attempts.extend(answer.due().iter().map(made));
        }
        let mut why = None;
        for order in orders(calls.len()) {
            let mut model = self.model.clone();
            let explained = order.iter().try_for_each(|at| model.explain(&calls[*at], &answers[*at], now));
            let explained = match explained {
                Ok(()) if calls.len() > 1 => {
                    let seen = Seen::look(&self.world().store, &model, true).await;
                    model.clone().compare(&seen)
                }
                explained => explained,
            };
            match explained {
                Ok(()) => {
                    self.model = model;
                    return Ok(());
                }
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        match why {
            None => Ok(()),
            Some(why) => Err(format!("{why}\n  calls: {calls:?}\n  answers: {answers:?}")),
        }
    }

    async fn compare(&mut self, in_full: bool) -> Result<(), Mismatch> {
        let seen = Seen::look(&self.world().store, &self.model, in_full).await;
        self.laws.check(&seen)?;
        self.model.compare(&seen)
    }

    async fn reopen(&mut self, killed: bool) {
        let world = self.world.take().expect("a life has its world");
        self.world = Some(if killed { R::killed(world).await } else { R::reopened(world).await });
        self.model.restart(self.world().now());
    }

    async fn prune(&mut self) -> Result<(), Mismatch> {
        let now = self.world().now();
        let removed = R::prune(self.world()).await;
        let wanted = self.model.prune(now);
        self.laws.forget(|run| self.model.removed.contains_key(run));
        super::state::same("how many runs go with age", &removed, &wanted)
    }

    /// What was promised comes true: every run ends, and every delivery arrives.
    async fn end(&mut self) -> Result<(), Mismatch> {
        for at in 0..URLS.len() {
            for project in [1, 2] {
                let step = Step::Enable { project, url: at };
                self.together(self.resolve(&step).into_iter().collect()).await?;
            }
        }
        self.world().pass(40 * DAY);
        self.together(vec![Call::Ready(self.world().now())]).await?;
        for (at, _) in APPS.iter().enumerate() {
            let claim = Step::Claim { app: at, max: usize::MAX, bytes_max: usize::MAX };
            self.together(self.resolve(&claim).into_iter().collect()).await?;
        }
        for lease in self.current() {
            let outcome = Outcome::succeeded(body(9), 200, 1.5, self.world().now());
            let finish = Finish { lease, outcome, first_attempts: Vec::new() };
            self.together(vec![Call::Finish(finish)]).await?;
        }
        for _ in 0..2 {
            for made in self.under_way() {
                self.together(vec![self.completion(made, Said::Fine)]).await?;
            }
            self.compare(true).await?;
            let room = Room { total: 1_000, per_receiver: 1_000, ..Room::default() };
            self.together(vec![Call::Begin(self.world().now(), room)]).await?;
        }
        self.compare(true).await?;
        for run in self.model.runs.values() {
            let told = |state| matches!(state, DeliveryState::Delivered | DeliveryState::Exhausted);
            let all_told = run.deliveries.values().all(|delivery| told(delivery.state));
            if !run.state.is_terminal() || !all_told {
                return Err(format!("run {} is {} with {:?}", run.given.id, run.state, run.deliveries));
            }
        }
        Ok(())
    }

    fn current(&self) -> Vec<Lease> {
        self.model.runs.values().filter_map(|run| run.lease).collect()
    }

    fn under_way(&self) -> Vec<Made> {
        let sending = |made: &&Made| {
            self.model.delivery(made.id).is_some_and(|(_, own)| {
                own.state == DeliveryState::Sending && own.attempts.len() == made.attempt as usize
            })
        };
        self.attempts.iter().filter(sending).copied().collect()
    }

    /// The step as a call; `None` when it names nothing that is there.
    fn resolve(&self, step: &Step) -> Option<Call> {
        let now = self.world().now();
        Some(match step {
            Step::Accept(new) => {
                let claim = if new.now { Claim::Now(self.world().token()) } else { Claim::Later };
                Call::Accept(self.new_run(new), claim)
            }
            Step::Claim { app, max, bytes_max } => Call::Claim(app_id(*app), *max, *bytes_max),
            Step::Started { lease } => Call::Started(vec![self.lease(lease)?]),
            Step::Finish { lease, ending, first_attempts } => Call::Finish(Finish {
                lease: self.lease(lease)?,
                outcome: self.outcome(*ending),
                first_attempts: first_attempts.clone(),
            }),
            Step::Release { lease, release } => Call::Release(self.lease(lease)?, *release),
            Step::Retry { lease } => Call::Retry(self.lease(lease)?, self.world().failure().error?),
            Step::Tell { lease, event, times, due_in } => {
                let (lease, items) = (self.lease(lease)?, body(9));
                let event = [Event::Start, Event::Output, Event::Logs][*event];
                let items = [b"[", items.as_ref(), b"]"].concat().into();
                let told = Progress { lease, event, items, dropped: 3, due_at: now.plus(*due_in) };
                Call::Tell(vec![told; *times])
            }
            Step::Cancel { run, own } => {
                let run = picked(&self.known_runs(), *run)?;
                let owner = self.model.runs.get(&run).map_or_else(|| project(1), Run::project);
                Call::Cancel(if *own { owner } else { project(3) }, run)
            }
            Step::Expire => Call::Expire(now),
            Step::Ready => Call::Ready(now),
            Step::Record { app, started, ending } => self.record(*app, *started, *ending),
            Step::Begin { total, per_receiver, receivers } => {
                let places = receivers.iter().map(|(at, places)| (url(URLS[*at]).receiver(), *places));
                let (total, per_receiver, receivers) = (*total, *per_receiver, places.collect());
                Call::Begin(now, Room { total, per_receiver, receivers, ..Room::default() })
            }
            Step::Complete { attempt, answer } => self.completion(picked(&self.attempts, *attempt)?, *answer),
            Step::Redeliver { delivery, own } => {
                let known: Vec<_> = self.model.deliveries().map(|(id, owner, _)| (id, owner)).collect();
                let (id, owner) = picked(&known, *delivery)?;
                Call::Redeliver(if *own { owner } else { project(3) }, id)
            }
            Step::RedeliverFailed { url: at, whole_receiver, since } => {
                let url = url(URLS[*at]);
                let endpoints =
                    if *whole_receiver { Endpoints::Of(url.receiver()) } else { Endpoints::One(url) };
                let ago = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
                Call::RedeliverFailed(
                    project(1),
                    endpoints,
                    queue::Timestamp::from_millis(now.as_millis() - ago),
                )
            }
            Step::Enable { project: number, url: at } => Call::Enable(project(*number), url(URLS[*at])),
            Step::Limit { project: number, url: at, bytes_max } => {
                Call::Limit(project(*number), url(URLS[*at]), *bytes_max)
            }
            Step::Register { app } => {
                let id = BuildId::generate(self.world().entropy.as_ref());
                Call::Register(app_id(*app), id, now)
            }
            Step::Delete { app } => Call::Delete(app_id(*app)),
            Step::Pass(_) | Step::Together(_) | Step::Kill | Step::Close | Step::Prune => return None,
        })
    }

    fn known_runs(&self) -> Vec<RunId> {
        self.model.runs.keys().copied().collect()
    }

    fn lease(&self, held: &Held) -> Option<Lease> {
        if held.current { picked(&self.current(), held.pick) } else { picked(&self.leases, held.pick) }
    }

    fn new_run(&self, new: &NewCall) -> NewRun {
        let webhooks: Vec<_> = new.webhooks.iter().map(|at| URLS[*at]).collect();
        let mut run = self.world().new_run(&app_id(new.app), &webhooks);
        run.function = FUNCTIONS[new.function].into();
        run.input = body(new.bytes);
        run.warning = new.secret.then(|| "it is slow".to_owned());
        run.options.idempotency = new
            .key
            .map(|(key, call)| Idempotency { key: format!("key-{key}").into(), fingerprint: [call; 32] });
        run.options.not_before = new.delay.map(|time| run.accepted_at.plus(time));
        run.options.priority = new.priority;
        run.options.start_by = new.start_in.map(|time| run.accepted_at.plus(time));
        run.options.events = EventFilter::parse(EVENTS[new.events].iter().copied()).unwrap();
        run.options.retry =
            new.now.then(|| Arc::new(RetryPolicy { retries: 2, on: "timeout,user_error".parse().unwrap() }));
        run.options.max_attempts = (new.priority > 0).then_some(2);
        run.options.metadata = new.secret.then(|| Metadata::parse(r#"{"order":17}"#).unwrap());
        let headers = || WebhookHeaders::new(vec![("X-Gate".to_owned(), "open".to_owned())]).unwrap();
        run.options.webhook_headers = new.secret.then(headers);
        run.options.caller_secret = new.secret.then(|| CallerSecret::new(b"a secret of the caller"));
        run
    }

    fn outcome(&self, ending: How) -> Outcome {
        let now = self.world().now();
        match ending {
            How::Succeeded { large } => {
                let size = if large { INLINE_RESULT_BYTES_MAX } else { 20 };
                Outcome::succeeded(body(size), 201, 0.1 + 0.2, now)
            }
            How::Failed => self.world().failure(),
            How::Cancelled => Outcome::failed(RunError::new(Code::Cancelled, "let go"), 1.0, now),
        }
    }

    fn record(&self, app: usize, started: bool, ending: How) -> Call {
        let given = NewRun { mode: Mode::Sync, ..self.world().new_run(&app_id(app), &[]) };
        let now = self.world().now();
        let outcome = self.outcome(ending);
        let call = CallRecord {
            id: given.id,
            app: given.app.clone(),
            function: given.function.clone(),
            generation: given.generation,
            build: None,
            ending: if outcome.error.is_none() { Ending::Succeeded } else { outcome.ending },
            error: outcome.error,
            status_code: outcome.status_code,
            run_time_ms: outcome.run_time_ms,
            accepted_at: given.accepted_at,
            started_at: started.then_some(now),
            ended_at: now,
            metadata: None,
        };
        Call::Record(call, given)
    }

    fn completion(&self, made: Made, said: Said) -> Call {
        let now = self.world().now();
        let Made { id, attempt, step, thin } = made;
        let schedule = retry::schedule_of(id, &retry::SCHEDULE);
        let scheduled = retry::next_attempt(schedule, step, now, 0.5, None);
        let (verdict, status_code) = match said {
            Said::Fine => (Verdict::Delivered, 200),
            Said::Failed => (scheduled.map_or(Verdict::Exhausted, Verdict::Retry), 503),
            Said::TooLarge => (scheduled.map_or(Verdict::Exhausted, Verdict::Retry), 413),
            Said::Postponed(time) => (Verdict::Postponed(now.plus(time)), 0),
            Said::RetryIn(time) => (Verdict::Retry(now.plus(time)), 429),
            Said::GaveUp => (Verdict::Exhausted, 500),
            // An endpoint that does not want what is told on the way may want the outcome.
            Said::Gone if id.is_progress() => (Verdict::Exhausted, 410),
            Said::Gone => (Verdict::Disabled, 410),
        };
        let report = AttemptReport {
            status_code: (status_code > 0).then_some(status_code),
            thin,
            reason: (status_code != 200).then(|| "http_status".to_owned()),
            response: (status_code == 500).then(|| "said the receiver".to_owned()),
            duration: Duration::from_micros(u64::from(status_code)),
            ..AttemptReport::default()
        };
        let url = self.model.delivery(id).map_or_else(|| url(URLS[0]), |(_, delivery)| delivery.url.clone());
        Call::Complete(AttemptEnd { id, project: None, url, attempt, ended_at: now, verdict, report })
    }
}

fn app_id(at: usize) -> AppId {
    let (number, name) = APPS[at];
    AppId::new(&project(number), &name.parse().unwrap())
}

fn picked<T: Clone>(things: &[T], pick: Pick) -> Option<T> {
    let from_end = usize::from(pick).checked_rem(things.len())?;
    things.iter().nth_back(from_end).cloned()
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let insert = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, count - 1);
        order
    };
    (0..count)
        .rev()
        .flat_map(|at| shorter.iter().map(move |order| insert(order, at)).collect::<Vec<_>>())
        .collect()
}
