//! The port `Runs`: each verb as one job of the writer, or one read.

mod accept;
mod cancel;
mod claim;
mod delay;
mod end;
mod expire;
mod list;
mod progress;
mod release;
mod view;

use std::cell::OnceCell;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use queue::lease::{Lease, Release, Released};
use queue::outcome::{Cancellation, Expired, Finish, Finished, RunError};
use queue::port::{Accepted, Claim, Runs, StoreError, Stored};
use queue::progress::Progress;
use queue::reason::NO_SIGNING_KEY;
use queue::run::{CallRecord, LeasedRun, NewRun, Ready, RunFilter, RunList, RunView};
use queue::{AppId, ProjectId, RunId, Timestamp};

use crate::Store;
use crate::committer::{Committer, Need};
use crate::deliveries::{Forms, fail_unsent, give_back_all, open_callers};
use crate::fault::Fault;
use crate::reserve::Spent;

pub(crate) use end::{Begun, Cause, end_without_lease};
pub(crate) use list::FEW;
pub(crate) use progress::told;
pub(crate) use release::requeue;
pub(crate) use view::story;

#[async_trait]
impl Runs for Store {
    async fn accept(&self, run: NewRun, claim: Claim) -> Stored<Accepted> {
        let _waiting = self.inner.committer.queue_up()?;
        let bytes = run.input.len();
        self.inner
            .committer
            .lend(
                Need::Ordinary,
                bytes,
                move |batch| accept::accept(batch, &run, claim),
                |committer, accepted| {
                    if let Accepted::Leased(lease) = accepted {
                        give_back(committer, lease);
                    }
                },
            )
            .await
    }

    async fn claim(&self, app: &AppId, max: usize, bytes_max: usize) -> Stored<Vec<LeasedRun>> {
        let app = app.clone();
        self.inner
            .committer
            .lend(
                Need::Ordinary,
                0,
                move |batch| claim::claim(batch, &app, max, bytes_max),
                |committer, runs| runs.into_iter().for_each(|run| give_back(committer, run.lease)),
            )
            .await
    }

    fn started(&self, leases: Vec<Lease>) {
        self.inner.committer.note(move |batch| claim::started(batch, &leases));
    }

    fn progress(&self, told: Progress) {
        if !self.inner.committer.record(move |batch| progress::keep(batch, &told)) {
            metrics::counter!("postback_progress_dropped_total").increment(1);
        }
    }

    async fn finish(&self, finish: Finish) -> Stored<Finished> {
        end::check(&finish.outcome)?;
        let file = self.write_large_result(&finish).await?;
        let bytes = if file.is_some() { 0 } else { finish.outcome.result.as_ref().map_or(0, Bytes::len) };
        let lease = finish.lease;
        let outcome = finish.outcome.clone();
        let written = file.clone();
        let ended = self
            .inner
            .committer
            .lend(
                Need::End,
                bytes,
                move |batch| end::finish(batch, &finish, file.as_deref()),
                |committer, ended| {
                    give_back_all(committer, ended.map(|ended| ended.begun).unwrap_or_default());
                },
            )
            .await;
        // What was written beside a commit that nobody can speak for may be needed.
        if let (Some(name), Ok(None) | Err(StoreError::Unavailable(_) | StoreError::Full(_))) =
            (written, &ended)
        {
            self.remove_result(name);
        }
        let Some(ended) = ended? else {
            metrics::counter!("postback_store_stale_results_total").increment(1);
            return Ok(Finished::Stale);
        };
        if ended.begun.is_empty() {
            return Ok(Finished::Recorded(Vec::new()));
        }
        let Ok(brought) = open_callers(&self.inner.vault, lease.run, ended.brought) else {
            for begun in ended.begun {
                fail_unsent(&self.inner.committer, outcome.ended_at, begun, NO_SIGNING_KEY);
            }
            return Ok(Finished::Recorded(Vec::new()));
        };
        let forms = Forms {
            run: lease.run,
            project: &ended.project,
            generation: ended.generation,
            outcome: &outcome,
            metadata: ended.metadata.as_ref(),
            links: self.inner.links(),
            now: outcome.ended_at,
            full: OnceCell::new(),
        };
        let due = ended.begun.into_iter().map(|begun| {
            let form = forms.of(&begun);
            begun.with_body(ended.project.clone(), form, brought.clone())
        });
        Ok(Finished::Recorded(due.collect()))
    }

    async fn cancel(&self, project: &ProjectId, run: RunId) -> Stored<Cancellation> {
        let project = project.clone();
        self.inner.committer.end(move |batch| cancel::cancel(batch, &project, run)).await
    }

    async fn expire(&self, now: Timestamp) -> Stored<Expired> {
        let mut all = Expired::default();
        if !self.inner.memory.readers().read(move |conn| expire::is_due(conn, now)).await? {
            return Ok(all);
        }
        loop {
            let (more, found) = self.inner.committer.end(move |batch| expire::expire(batch, now)).await?;
            all.ended += found.ended;
            all.leased = found.leased;
            if !more {
                return Ok(all);
            }
        }
    }

    async fn ready(&self, now: Timestamp) -> Stored<Ready> {
        let readers = self.inner.memory.readers();
        let mut ready = Ready { next: readers.read(delay::next).await?, ..Ready::default() };
        while ready.next.is_some_and(|next| next <= now) {
            let apps = self.inner.committer.write(0, move |batch| delay::end(batch, now)).await?;
            for (app, priority) in apps {
                match ready.apps.iter_mut().find(|(known, _)| *known == app) {
                    Some((_, highest)) => *highest = priority.max(*highest),
                    None => ready.apps.push((app, priority)),
                }
            }
            ready.next = readers.read(delay::next).await?;
        }
        Ok(ready)
    }

    async fn release(&self, lease: Lease, release: Release) -> Stored<Released> {
        self.inner.committer.end(move |batch| release::release(batch, lease, release)).await
    }

    async fn retry(&self, lease: Lease, error: RunError) -> Stored<Released> {
        self.inner.committer.end(move |batch| release::retry(batch, lease, &error)).await
    }

    fn record_call(&self, call: CallRecord) {
        if !self.inner.committer.record(move |batch| accept::record_call(batch, &call)) {
            metrics::counter!("postback_store_call_records_dropped_total").increment(1);
        }
    }

    async fn run(&self, project: &ProjectId, run: RunId) -> Stored<Option<RunView>> {
        let look = || {
            let (project, results) = (project.clone(), self.inner.results.clone());
            self.inner.memory.readers().read(move |conn| view::one(conn, &results, &project, run))
        };
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        // The record of a synchronous call may still be on its way when its caller asks for it. Reading goes on
        // when nothing can be written.
        let _ = self.inner.committer.barrier().await;
        look().await
    }

    async fn input(&self, project: &ProjectId, run: RunId) -> Stored<Option<Bytes>> {
        let project = project.clone();
        self.inner.memory.readers().read(move |conn| view::input(conn, &project, run)).await
    }

    async fn removed(&self, project: &ProjectId, run: RunId) -> Stored<Option<Timestamp>> {
        let project = project.clone();
        self.inner.memory.readers().read(move |conn| view::removed(conn, &project, run)).await
    }

    async fn runs(&self, filter: RunFilter) -> Stored<RunList> {
        self.inner.memory.readers().list(move |conn| list::page(conn, &filter)).await
    }

    async fn wait_for_end(&self, run: RunId, wait: Duration) {
        let has_ended = async {
            // When the question cannot be answered there is nothing to wait for: the caller reads the
            // run next, and gets the error there.
            let state = self.inner.memory.readers().read(move |conn| view::has_ended(conn, run)).await;
            state.unwrap_or(true)
        };
        self.inner.memory.wait_for_end(run, wait, has_ended).await;
    }

    async fn backlog(&self) -> Stored<Vec<(AppId, u64)>> {
        self.inner.committer.barrier().await?;
        self.inner.memory.readers().read(view::backlog).await
    }
}

impl Store {
    /// A result too large for the database is on the disk before the run's end is committed.
    async fn write_large_result(&self, finish: &Finish) -> Stored<Option<String>> {
        let Some(result) = finish.outcome.result.as_ref() else { return Ok(None) };
        if result.len() < self.inner.bounds.inline_result_bytes {
            return Ok(None);
        }
        if self.inner.disk_full.is_spent() {
            // It would take the space that the ends of others are recorded in.
            return Err(Spent::told());
        }
        let (files, lease, result) = (self.inner.results.clone(), finish.lease, result.clone());
        let written = tokio::task::spawn_blocking(move || files.write(&lease, &result)).await;
        match written {
            Ok(Ok(name)) => Ok(Some(name)),
            Ok(Err(error)) => {
                let run = finish.lease.run;
                let message = format!("the result of run {run} could not be written: {error}");
                Err(match Fault::File(error).is_full() {
                    true => StoreError::Full(message),
                    false => StoreError::Unavailable(message),
                })
            }
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }

    /// What was written and is not wanted. Left behind by a crash, it is swept at the next start.
    fn remove_result(&self, name: String) {
        let files = self.inner.results.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = std::fs::remove_file(files.path(&name)) {
                tracing::warn!(%error, store.file = name, "could not remove a result that nothing points at");
            }
        });
    }
}

/// Nobody took the run that was leased for them.
fn give_back(committer: &Committer, lease: Lease) {
    committer.note(move |batch| release::release(batch, lease, Release::Drained).map(|_| ()));
}
