//! The model's deliveries and endpoints.

use std::collections::{BTreeMap, HashSet};

use queue::delivery::{
    AttemptEnd, AttemptReport, DeliveryState, DueDelivery, Enabled, EndpointEvent, EndpointState, Endpoints,
    Redelivered, Verdict,
};
use queue::outcome::Finish;
use queue::port::Room;
use queue::run::{EndpointUrl, Receiver};
use queue::{DeliveryId, ProjectId, Timestamp, retry};

use super::bodies::delivery_id;
use super::state::{Mismatch, Model, Run, same};

/// Whether it tells what happened on the way, and when it is due.
type Order = (bool, Timestamp);

/// One delivery.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) url: EndpointUrl,
    pub(super) state: DeliveryState,
    /// When it is due while it is pending: not before the first, not after the second. They differ
    /// until the store has said which moment it chose.
    pub(super) due: Option<(Timestamp, Timestamp)>,
    pub(super) attempts: Vec<Attempt>,
    /// Attempts that are no steps of the schedule: made before it began anew, or not by its receiver's fault.
    pub(super) schedule_from: usize,
    /// Its receiver does not take the result, and gets a link.
    pub(super) thin: bool,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attempt {
    pub(super) started_at: Timestamp,
    pub(super) ended: Option<(Timestamp, AttemptReport)>,
}

/// An endpoint about which there is something to remember.
#[derive(Clone, Default)]
pub(super) struct Endpoint {
    pub(super) disabled: bool,
    /// Bodies of more bytes are told in the thin form.
    pub(super) body_bytes_max: Option<u64>,
    pub(super) events: Vec<EndpointEvent>,
    /// What failed since something got through.
    pub(super) failing: Option<Failing>,
}

#[derive(Clone, Copy)]
pub(super) struct Failing {
    since: Timestamp,
    attempts: usize,
    pub(super) last: Timestamp,
}

impl Delivery {
    pub(super) fn new(url: EndpointUrl, due: Timestamp, waits: bool, first: bool, now: Timestamp) -> Self {
        let state = if waits { DeliveryState::Disabled } else { DeliveryState::Pending };
        let mut delivery =
            Self { url, state, due: None, attempts: Vec::new(), schedule_from: 0, thin: false };
        if !waits {
            delivery.due = Some((due, due));
            if first {
                delivery.begin(now);
            }
        }
        delivery
    }

    fn begin(&mut self, now: Timestamp) {
        self.state = DeliveryState::Sending;
        self.due = None;
        self.thin |= self.last_end().is_some_and(|(_, report)| report.status_code == Some(413));
        self.attempts.push(Attempt { started_at: now, ended: None });
    }

    fn make_due(&mut self, now: Timestamp) {
        self.state = DeliveryState::Pending;
        self.due = Some((now, now));
        self.schedule_from = self.attempts.len();
    }

    pub(super) fn step(&self) -> usize {
        (self.attempts.len() - self.schedule_from.min(self.attempts.len())).max(1)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|(at, _)| at <= now)
    }

    fn last_end(&self) -> Option<&(Timestamp, AttemptReport)> {
        self.attempts.last().and_then(|attempt| attempt.ended.as_ref())
    }

    pub(super) fn keeps_run(&self, run_ended: Timestamp, old: Timestamp, undelivered: Timestamp) -> bool {
        // Its receiver has yet to fetch the result.
        if self.thin && self.last_end().is_some_and(|(at, _)| *at >= old) {
            return true;
        }
        match self.state {
            DeliveryState::Pending | DeliveryState::Sending => true,
            // One that found its endpoint disabled was never tried.
            DeliveryState::Exhausted | DeliveryState::Disabled => {
                self.last_end().map_or(run_ended, |(at, _)| *at) >= undelivered
            }
            DeliveryState::Delivered => false,
        }
    }
}

impl Model {
    /// The endpoints that get nothing.
    pub(super) fn disabled(&self) -> HashSet<(ProjectId, String)> {
        let disabled = self.endpoints.iter().filter(|(_, endpoint)| endpoint.disabled);
        disabled.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn delivery(&self, id: DeliveryId) -> Option<(&Run, &Delivery)> {
        let run = self.runs.get(&id.run)?;
        Some((run, run.deliveries.get(&(id.event, id.index))?))
    }

    pub(super) fn delivery_mut(&mut self, id: DeliveryId) -> Option<&mut Delivery> {
        self.runs.get_mut(&id.run)?.deliveries.get_mut(&(id.event, id.index))
    }

    /// Every delivery with its project.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = (DeliveryId, ProjectId, &Delivery)> {
        self.runs.values().flat_map(|run| {
            run.deliveries.iter().map(|(what, delivery)| (delivery_id(run, *what), run.project(), delivery))
        })
    }

    /// The attempts that rode in a finish are those that were asked for, but to disabled endpoints.
    pub(super) fn first_attempts(&self, finish: &Finish, due: &[DueDelivery]) -> Result<(), Mismatch> {
        let run = finish.lease.run;
        let sending = self
            .deliveries()
            .filter(|(id, ..)| id.run == run && !id.is_progress())
            .filter(|(.., delivery)| delivery.state == DeliveryState::Sending);
        let wanted: Vec<_> = sending.map(|(id, ..)| id).collect();
        same("the first attempts", &due.iter().map(|due| due.id).collect(), &wanted)?;
        due.iter().try_for_each(|due| self.is_as_recorded(due))
    }

    /// Which deliveries begin is a matter of order and room: the oldest of each receiver, no more than
    /// fit, no fewer than there is room for, and nobody is served twice while another one waits. Due is
    /// what is due by the time that the caller gave; the record says when it was made.
    pub(super) fn begin(
        &mut self,
        asked_at: Timestamp,
        room: &Room,
        due: &[DueDelivery],
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let places = |receiver: &Receiver| room.receivers.get(receiver).copied().unwrap_or(room.per_receiver);
        // Outcomes do not wait for what was told on the way.
        let mut could: BTreeMap<Receiver, Vec<(Order, DeliveryId)>> = BTreeMap::new();
        for (id, _, delivery) in self.deliveries().filter(|(_, _, delivery)| delivery.is_due(asked_at)) {
            let at = delivery.due.map_or(asked_at, |(at, _)| at);
            could.entry(delivery.url.receiver()).or_default().push(((id.is_progress(), at), id));
        }
        let mut begun: BTreeMap<Receiver, Vec<DeliveryId>> = BTreeMap::new();
        for due in due {
            begun.entry(due.url.receiver()).or_default().push(due.id);
        }
        for (receiver, ids) in &begun {
            let mut due = could.get(receiver).cloned().unwrap_or_default();
            due.sort_unstable();
            let time = |id: &DeliveryId| due.iter().find(|(_, own)| own == id).map(|(at, _)| *at);
            let times: Option<Vec<_>> = ids.iter().map(time).collect();
            let times = times.ok_or_else(|| format!("{ids:?} begin, of which some are not due"))?;
            let oldest: Vec<_> = due.iter().take(ids.len()).map(|(at, _)| *at).collect();
            same("the due times of what begins", &times, &oldest)?;
            if ids.len() > places(receiver) {
                return Err(format!(
                    "{} attempts to {} with {} places",
                    ids.len(),
                    receiver.as_str(),
                    places(receiver)
                ));
            }
        }
        let fits: usize = could.iter().map(|(receiver, due)| due.len().min(places(receiver))).sum();
        same("how many begin", &due.len(), &fits.min(room.total))?;
        self.take_turns(&begun.keys().cloned().collect(), |receiver| {
            could.contains_key(receiver) && places(receiver) > 0 && room.total > 0
        })?;
        for DueDelivery { id, .. } in due {
            let delivery = self.delivery_mut(*id).ok_or("an unknown delivery begins")?;
            delivery.begin(now);
        }
        due.iter().try_for_each(|due| self.is_as_recorded(due))
    }

    fn take_turns(
        &mut self,
        served: &HashSet<Receiver>,
        could: impl Fn(&Receiver) -> bool,
    ) -> Result<(), Mismatch> {
        let all: HashSet<_> = self.deliveries().map(|(_, _, delivery)| delivery.url.receiver()).collect();
        for receiver in all {
            if served.contains(&receiver) || !could(&receiver) {
                self.waiting.remove(&receiver);
                continue;
            }
            let before = self.waiting.entry(receiver.clone()).or_default();
            if let Some(twice) = before.intersection(served).next() {
                let (twice, receiver) = (twice.as_str(), receiver.as_str());
                return Err(format!("{twice} was served twice while {receiver} was waiting"));
            }
            before.extend(served.iter().cloned());
        }
        Ok(())
    }

    pub(super) fn complete(&mut self, end: &AttemptEnd) {
        let Some((run, delivery)) = self.delivery(end.id) else { return };
        let key = (run.project(), delivery.url.as_str().to_owned());
        let attempt = delivery.attempts.last().filter(|_| delivery.attempts.len() == end.attempt as usize);
        let attempt = attempt.filter(|_| delivery.state == DeliveryState::Sending);
        // The end of an attempt that is over changes nothing.
        let Some(started_at) = attempt.map(|attempt| attempt.started_at) else { return };
        let state = self.after(end, &key, started_at);
        let Some(delivery) = self.delivery_mut(end.id) else { return };
        delivery.thin = end.report.thin;
        delivery.schedule_from += usize::from(matches!(end.verdict, Verdict::Postponed(_)));
        if let Some(attempt) = delivery.attempts.last_mut() {
            attempt.ended = Some((end.ended_at, end.report.clone()));
        }
        delivery.state = state;
        if let (DeliveryState::Pending, Some(at)) = (state, end.verdict.again_at()) {
            delivery.due = Some((at, at));
        }
    }

    /// What the end of an attempt means for the endpoint, and where it leaves the delivery.
    fn after(&mut self, end: &AttemptEnd, key: &(ProjectId, String), started_at: Timestamp) -> DeliveryState {
        let endpoint = self.endpoints.entry(key.clone()).or_default();
        if end.verdict == Verdict::Delivered {
            endpoint.failing = None;
            return DeliveryState::Delivered;
        }
        // What is told on the way is not news any more when the endpoint is back.
        if endpoint.disabled {
            return if end.id.is_progress() { DeliveryState::Exhausted } else { DeliveryState::Disabled };
        }
        // Nor is it a measure of its endpoint; nor is what this server could not send.
        if end.id.is_progress() || matches!(end.verdict, Verdict::Postponed(_)) {
            return end.verdict.state();
        }
        let reason = if end.verdict == Verdict::Disabled {
            format!("http_status {}", end.report.status_code.unwrap_or(0))
        } else {
            let new = Failing { since: started_at, attempts: 0, last: end.ended_at };
            let failing = endpoint.failing.get_or_insert(new);
            failing.attempts += 1;
            failing.last = end.ended_at;
            let schedule = retry::SCHEDULE;
            let hopeless = failing.attempts >= schedule.len()
                && failing.since.plus(schedule.iter().sum()) <= end.ended_at;
            if end.verdict != Verdict::Exhausted || !hopeless {
                return end.verdict.state();
            }
            format!("exhausted: {} attempts failed", failing.attempts)
        };
        (endpoint.disabled, endpoint.failing) = (true, None);
        endpoint.events.push(EndpointEvent { at: end.ended_at, state: EndpointState::Disabled, reason });
        let pending = |(_, delivery): &(u32, &mut Delivery)| delivery.state == DeliveryState::Pending;
        for (event, delivery) in self.deliveries_to(key).filter(pending) {
            delivery.state = if event == 0 { DeliveryState::Disabled } else { DeliveryState::Exhausted };
            delivery.due = None;
        }
        DeliveryState::Disabled
    }

    /// What goes to an endpoint, each with the number of what it tells.
    fn deliveries_to(
        &mut self,
        endpoint: &(ProjectId, String),
    ) -> impl Iterator<Item = (u32, &mut Delivery)> {
        let (project, url) = endpoint.clone();
        let runs = self.runs.values_mut().filter(move |run| run.project() == project);
        let all = runs.flat_map(|run| run.deliveries.iter_mut());
        let all = all.map(|((event, _), delivery)| (*event, delivery));
        all.filter(move |(_, delivery)| delivery.url.as_str() == url)
    }

    pub(super) fn redeliver(
        &mut self,
        project: &ProjectId,
        id: DeliveryId,
        answer: Redelivered,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let disabled = self.disabled();
        let wanted = match self.delivery(id).filter(|(run, _)| run.project() == *project) {
            None => Redelivered::Unknown,
            Some((_, delivery))
                if disabled.contains(&(project.clone(), delivery.url.as_str().to_owned())) =>
            {
                Redelivered::EndpointDisabled
            }
            Some((_, delivery)) if delivery.state == DeliveryState::Sending => Redelivered::UnderWay,
            Some(_) => Redelivered::Due,
        };
        if wanted == Redelivered::Due
            && let Some(delivery) = self.delivery_mut(id)
        {
            delivery.make_due(now);
        }
        same("the answer to a redelivery", &answer, &wanted)
    }

    pub(super) fn redeliver_failed(
        &mut self,
        project: &ProjectId,
        endpoints: &Endpoints,
        since: Timestamp,
        answer: u64,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let disabled = self.disabled();
        let failed = |delivery: &Delivery| {
            let for_good = delivery.state == DeliveryState::Exhausted;
            let so_far = delivery.due.is_some_and(|(at, _)| at > now);
            let reason = |(at, report): &(Timestamp, AttemptReport)| *at >= since && report.reason.is_some();
            (for_good || so_far) && delivery.last_end().is_some_and(reason)
        };
        let wanted: Vec<_> = self
            .deliveries()
            .filter(|(id, owner, delivery)| {
                !id.is_progress()
                    && owner == project
                    && delivery.url.receiver() == endpoints.receiver()
                    && endpoints.url().is_none_or(|url| *url == delivery.url)
                    && !disabled.contains(&(owner.clone(), delivery.url.as_str().to_owned()))
                    && failed(delivery)
            })
            .map(|(id, ..)| id)
            .collect();
        same("how many are redelivered", &answer, &(wanted.len() as u64))?;
        for id in wanted {
            self.delivery_mut(id).ok_or("it was there")?.make_due(now);
        }
        Ok(())
    }

    pub(super) fn enable(
        &mut self,
        endpoint: &(ProjectId, String),
        answer: Enabled,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        let known = self.endpoints.get_mut(endpoint).filter(|known| !known.events.is_empty());
        let Some(known) = known else {
            return same("the enabling of an unknown endpoint", &answer, &Enabled::Unknown);
        };
        if !std::mem::take(&mut known.disabled) {
            return same("the enabling of an enabled endpoint", &answer, &Enabled::Already);
        }
        let mut replayed = 0;
        let (state, reason) = (EndpointState::Enabled, "requested".to_owned());
        known.events.push(EndpointEvent { at: now, state, reason });
        let waits = |(_, delivery): &(u32, &mut Delivery)| delivery.state == DeliveryState::Disabled;
        for (_, delivery) in self.deliveries_to(endpoint).filter(waits) {
            delivery.make_due(now);
            replayed += 1;
        }
        same("how many are replayed", &answer, &Enabled::Replayed(replayed))
    }

    /// The server is gone: nobody knows what became of the attempts under way. They are made again no
    /// later than the schedule would have had it.
    pub(super) fn lose_attempts(&mut self, now: Timestamp) {
        let sending = self.deliveries().filter(|(_, _, delivery)| delivery.state == DeliveryState::Sending);
        let sending: Vec<_> = sending.map(|(id, _, delivery)| (id, delivery.clone())).collect();
        for (id, delivery) in sending {
            let Some(attempt) = delivery.attempts.last() else { continue };
            let step = u32::try_from(delivery.step()).unwrap_or(u32::MAX);
            let schedule = retry::schedule_of(id, &retry::SCHEDULE);
            let next = |chance| retry::next_attempt(schedule, step, attempt.started_at, chance, None);
            let due = next(0.0).zip(next(1.0));
            let (reason, thin) = (Some("outcome_unknown".to_owned()), delivery.thin);
            let report = AttemptReport { reason, thin, ..AttemptReport::default() };
            self.complete(&AttemptEnd {
                id,
                project: None,
                url: delivery.url.clone(),
                attempt: u32::try_from(delivery.attempts.len()).unwrap_or(u32::MAX),
                ended_at: now,
                verdict: due.map_or(Verdict::Exhausted, |(first, _)| Verdict::Retry(first)),
                report,
            });
            if let Some(delivery) = self.delivery_mut(id).filter(|delivery| delivery.due.is_some()) {
                delivery.due = due;
            }
        }
    }

    /// When the next delivery is due to a receiver with a place left.
    pub(super) fn next_due(&self, room: &Room) -> Option<Timestamp> {
        let places = |receiver: &Receiver| room.receivers.get(receiver).copied().unwrap_or(room.per_receiver);
        let open = self.deliveries().filter(|(_, _, delivery)| places(&delivery.url.receiver()) > 0);
        open.filter_map(|(_, _, delivery)| delivery.due.map(|(at, _)| at)).min().filter(|_| room.total > 0)
    }
}
