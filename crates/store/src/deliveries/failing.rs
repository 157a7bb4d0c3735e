//! Endpoints to which nothing gets through: since when, and how often it was tried.
//!
//! A failed attempt writes a row, the next success takes it away, and a row that is old enough when a
//! delivery is given up disables its endpoint. An attempt that succeeds looks into memory only, unless its
//! endpoint may be failing.

use std::collections::HashSet;
use std::time::Duration;

use queue::delivery::AttemptEnd;
use queue::retry::SCHEDULE;
use queue::run::EndpointUrl;
use queue::webhook::Schedule;
use queue::{ProjectId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::complete::endpoint;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

/// Addresses held in memory. With more of them failing, every success looks into the table.
const HELD_MAX: usize = 10_000;

/// The addresses that may have a row.
#[derive(Default)]
pub(crate) struct Failing {
    held: HashSet<EndpointUrl>,
    overflowed: bool,
}

impl Failing {
    pub(crate) fn load(conn: &Connection) -> Result<Self, Fault> {
        let mut statement =
            conn.prepare(&format!("SELECT DISTINCT url FROM endpoint_failures LIMIT {}", HELD_MAX + 1))?;
        let mut rows = statement.query([])?;
        let mut failing = Self::default();
        while let Some(row) = rows.next()? {
            failing.insert(&EndpointUrl::checked(row.get_ref(0)?.as_str()?));
        }
        Ok(failing)
    }

    fn insert(&mut self, url: &EndpointUrl) {
        if self.held.len() < HELD_MAX {
            self.held.insert(url.clone());
        } else if !self.held.contains(url) {
            self.overflowed = true;
        }
    }

    fn may_hold(&self, url: &EndpointUrl) -> bool {
        self.overflowed || (!self.held.is_empty() && self.held.contains(url))
    }
}

/// How long nothing has got through to an endpoint.
pub(super) struct Failure {
    since: Timestamp,
    attempts: u32,
}

impl Failure {
    /// Whether a whole schedule's time went by, with as many attempts as it has: the product's, or that of
    /// the delivery which was given up. A shorter one says nothing about its endpoint.
    pub(super) fn is_hopeless(&self, own: Option<&Schedule>, now: Timestamp) -> bool {
        let went_by = |waits: &[Duration]| {
            usize::try_from(self.attempts).is_ok_and(|attempts| attempts >= waits.len())
                && self.since.plus(waits.iter().sum()) <= now
        };
        let is_long = |waits: &&[Duration]| waits.iter().sum::<Duration>() >= SCHEDULE.iter().sum();
        went_by(&SCHEDULE) || own.map(Schedule::waits).filter(is_long).is_some_and(went_by)
    }

    /// Why the endpoint is disabled, for people.
    pub(super) fn reason(&self, end: &AttemptEnd) -> String {
        let last = end.report.reason.as_deref().unwrap_or("unknown");
        let status = end.report.status_code.map(|status| format!(" {status}")).unwrap_or_default();
        format!(
            "exhausted: {} attempts failed since {}, the last with {last}{status}",
            self.attempts,
            self.since.to_rfc3339()
        )
    }
}

/// Notes that an attempt failed which began at `started_at`.
pub(super) fn note_failure(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    url: &EndpointUrl,
    started_at: Timestamp,
    ended_at: Timestamp,
) -> Result<Failure, Fault> {
    batch.books.failing.insert(url);
    let mut statement = batch.sql(
        "INSERT INTO endpoint_failures (url, project, since, attempts, last_at) VALUES (?1, ?2, ?3, 1, ?4)
         ON CONFLICT DO UPDATE SET attempts = attempts + 1, last_at = excluded.last_at
         RETURNING since, attempts",
    )?;
    let values = params![url.as_str(), project.as_str(), started_at.as_millis(), ended_at.as_millis()];
    let mut rows = statement.query(values)?;
    let noted = match rows.next()? {
        Some(row) => Failure { since: row::time(row, 0)?, attempts: row.get(1)? },
        None => return Err(Fault::Corrupt("a noted failure has no row".to_owned())),
    };
    // The statement is done only when it has said so.
    while rows.next()?.is_some() {}
    Ok(noted)
}

/// Something got through: the endpoint works.
pub(super) fn note_success(batch: &mut Batch<'_>, end: &AttemptEnd) -> Result<(), Fault> {
    if !batch.books.failing.may_hold(&end.url) {
        return Ok(());
    }
    match endpoint(batch, end.id)? {
        Some((project, url)) => forget(batch, &project, &url),
        None => Ok(()),
    }
}

/// What failed before counts no more.
pub(super) fn forget(batch: &mut Batch<'_>, project: &ProjectId, url: &EndpointUrl) -> Result<(), Fault> {
    batch
        .sql("DELETE FROM endpoint_failures WHERE url = ?1 AND project = ?2")?
        .execute(params![url.as_str(), project.as_str()])?;
    let others = batch
        .sql("SELECT 1 FROM endpoint_failures WHERE url = ?1 LIMIT 1")?
        .query_row([url.as_str()], |_| Ok(()))
        .optional()?;
    if others.is_none() {
        batch.books.failing.held.remove(url);
    }
    Ok(())
}

/// Forgets endpoints that nobody has tried to reach since `before`.
pub(crate) fn forget_old(batch: &mut Batch<'_>, before: Timestamp) -> Result<(), Fault> {
    let forgotten =
        batch.sql("DELETE FROM endpoint_failures WHERE last_at < ?1")?.execute([before.as_millis()])?;
    batch.effects.books |= forgotten > 0;
    Ok(())
}
