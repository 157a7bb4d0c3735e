//! Everything that the ports show, and whether it is what the model holds.

use std::collections::BTreeMap;

use queue::delivery::{DeliveryFilter, DeliveryState, DeliveryView, EndpointEvent, EndpointView};
use queue::run::{RunFilter, RunView};
use queue::webhook::Event;
use queue::{AppId, DeliveryId, EndpointId, ProjectId, RunId, Timestamp};

use super::bodies::delivery_id;
use super::deliveries::{Attempt, Delivery, Endpoint};
use super::state::{Mismatch, Model, Run, same};
use crate::world::{Engine, project, room};

/// Rows of one page of a list: few, so that there are pages.
const PAGE: usize = 7;
/// Deliveries of events that are shown with a run.
const EVENTS_SHOWN: usize = 100;

/// What the store shows at one moment.
pub(super) struct Seen {
    /// Runs one by one, with all attempts, deliveries and results.
    pub(super) in_full: BTreeMap<RunId, Option<RunView>>,
    /// When those were removed that are gone.
    removed: Vec<(RunId, Option<Timestamp>)>,
    lists: Vec<Lists>,
    backlog: Vec<(AppId, u64)>,
    next_due: Option<Timestamp>,
}

/// What is shown of one project, page by page.
struct Lists {
    project: ProjectId,
    runs: Vec<RunView>,
    deliveries: Vec<DeliveryView>,
    endpoints: Vec<EndpointView>,
}

impl Seen {
    /// Looks at every list and, when asked to, at each run that is or was there.
    pub(super) async fn look(store: &impl Engine, model: &Model, in_full: bool) -> Self {
        // First of all, since it waits for what was noted.
        let backlog = store.backlog().await.unwrap();
        let next_due = store.next_due(room()).await.unwrap();
        let known = model.runs.values().map(|run| (run.given.id, run.project()));
        let known = known.chain(model.removed.iter().map(|(id, (owner, _))| (*id, owner.clone())));
        let (mut runs, mut removed) = (BTreeMap::new(), Vec::new());
        for (id, owner) in known.filter(|_| in_full) {
            let view = store.run(&owner, id).await.unwrap();
            if view.is_none() {
                removed.push((id, store.removed(&owner, id).await.unwrap()));
            }
            runs.insert(id, view);
        }
        let mut lists = Vec::new();
        for project in [project(1), project(2)] {
            let (runs, deliveries) = (all_runs(store, &project).await, all_deliveries(store, &project).await);
            let endpoints = store.endpoints(&project).await.unwrap();
            lists.push(Lists { project, runs, deliveries, endpoints });
        }
        Self { in_full: runs, removed, lists, backlog, next_due }
    }

    /// Whether the lists have this run.
    pub(super) fn has(&self, run: RunId) -> bool {
        self.lists.iter().any(|lists| lists.runs.iter().any(|view| view.id == run))
    }
}

async fn all_runs(store: &impl Engine, project: &ProjectId) -> Vec<RunView> {
    let mut all: Vec<RunView> = Vec::new();
    loop {
        let before = all.last().map(|run| run.id);
        let project = project.clone();
        let filter = RunFilter { before, ..RunFilter::of(project, PAGE) };
        let page = store.runs(filter).await.unwrap();
        let last = page.next.is_none();
        all.extend(page.runs);
        if last {
            return all;
        }
    }
}

async fn all_deliveries(store: &impl Engine, project: &ProjectId) -> Vec<DeliveryView> {
    let mut all: Vec<DeliveryView> = Vec::new();
    loop {
        let after = all.last().map(|delivery| delivery.id.parse::<DeliveryId>().unwrap());
        let project = project.clone();
        let filter = DeliveryFilter { project, endpoints: None, state: None, after, limit: PAGE };
        let page = store.deliveries(filter).await.unwrap();
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return all;
        }
    }
}

impl Model {
    /// Whether this is what must be seen. What the store was free to choose is known from now on.
    pub(super) fn compare(&mut self, seen: &Seen) -> Result<(), Mismatch> {
        same("the backlog", &seen.backlog.iter().cloned().collect(), &self.backlog())?;
        for lists in &seen.lists {
            self.compare_lists(lists)?;
            self.compare_endpoints(&lists.project, &lists.endpoints)?;
        }
        same("when the next delivery is due", &seen.next_due, &self.next_due(&room()))?;
        for (id, view) in &seen.in_full {
            self.compare_in_full(*id, view.as_ref()).map_err(|why| format!("run {id}: {why}"))?;
        }
        for (id, at) in &seen.removed {
            same("when a run was removed", at, &self.removed.get(id).and_then(|(_, at)| *at))?;
        }
        Ok(())
    }

    fn compare_lists(&mut self, Lists { project, runs, deliveries, .. }: &Lists) -> Result<(), Mismatch> {
        let own = self.runs.values_mut().rev().filter(|run| run.project() == *project);
        let (mut own, mut views) = (own.collect::<Vec<_>>(), runs.iter());
        let wanted: Vec<_> = own.iter().map(|run| run.given.id).collect();
        same("the list of runs", &runs.iter().map(|run| run.id).collect(), &wanted)?;
        for (run, view) in own.iter_mut().zip(&mut views) {
            compare_run(run, view).map_err(|why| format!("run {} in the list: {why}", view.id))?;
        }
        let mut wanted: Vec<_> = self.deliveries().filter(|(_, owner, _)| owner == project).collect();
        wanted.sort_by_key(|(id, ..)| std::cmp::Reverse(*id));
        let wanted: Vec<_> = wanted.into_iter().map(|(id, ..)| id).collect();
        let listed: Vec<_> = deliveries.iter().map(|view| view.id.clone()).collect();
        let ids = wanted.iter().map(|id| id.webhook_id()).collect();
        same("the list of deliveries", &listed, &ids)?;
        for (id, view) in wanted.into_iter().zip(deliveries) {
            let delivery = self.delivery_mut(id).ok_or("it was there")?;
            adopt(&mut delivery.due, view.next_attempt_at)
                .and_then(|()| compare_delivery(id, delivery, view, 1))
                .map_err(|why| format!("delivery {id} in the list: {why}"))?;
        }
        Ok(())
    }

    fn compare_in_full(&self, id: RunId, view: Option<&RunView>) -> Result<(), Mismatch> {
        let (run, view) = match (self.runs.get(&id), view) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err("it went with age, and is there".to_owned()),
            (Some(_), None) => return Err("it is lost".to_owned()),
            (Some(run), Some(view)) => (run, view),
        };
        same("its attempts", &view.attempts, &run.attempts)?;
        let result = run.outcome.as_ref().and_then(|outcome| outcome.result.clone());
        same("its result", &view.result, &result)?;
        // Of what it told on its way, the last things are shown.
        let skipped = (run.deliveries.len() - run.outcomes().count()).saturating_sub(EVENTS_SHOWN);
        same("its deliveries", &view.deliveries.len(), &(run.deliveries.len() - skipped))?;
        let (outcomes, told): (Vec<_>, Vec<_>) =
            run.deliveries.iter().partition(|((event, _), _)| *event == 0);
        let shown = outcomes.into_iter().chain(told.into_iter().skip(skipped));
        for ((what, delivery), view) in shown.zip(&view.deliveries) {
            let id = delivery_id(run, *what);
            let event = run.told.get(&what.0).map_or(Event::Completed, |told| told.event);
            same("what a delivery tells", &view.event, &event)?;
            compare_delivery(id, delivery, view, delivery.attempts.len())
                .map_err(|why| format!("delivery {id}: {why}"))?;
        }
        Ok(())
    }

    fn compare_endpoints(&self, project: &ProjectId, seen: &[EndpointView]) -> Result<(), Mismatch> {
        let told = |((owner, _), endpoint): &(&(ProjectId, String), &Endpoint)| {
            owner == project && !endpoint.events.is_empty()
        };
        let own: Vec<_> = self.endpoints.iter().filter(told).collect();
        same("the number of endpoints", &seen.len(), &own.len())?;
        for (((_, url), endpoint), view) in own.into_iter().zip(seen) {
            same("an endpoint's address", &view.url.as_str(), &url.as_str())?;
            same("an endpoint's id", &view.id, &EndpointId::of(project, &view.url))?;
            let moment = |event: &EndpointEvent| (event.at, event.state);
            let wanted: Vec<_> = endpoint.events.iter().map(moment).collect();
            same("an endpoint's events", &view.events.iter().map(moment).collect(), &wanted)?;
            // The reason of a given up endpoint goes on in words of the store's own.
            let mut reasons = view.events.iter().zip(&endpoint.events);
            if let Some((seen, wanted)) = reasons.find(|(seen, own)| !seen.reason.starts_with(&own.reason)) {
                return Err(format!("an endpoint changed for {}, wanted {}", seen.reason, wanted.reason));
            }
            let waits =
                |delivery: &Delivery| delivery.state == DeliveryState::Disabled && delivery.url == view.url;
            let waiting = self.deliveries().filter(|(_, owner, own)| owner == project && waits(own)).count();
            same("what waits for an endpoint", &view.waiting, &(waiting as u64))?;
            // What was set is no change of its state.
            let mut changes = endpoint.events.clone();
            changes.dedup_by_key(|event| event.state);
            same("an endpoint's state", &Some(view.state), &changes.last().map(|event| event.state))?;
            same("since when", &Some(view.since), &changes.last().map(|event| event.at))?;
            same("its limit of bodies", &view.body_bytes_max, &endpoint.body_bytes_max)?;
        }
        Ok(())
    }
}

fn compare_run(run: &mut Run, view: &RunView) -> Result<(), Mismatch> {
    let given = &run.given;
    same("its app", &view.app, &given.app)?;
    same("its function", &view.function.as_str(), &given.function.as_ref())?;
    same("its generation", &view.generation, &given.generation)?;
    same("its mode", &view.mode, &given.mode)?;
    same("its webhooks", &view.webhooks, &given.webhooks)?;
    same("its warning", &view.warning, &given.warning)?;
    same("its priority", &view.priority, &given.options.priority)?;
    adopt(&mut run.not_before, view.not_before)?;
    same("when it may start", &view.not_before, &run.not_before.map(|(at, _)| at))?;
    same("its retries", &view.retry, &given.options.retry)?;
    same("its attempts at most", &view.max_attempts, &given.options.max_attempts)?;
    same("its events", &view.events, &given.options.events)?;
    same("its metadata", &view.metadata, &given.options.metadata)?;
    same("when it was accepted", &view.accepted_at, &given.accepted_at)?;
    same("its state", &view.state, &run.state)?;
    same("when it started", &view.started_at, &run.attempts.last().map(|attempt| attempt.started_at))?;
    if let (true, Some(outcome), Some(told)) = (run.words_open, &mut run.outcome, &view.error) {
        let error = outcome.error.as_mut().ok_or("an end of the store's own has an error")?;
        same("its code", &told.code, &error.code)?;
        if told.message.is_empty() {
            return Err("it ended, and nobody says why".to_owned());
        }
        error.clone_from(told);
        run.words_open = false;
    }
    let outcome = run.outcome.as_ref();
    same("its error", &view.error, &outcome.and_then(|outcome| outcome.error.clone()))?;
    same("its status", &view.status_code, &outcome.map(|outcome| outcome.status_code))?;
    same("its time", &view.run_time_ms, &outcome.map(|outcome| outcome.run_time_ms))?;
    same("when it ended", &view.ended_at, &outcome.map(|outcome| outcome.ended_at))?;
    same("its build", &view.build, &outcome.and_then(|outcome| outcome.build.clone()))
}

/// The store chose a moment; it must lie where the schedule and its jitter allow.
fn adopt(due: &mut Option<(Timestamp, Timestamp)>, seen: Option<Timestamp>) -> Result<(), Mismatch> {
    if let (Some((first, last)), Some(at)) = (*due, seen) {
        if !(first..=last).contains(&at) {
            return Err(format!("due at {at:?}, wanted {first:?} to {last:?}"));
        }
        *due = Some((at, at));
    }
    Ok(())
}

fn compare_delivery(
    id: DeliveryId,
    delivery: &Delivery,
    view: &DeliveryView,
    attempts: usize,
) -> Result<(), Mismatch> {
    same("its id", &view.id, &id.webhook_id())?;
    same("its run", &view.run_id, &id.run)?;
    same("its address", &view.url, &delivery.url)?;
    same("its state", &view.state, &delivery.state)?;
    same("when it is due", &view.next_attempt_at, &delivery.due.map(|(at, _)| at))?;
    let from = delivery.attempts.len().saturating_sub(attempts);
    let wanted: Vec<_> = (1..).zip(delivery.attempts.iter().cloned()).skip(from).collect();
    let seen = view.attempts.iter().map(|view| {
        let ended = view.ended_at.zip(view.report.clone());
        (view.number, Attempt { started_at: view.started_at, ended })
    });
    same("its attempts", &seen.collect(), &wanted)
}
