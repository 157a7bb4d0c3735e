//! What the model's runs tell on their way, and what each delivery's body must be.

use queue::delivery::{DeliveryState, DueDelivery, EndpointEvent, EndpointState};
use queue::limits::PROGRESS_UNDELIVERED_MAX;
use queue::progress::{self, Progress};
use queue::run::EndpointUrl;
use queue::{DeliveryId, ProjectId, Timestamp, answer};

use super::LINKS;
use super::deliveries::Delivery;
use super::state::{Mismatch, Model, Run, same};

impl Model {
    pub(super) fn tell(&mut self, told: &Progress, now: Timestamp) {
        if !self.is_current(&told.lease) {
            return;
        }
        let disabled = self.disabled();
        let Some(run) = self.runs.get_mut(&told.lease.run) else { return };
        let project = run.project();
        let event = run.told.keys().last().map_or(1, |last| last + 1);
        for (index, url) in (0..).zip(run.given.webhooks.clone()) {
            if disabled.contains(&(project.clone(), url.as_str().to_owned())) || is_behind(run, index) {
                continue;
            }
            run.deliveries.insert((event, index), Delivery::new(url, told.due_at, false, false, now));
            run.told.insert(event, told.clone());
        }
    }

    pub(super) fn set_body_limit(
        &mut self,
        endpoint: (ProjectId, String),
        bytes_max: Option<u64>,
        now: Timestamp,
    ) {
        let known = self.endpoints.entry(endpoint).or_default();
        known.body_bytes_max = bytes_max;
        let state = if known.disabled { EndpointState::Disabled } else { EndpointState::Enabled };
        let reason = bytes_max.map_or_else(
            || "bodies of any size are full".to_owned(),
            |bytes_max| format!("bodies of more than {bytes_max} bytes are thin"),
        );
        known.events.push(EndpointEvent { at: now, state, reason });
    }

    /// What is to be sent must be what the model has as under way.
    pub(super) fn is_as_recorded(&self, due: &DueDelivery) -> Result<(), Mismatch> {
        let (run, delivery) = self.delivery(due.id).ok_or("an unknown delivery is to be sent")?;
        same("its project", &due.project, &run.project())?;
        same("its address", &due.url, &delivery.url)?;
        same("its attempt", &(due.attempt as usize), &delivery.attempts.len())?;
        same("its step", &(due.step as usize), &delivery.step())?;
        let secret = |secret: &Option<queue::signature::CallerSecret>| {
            secret.as_ref().map(|secret| secret.as_bytes().to_vec())
        };
        same("the caller's secret", &secret(&due.caller_secret), &secret(&run.given.options.caller_secret))?;
        same("the caller's headers", &due.headers, &run.given.options.webhook_headers)?;
        if due.id.is_progress() {
            is_told_as_told(run, due)
        } else {
            self.is_told_as_ended(run, delivery, due)
        }
    }

    fn is_told_as_ended(&self, run: &Run, delivery: &Delivery, due: &DueDelivery) -> Result<(), Mismatch> {
        let outcome = run.outcome.as_ref().ok_or("a run that has not ended is told about")?;
        if run.words_open {
            // There is no result, so there is nothing to be fetched.
            return same("its form", &due.thin, &false);
        }
        let metadata = run.given.options.metadata.as_ref();
        let full = answer::body(due.id.run, run.given.generation, outcome, metadata);
        let limit = self.body_limit(&due.project, &due.url);
        let is_large = delivery.thin || limit.is_some_and(|max| full.len() as u64 > max);
        same("its form", &due.thin, &(is_large && outcome.result.is_some()))?;
        if !due.thin {
            return same("its body", &due.body, &full);
        }
        let body: serde_json::Value = serde_json::from_slice(&due.body).map_err(|error| error.to_string())?;
        let link = body["result_url"].as_str().unwrap_or_default();
        let place = format!("{LINKS}/v2/projects/{}/runs/{}/result?", due.project, due.id.run);
        if !link.starts_with(&place) {
            return Err(format!("its link is {link}, wanted {place}…"));
        }
        let thin = answer::thin_body(due.id.run, run.given.generation, outcome, link, metadata);
        same("its thin body", &Some(&due.body), &thin.as_ref())
    }

    fn body_limit(&self, project: &ProjectId, url: &EndpointUrl) -> Option<u64> {
        self.endpoints.get(&(project.clone(), url.as_str().to_owned()))?.body_bytes_max
    }
}

fn is_told_as_told(run: &Run, due: &DueDelivery) -> Result<(), Mismatch> {
    let told = run.told.get(&due.id.event).ok_or("what was never told is to be sent")?;
    let (event, attempt) = (told.event, told.lease.attempt);
    let wanted = progress::Told { event, attempt, items: &told.items, dropped: told.dropped };
    let metadata = run.given.options.metadata.as_ref();
    same("its form", &due.thin, &false)?;
    same("its body", &due.body, &progress::body(due.id.run, run.given.generation, &wanted, metadata))
}

/// Whether the last things that an endpoint was to be told still wait, all of them.
fn is_behind(run: &Run, index: u16) -> bool {
    let told = run.deliveries.iter().rev().filter(|((event, at), _)| *event > 0 && *at == index);
    let waits =
        |delivery: &Delivery| matches!(delivery.state, DeliveryState::Pending | DeliveryState::Sending);
    let last = told.take(PROGRESS_UNDELIVERED_MAX as usize);
    last.filter(|(_, delivery)| waits(delivery)).count() >= PROGRESS_UNDELIVERED_MAX as usize
}

/// What a run's delivery is called.
pub(super) fn delivery_id(run: &Run, (event, index): (u32, u16)) -> DeliveryId {
    DeliveryId { run: run.given.id, event, index }
}
