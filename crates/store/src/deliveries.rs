//! The port `Deliveries`: begun when due, in fair turn, and ended.

mod begin;
mod complete;
mod endpoints;
mod failing;
mod figures;
mod form;
mod redeliver;
mod view;

use std::cell::OnceCell;

use async_trait::async_trait;
use queue::delivery::{
    AttemptEnd, AttemptReport, DeliveryFilter, DeliveryView, DueDelivery, Enabled, EndpointView, Endpoints,
    Redelivered, Verdict,
};
use queue::figures::EndpointFigures;
use queue::link::ResultLinks;
use queue::port::{Deliveries, Room, Stored};
use queue::reason::{BODY_UNREADABLE, NO_SIGNING_KEY, OUTCOME_UNKNOWN};
use queue::run::EndpointUrl;
use queue::webhook::Schedule;
use queue::{DeliveryId, EndpointId, ProjectId, RunId, Timestamp, retry};
use rusqlite::{Connection, params};

use crate::Store;
use crate::batch::Batch;
use crate::committer::{Committer, Need};
use crate::fault::Fault;
use crate::results::ResultFiles;
use crate::row;
use crate::runs::{Begun, story, told};
use crate::secrets::{Brought, Sealed};
use crate::vault::Vault;

pub(crate) use complete::complete;
pub(crate) use endpoints::set_aside;
pub(crate) use failing::{Failing, forget_old};
pub(crate) use form::Forms;
pub(crate) use redeliver::{Failed, redeliver_some};
pub(crate) use view::of_run;

#[async_trait]
impl Deliveries for Store {
    async fn begin(&self, now: Timestamp, room: Room) -> Stored<Vec<DueDelivery>> {
        if room.total == 0 {
            return Ok(Vec::new());
        }
        let begun = self
            .inner
            .committer
            .lend(Need::End, 0, move |batch| begin::begin(batch, now, &room), give_back_all)
            .await?;
        if begun.is_empty() {
            return Ok(Vec::new());
        }
        let held = Unsent::hold(&self.inner.committer, &begun);
        let (results, committer) = (self.inner.results.clone(), self.inner.committer.clone());
        let vault = self.inner.vault.clone();
        let links = self.inner.links().cloned();
        let due = self
            .inner
            .memory
            .readers()
            .deliver(move |conn| {
                let with_body =
                    |begun| with_body(conn, &results, &vault, &committer, links.as_ref(), now, begun);
                Ok(begun.into_iter().filter_map(with_body).collect())
            })
            .await?;
        held.let_go();
        Ok(due)
    }

    fn complete(&self, end: AttemptEnd) {
        self.inner.committer.note(move |batch| complete(batch, &end));
    }

    async fn next_due(&self, room: Room) -> Stored<Option<Timestamp>> {
        // What was noted before the question belongs to the answer.
        self.inner.committer.barrier().await?;
        self.inner.memory.readers().deliver(move |conn| begin::next_due(conn, &room)).await
    }

    async fn delivery(&self, project: &ProjectId, id: DeliveryId) -> Stored<Option<DeliveryView>> {
        let project = project.clone();
        self.inner.memory.readers().read(move |conn| view::one(conn, &project, id)).await
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Stored<Vec<DeliveryView>> {
        self.inner.memory.readers().list(move |conn| view::many(conn, &filter)).await
    }

    async fn redeliver(&self, project: &ProjectId, id: DeliveryId) -> Stored<Redelivered> {
        let project = project.clone();
        self.inner.committer.write(0, move |batch| redeliver::one(batch, &project, id)).await
    }

    async fn redeliver_failed(
        &self,
        project: &ProjectId,
        endpoints: Endpoints,
        since: Timestamp,
    ) -> Stored<u64> {
        let project = project.clone();
        let write = move |batch: &mut Batch<'_>| redeliver::failed(batch, &project, &endpoints, since);
        let redelivering = self.inner.committer.write(0, write).await?;
        self.done(redelivering).await
    }

    async fn endpoints(&self, project: &ProjectId) -> Stored<Vec<EndpointView>> {
        let project = project.clone();
        self.inner.memory.readers().list(move |conn| endpoints::list(conn, &project)).await
    }

    async fn set_body_limit(
        &self,
        project: &ProjectId,
        url: EndpointUrl,
        bytes_max: Option<u64>,
    ) -> Stored<bool> {
        let project = project.clone();
        let write = move |batch: &mut Batch<'_>| endpoints::set_body_limit(batch, &project, &url, bytes_max);
        self.inner.committer.write(0, write).await
    }

    async fn endpoint_figures(&self, project: &ProjectId) -> Stored<Vec<EndpointFigures>> {
        let project = project.clone();
        self.inner.memory.readers().list(move |conn| figures::of_project(conn, &project)).await
    }

    async fn disable(&self, project: &ProjectId, url: EndpointUrl) -> Stored<bool> {
        let project = project.clone();
        let write = move |batch: &mut Batch<'_>| complete::disable_as_asked(batch, &project, &url);
        self.inner.committer.write(0, write).await
    }

    async fn enable(&self, project: &ProjectId, endpoint: &EndpointId) -> Stored<Enabled> {
        let known = self.endpoints(project).await?;
        let Some(known) = known.into_iter().find(|known| known.id == *endpoint) else {
            return Ok(Enabled::Unknown);
        };
        let mut replayed = 0;
        loop {
            let (project, url) = (project.clone(), known.url.clone());
            let write = move |batch: &mut Batch<'_>| endpoints::enable(batch, &project, &url);
            match self.inner.committer.write(0, write).await? {
                // Somebody else may have enabled it in between.
                None if replayed == 0 => return Ok(Enabled::Already),
                None => return Ok(Enabled::Replayed(replayed)),
                Some(step) => {
                    replayed += step.replayed;
                    if step.done {
                        return Ok(Enabled::Replayed(replayed));
                    }
                }
            }
        }
    }
}

/// Creates the delivery of an outcome that just came to be. With `first` its first attempt is recorded
/// with it; unless its endpoint is disabled, in which case it waits for the enabling.
pub(crate) fn create(
    batch: &mut Batch<'_>,
    id: DeliveryId,
    project: &ProjectId,
    url: EndpointUrl,
    due_at: Timestamp,
    first: bool,
    schedule: Option<&Schedule>,
) -> Result<Option<Begun>, Fault> {
    let disabled = batch.books.is_disabled(project, &url);
    let first = first && !disabled;
    let recorded = first && !crate::mutant::shows("attempt-row-after-send");
    let state = match (disabled, recorded) {
        (true, _) => "disabled",
        (false, true) => "sending",
        (false, false) => "pending",
    };
    batch
        .sql(
            "INSERT INTO deliveries (run, endpoint, url, receiver, state, next_at, attempt, incarnation, started_at,
                                     schedule)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            id.run.into_bytes(),
            row::delivery_number(id),
            url.as_str(),
            url.receiver().as_str(),
            state,
            (state == "pending").then_some(due_at.as_millis()),
            u32::from(recorded),
            recorded.then_some(batch.setting.incarnation),
            recorded.then(|| batch.now().as_millis()),
            schedule.map(ToString::to_string),
        ])?;
    let body_bytes_max = batch.books.body_limit(project, &url);
    let schedule = schedule.cloned();
    Ok(first.then_some(Begun {
        id,
        url,
        attempt: 1,
        step: 1,
        schedule,
        thin: false,
        body_bytes_max,
        large_bytes: 0,
    }))
}

/// The delivery with its body. One that has none to be read fails this attempt, in the record and the
/// log, and not the others beside it.
fn with_body(
    conn: &Connection,
    results: &ResultFiles,
    vault: &Vault,
    committer: &Committer,
    links: Option<&ResultLinks>,
    now: Timestamp,
    begun: Begun,
) -> Option<DueDelivery> {
    let run = begun.id.run;
    if begun.id.is_progress() {
        return with_what_is_told(conn, vault, committer, now, begun);
    }
    let story = match story(conn, results, run) {
        Ok(story) => story,
        Err(fault) => {
            tracing::error!(delivery.id = %begun.id, error = %fault, "a delivery has no body that can be read");
            fail_unsent(committer, now, begun, BODY_UNREADABLE);
            return None;
        }
    };
    match open_callers(vault, run, story.brought) {
        Ok(brought) => {
            let forms = Forms {
                run,
                project: &story.project,
                generation: story.generation,
                outcome: &story.outcome,
                metadata: story.metadata.as_ref(),
                links,
                now,
                full: OnceCell::new(),
            };
            let form = forms.of(&begun);
            Some(begun.with_body(story.project, form, brought))
        }
        Err(_) => {
            fail_unsent(committer, now, begun, NO_SIGNING_KEY);
            None
        }
    }
}

/// The same for what a run told on its way.
fn with_what_is_told(
    conn: &Connection,
    vault: &Vault,
    committer: &Committer,
    now: Timestamp,
    begun: Begun,
) -> Option<DueDelivery> {
    let told = match told(conn, begun.id.run, begun.id.event) {
        Ok(told) => told,
        Err(fault) => {
            tracing::error!(delivery.id = %begun.id, error = %fault, "a delivery has no body that can be read");
            fail_unsent(committer, now, begun, BODY_UNREADABLE);
            return None;
        }
    };
    match open_callers(vault, begun.id.run, told.brought) {
        Ok(brought) => Some(begun.with_body(told.project, (told.body, false), brought)),
        Err(_) => {
            fail_unsent(committer, now, begun, NO_SIGNING_KEY);
            None
        }
    }
}

/// The caller's own secret and headers, if there are any. Without them nothing is sent: a receiver that
/// checks only this signature, or the gateway before it, would refuse the delivery for good.
pub(crate) fn open_callers(vault: &Vault, run: RunId, sealed: Option<Sealed>) -> Result<Brought, Fault> {
    sealed.map_or_else(|| Ok(Brought::default()), |sealed| sealed.open(vault, run)).inspect_err(|fault| {
        tracing::error!(run.id = %run, error = %fault, "what the caller brought in secret cannot be read");
    })
}

/// Ends a recorded attempt that had nothing to send. The schedule goes on.
pub(crate) fn fail_unsent(committer: &Committer, now: Timestamp, begun: Begun, reason: &'static str) {
    let next = retry::next_attempt(begun.schedule(), begun.step, now, 0.0, None);
    let verdict = next.map_or(Verdict::Exhausted, Verdict::Retry);
    note_unsent(committer, begun, verdict, reason);
}

/// Attempts that are recorded and not yet in the hands of the caller. Dropped, they are made due again.
struct Unsent {
    committer: Committer,
    attempts: Vec<Begun>,
}

impl Unsent {
    fn hold(committer: &Committer, begun: &[Begun]) -> Self {
        Self { committer: committer.clone(), attempts: begun.to_vec() }
    }

    fn let_go(mut self) {
        self.attempts.clear();
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        give_back_all(&self.committer, std::mem::take(&mut self.attempts));
    }
}

/// Makes recorded attempts that nobody will make due again at once.
pub(crate) fn give_back_all(committer: &Committer, begun: Vec<Begun>) {
    for begun in begun {
        committer.note(move |batch| {
            let now = batch.now();
            complete(batch, &unsent(&begun, now, Verdict::Retry(now), OUTCOME_UNKNOWN))
        });
    }
}

fn note_unsent(committer: &Committer, begun: Begun, verdict: Verdict, reason: &'static str) {
    committer.note(move |batch| complete(batch, &unsent(&begun, batch.now(), verdict, reason)));
}

fn unsent(begun: &Begun, ended_at: Timestamp, verdict: Verdict, reason: &str) -> AttemptEnd {
    let report =
        AttemptReport { reason: Some(reason.to_owned()), thin: begun.thin, ..AttemptReport::default() };
    AttemptEnd {
        id: begun.id,
        project: None,
        url: begun.url.clone(),
        attempt: begun.attempt,
        ended_at,
        verdict,
        report,
    }
}

/// The ends of the attempts that a former process had under way: nobody knows whether they arrived, so
/// they are made again, no later than the schedule would have had it.
pub(crate) fn recover(batch: &mut Batch<'_>) -> Result<usize, Fault> {
    let mut lost = Vec::new();
    let mut statement = batch.sql(
        "SELECT run, endpoint, url, attempt, schedule_from, started_at, thin, schedule FROM deliveries
         WHERE state = 'sending' AND incarnation < ?1",
    )?;
    let mut rows = statement.query(params![batch.setting.incarnation])?;
    while let Some(row) = rows.next()? {
        let attempt: u32 = row.get(3)?;
        let begun = Begun {
            id: row::delivery_id(row, 0)?,
            url: EndpointUrl::checked(row.get_ref(2)?.as_str()?),
            attempt,
            step: attempt.saturating_sub(row.get(4)?).max(1),
            schedule: row::schedule(row, 7)?,
            thin: row.get(6)?,
            body_bytes_max: None,
            large_bytes: 0,
        };
        lost.push((begun, row::time(row, 5)?));
    }
    drop(rows);
    let now = batch.now();
    for (begun, started_at) in &lost {
        let chance = batch.setting.entropy.fraction();
        let next = retry::next_attempt(begun.schedule(), begun.step, *started_at, chance, None);
        let verdict = next.map_or(Verdict::Exhausted, Verdict::Retry);
        complete(batch, &unsent(begun, now, verdict, OUTCOME_UNKNOWN))?;
    }
    Ok(lost.len())
}

/// The condition of the index of deliveries that are given up or wait for their endpoint. A query finds the
/// index only when it says so in these words.
pub(crate) const GIVEN_UP: &str = "d.state IN ('exhausted', 'disabled')";

/// When a delivery that came to nothing was last tried; one that found its endpoint disabled never was, and counts
/// from the end of its run.
pub(crate) const LAST_TRIED: &str = "ifnull(d.ended_at, (SELECT e.ended_at FROM runs e WHERE e.id = d.run))";

/// Whether a run must be kept for the sake of its deliveries: one that was not delivered for so long after it was last
/// tried, whether it was given up or waits for its endpoint. One that was told in the thin form is kept as
/// long after the telling as others after their end: its receiver has yet to fetch the result.
pub(crate) const KEEPS_RUN: &str =
    "EXISTS (SELECT 1 FROM deliveries d WHERE d.run = r.id AND d.endpoint < 65536 AND (
    d.state IN ('pending', 'sending')
    OR (d.state IN ('exhausted', 'disabled') AND ifnull(d.ended_at, r.ended_at) >= ?3)
    OR (d.thin AND d.ended_at >= ?2)))";

/// Removes a run's deliveries and their history.
pub(crate) fn remove_of_run(batch: &Batch<'_>, run: RunId) -> Result<(), Fault> {
    batch.sql("DELETE FROM delivery_attempts WHERE run = ?1")?.execute(params![run.into_bytes()])?;
    batch.sql("DELETE FROM deliveries WHERE run = ?1")?.execute(params![run.into_bytes()])?;
    batch.sql("DELETE FROM progress WHERE run = ?1")?.execute(params![run.into_bytes()])?;
    Ok(())
}
