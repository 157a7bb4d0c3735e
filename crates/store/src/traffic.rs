//! How much happened, counted beside the writes and written down every few seconds.
//!
//! Promise: what is counted was committed, and is counted once. What was counted in the last seconds before a
//! crash is missing here; the runs themselves never are. A figure costs a run one look into a small map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use queue::port::{Stored, Traffic};
use queue::traffic::{AtLeast, Count, Happened, Slice, Span, Standing};
use queue::{AppId, ProjectId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::Store;
use crate::batch::Batch;
use crate::fault::Fault;

/// What waits is counted no further.
const COUNTED_MAX: u64 = 10_000;
/// Slices kept beyond those of a whole span: what begins at its edge is still drawn.
const SPARE_SLICES: i64 = 2;

/// Whose figure it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    /// Runs are counted by the number of their app …
    App(i64),
    /// … and deliveries by project.
    Project(ProjectId),
}

/// A figure: the minute since 1970, whose, and what happened.
type Figure = (i64, Whose, Happened);

/// Figures of one transaction, or of several.
#[derive(Default)]
pub(crate) struct Tally(HashMap<Figure, Count>);

impl Tally {
    pub(crate) fn add(&mut self, whose: Whose, what: Happened, at: Timestamp, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.merge((Span::Hour.slice_of(at), whose, what), Count { times: 1, millis });
    }

    fn merge(&mut self, figure: Figure, count: Count) {
        let kept = self.0.entry(figure).or_default();
        *kept = kept.plus(count);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Figures that are committed with what they count, and not written down yet.
#[derive(Default)]
pub(crate) struct Unwritten {
    kept: Mutex<Tally>,
}

impl Unwritten {
    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures of a transaction that is durable.
    pub(crate) fn add(&self, tally: Tally) {
        if !tally.is_empty() {
            let mut kept = self.lock();
            tally.0.into_iter().for_each(|(figure, count)| kept.merge(figure, count));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn taken(&self) -> Tally {
        std::mem::take(&mut *self.lock())
    }
}

/// Writes the figures down. They are on their way into this transaction; when it fails they are gone, which is
/// better than to count them twice.
pub(crate) fn write(batch: &Batch<'_>, unwritten: &Unwritten) -> Result<(), Fault> {
    let mut sums = HashMap::<(Span, i64, Whose, Happened), Count>::new();
    for ((minute, whose, what), count) in unwritten.taken().0 {
        let at = Span::Hour.begin_of(minute);
        for span in Span::ALL {
            let sum = sums.entry((span, span.slice_of(at), whose.clone(), what)).or_default();
            *sum = sum.plus(count);
        }
    }
    let mut statement = batch.sql(
        "INSERT INTO traffic (step, slice, app, project, what, times, millis) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET times = times + excluded.times, millis = millis + excluded.millis",
    )?;
    for ((span, slice, whose, what), count) in sums {
        let (app, project) = match &whose {
            // One that is forgotten already counts no more.
            Whose::App(number) => match batch.books.projects.get(number) {
                Some(project) => (*number, project),
                None => continue,
            },
            Whose::Project(project) => (0, project),
        };
        let step = span.step().as_secs();
        statement.execute(params![
            step,
            slice,
            app,
            project.as_str(),
            what.place(),
            count.times,
            count.millis
        ])?;
    }
    Ok(())
}

impl Store {
    /// Writes down what was counted since the last time. Call every few seconds; nobody waits.
    pub fn write_traffic(&self) {
        if !self.inner.memory.unwritten().is_empty() {
            let memory = Arc::clone(&self.inner.memory);
            self.inner.committer.note(move |batch| write(batch, memory.unwritten()));
        }
    }
}

/// Removes figures that no span reaches any more.
pub(crate) fn forget_old(batch: &Batch<'_>, now: Timestamp) -> Result<(), Fault> {
    for span in Span::ALL {
        let oldest = first_slice(span, now) - SPARE_SLICES;
        batch
            .sql("DELETE FROM traffic WHERE step = ?1 AND slice < ?2")?
            .execute(params![span.step().as_secs(), oldest])?;
    }
    Ok(())
}

fn first_slice(span: Span, now: Timestamp) -> i64 {
    span.slice_of(now) + 1 - i64::try_from(span.slices()).unwrap_or(0)
}

#[async_trait]
impl Traffic for Store {
    async fn traffic(
        &self,
        project: &ProjectId,
        app: Option<&AppId>,
        span: Span,
        now: Timestamp,
    ) -> Stored<Vec<Slice>> {
        let first = first_slice(span, now);
        let mut slices: Vec<_> = (first..=span.slice_of(now))
            .map(|slice| Slice { at: span.begin_of(slice), counts: Default::default() })
            .collect();
        let mut add = |slice: i64, what: usize, count: Count| {
            let place = usize::try_from(slice - first).ok();
            if let Some(sum) = place.and_then(|place| slices.get_mut(place)?.counts.get_mut(what)) {
                *sum = sum.plus(count);
            }
        };
        let (of, app) = (project.clone(), app.cloned());
        let look = move |conn: &Connection| written(conn, &of, app.as_ref(), span, first);
        let Written { numbers, whole, rows } = self.inner.memory.readers().read(look).await?;
        for (slice, what, count) in rows {
            add(slice, what, count);
        }
        for ((minute, whose, what), count) in &self.inner.memory.unwritten().lock().0 {
            let counts = match whose {
                Whose::App(number) => numbers.contains(number),
                Whose::Project(theirs) => whole && theirs == project,
            };
            if counts {
                add(span.slice_of(Span::Hour.begin_of(*minute)), what.place(), *count);
            }
        }
        Ok(slices)
    }

    async fn standing(&self, project: &ProjectId) -> Stored<Standing> {
        let project = project.clone();
        self.inner.memory.readers().read(move |conn| standing(conn, &project)).await
    }
}

/// What the database has of a span.
struct Written {
    /// Of these apps.
    numbers: Vec<i64>,
    /// Of all the project's, and so of its deliveries.
    whole: bool,
    rows: Vec<(i64, usize, Count)>,
}

fn written(
    conn: &Connection,
    project: &ProjectId,
    app: Option<&AppId>,
    span: Span,
    first: i64,
) -> Result<Written, Fault> {
    let numbers = numbers(conn, project, app)?;
    // One app's, or none by this name.
    let only = app.map(|_| numbers.first().copied().unwrap_or(-1));
    let mut statement = conn.prepare_cached(
        "SELECT slice, what, sum(times), sum(millis) FROM traffic
         WHERE project = ?1 AND step = ?2 AND slice >= ?3 AND (?4 IS NULL OR app = ?4)
         GROUP BY slice, what",
    )?;
    let mut found = statement.query(params![project.as_str(), span.step().as_secs(), first, only])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push((row.get(0)?, row.get(1)?, Count { times: row.get(2)?, millis: row.get(3)? }));
    }
    Ok(Written { numbers, whole: app.is_none(), rows })
}

fn numbers(conn: &Connection, project: &ProjectId, app: Option<&AppId>) -> Result<Vec<i64>, Fault> {
    let mut statement = conn
        .prepare_cached("SELECT number FROM app_numbers WHERE project = ?1 AND (?2 IS NULL OR app = ?2)")?;
    let numbers = statement.query_map(params![project.as_str(), app.map(AppId::as_str)], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn standing(conn: &Connection, project: &ProjectId) -> Result<Standing, Fault> {
    let mut standing = Standing::default();
    let numbers = numbers(conn, project, None)?;
    let mut first = conn.prepare_cached(
        "SELECT accepted_at FROM runs WHERE app = ?1 AND state = 'queued' AND delayed = 0
         ORDER BY priority DESC, accepted_at LIMIT 1",
    )?;
    let mut queued = conn.prepare_cached(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM runs WHERE app = ?1 AND state = 'queued' AND delayed = 0
                     LIMIT ?2))
              + (SELECT count(*) FROM (SELECT 1 FROM runs WHERE app = ?1 AND state = 'queued' AND delayed = 1
                     LIMIT ?2))",
    )?;
    let mut waiting = 0;
    for number in &numbers {
        let since: Option<i64> = first.query_row(params![number], |row| row.get(0)).optional()?;
        let since = since.map(Timestamp::from_millis);
        standing.queued_since = [standing.queued_since, since].into_iter().flatten().min();
        waiting += queued.query_row(params![number, COUNTED_MAX + 1], |row| row.get::<_, u64>(0))?;
    }
    standing.queued = at_least(waiting);
    // What is running is bounded by what replicas take.
    let mut statement = conn.prepare_cached("SELECT app FROM runs WHERE state = 'running'")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        standing.running += u64::from(numbers.contains(&row.get(0)?));
    }
    // In this order: from the few deliveries that are pending to their runs, not from all runs of an app.
    let mut statement = conn.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM deliveries d CROSS JOIN runs r ON r.id = d.run
             WHERE d.state = 'pending' AND r.app IN (SELECT number FROM app_numbers WHERE project = ?1)
             LIMIT ?2)",
    )?;
    let pending = statement.query_row(params![project.as_str(), COUNTED_MAX + 1], |row| row.get(0))?;
    standing.pending = at_least(pending);
    standing.disabled_endpoints = conn
        .prepare_cached("SELECT count(*) FROM endpoints WHERE project = ?1")?
        .query_row(params![project.as_str()], |row| row.get(0))?;
    Ok(standing)
}

fn at_least(counted: u64) -> AtLeast {
    AtLeast { count: counted.min(COUNTED_MAX), more: counted > COUNTED_MAX }
}
