//! What must hold whatever happens, checked on what was seen and without the model's help.

use std::collections::HashMap;

use bytes::Bytes;
use queue::delivery::DeliveryState;
use queue::port::Accepted;
use queue::run::{RunState, RunView};
use queue::webhook::Event;
use queue::{DeliveryId, RunId};

use super::calls::{Answer, Call};
use super::observe::Seen;
use super::state::Mismatch;

/// What was promised and shown so far.
#[derive(Default)]
pub(super) struct Laws {
    acknowledged: Vec<RunId>,
    ends: HashMap<RunId, String>,
    bodies: HashMap<DeliveryId, Bytes>,
}

impl Laws {
    /// An acknowledgement is a promise, and a delivery has one body for ever.
    pub(super) fn hear(&mut self, call: &Call, answer: &Answer) -> Result<(), Mismatch> {
        // A link in a thin body is prolonged when it would be of little use; the model knows the form.
        for due in answer.due().iter().filter(|due| !due.thin) {
            let body = self.bodies.entry(due.id).or_insert_with(|| due.body.clone());
            if *body != due.body {
                return Err(format!("{} changed its body from {body:?} to {:?}", due.id, due.body));
            }
        }
        if let (Call::Accept(run, _), Answer::Accepted(Accepted::Queued | Accepted::Leased(_))) =
            (call, answer)
        {
            self.acknowledged.push(run.id);
        }
        Ok(())
    }

    /// Runs that were removed with age need not be there any more.
    pub(super) fn forget(&mut self, removed: impl Fn(&RunId) -> bool) {
        self.acknowledged.retain(|run| !removed(run));
    }

    /// An acknowledged run is there; its attempts are numbered from 1, each with one end; once it has
    /// ended, its end and its deliveries stay what they are.
    pub(super) fn check(&mut self, seen: &Seen) -> Result<(), Mismatch> {
        for run in &self.acknowledged {
            if !seen.has(*run) {
                return Err(format!("run {run} was acknowledged and is gone"));
            }
        }
        for view in seen.in_full.values().flatten() {
            self.check_run(view).map_err(|why| format!("run {}: {why}", view.id))?;
        }
        Ok(())
    }

    fn check_run(&mut self, view: &RunView) -> Result<(), Mismatch> {
        for (number, attempt) in (1..).zip(&view.attempts) {
            let open = view.state == RunState::Running && attempt.number as usize == view.attempts.len();
            if attempt.number != number || attempt.end.is_none() != open || attempt.ended_at.is_none() != open
            {
                return Err(format!("its attempts are {:?} in state {}", view.attempts, view.state));
            }
        }
        let outcomes = || view.deliveries.iter().filter(|delivery| delivery.event == Event::Completed);
        if !view.state.is_terminal() {
            return if outcomes().next().is_none() {
                Ok(())
            } else {
                Err("it is told before its end".to_owned())
            };
        }
        let wanted = if view.events.has(Event::Completed) { view.webhooks.len() } else { 0 };
        if outcomes().count() != wanted {
            return Err(format!("{} of {wanted} endpoints are told", outcomes().count()));
        }
        for delivery in &view.deliveries {
            let waits = delivery.state == DeliveryState::Pending;
            if waits != delivery.next_attempt_at.is_some() {
                return Err(format!(
                    "{} is {} and due {:?}",
                    delivery.id, delivery.state, delivery.next_attempt_at
                ));
            }
        }
        let ids: Vec<_> = outcomes().map(|delivery| (&delivery.id, &delivery.url)).collect();
        let RunView { state, error, status_code, run_time_ms, ended_at, build, result, attempts, .. } = view;
        let end = format!(
            "{state:?} {error:?} {status_code:?} {run_time_ms:?} {ended_at:?} {build:?} {result:?} {attempts:?} {ids:?}"
        );
        let known = self.ends.entry(view.id).or_insert_with(|| end.clone());
        if *known == end { Ok(()) } else { Err(format!("its end changed from {known} to {end}")) }
    }
}
