//! Long work in steps: what waits for an endpoint that was disabled, what is queued of an app that was deleted, and
//! what is to be delivered once more.
//!
//! It is written down before it is begun, and each step with how far it has come, so a start that follows a crash
//! goes on where it stopped. The writer does one step beside the writes that wait: none of them waits for more than
//! that, however much there is to do. A chore whose step fails is said so in the log and tried again after a
//! growing pause, while others go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use queue::delivery::Endpoints;
use queue::port::{StoreError, Stored};
use queue::run::{EndpointUrl, Receiver};
use queue::{DeliveryId, ProjectId, RunId, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::Store;
use crate::batch::Batch;
use crate::committer::{Health, Job, Place};
use crate::deliveries::{self, Failed};
use crate::fault::Fault;
use crate::{registry, row};

/// Rows changed in one step.
pub(crate) const CHANGED_PER_STEP: usize = 250;
/// Rows looked at in one step.
pub(crate) const LOOKED_AT_PER_STEP: usize = 2_500;
/// Steps of a chore that somebody cannot wait for.
const STEPS_AT_ONCE_MAX: usize = 20;
/// The pause after a step that failed, doubled by each further one …
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// What is pending for a disabled endpoint waits for it.
    SetAside(ProjectId, EndpointUrl),
    /// What is queued of a deleted app ends.
    Cancel(i64),
    /// What failed is due once more.
    Redeliver(Wish),
}

/// Somebody wants to have delivered once more what failed at its last attempt.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) project: ProjectId,
    pub(crate) endpoints: Endpoints,
    pub(crate) since: Timestamp,
    /// When it was wished: what fails later is another matter.
    pub(crate) until: Timestamp,
    pub(crate) which: Failed,
}

/// A place in the order in which a chore looks at rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) at: i64,
    pub(crate) run: RunId,
    pub(crate) endpoint: i64,
}

impl Position {
    /// Before every row.
    pub(crate) const START: Self = Self { at: i64::MIN, run: RunId::from_bytes([0; 16]), endpoint: -1 };

    /// After the rows of this time, whatever their ids.
    fn after(at: Timestamp) -> Self {
        Self { at: at.as_millis(), run: RunId::from_bytes([0xff; 16]), endpoint: i64::MAX }
    }

    pub(crate) fn of(at: i64, id: DeliveryId) -> Self {
        Self { at, run: id.run, endpoint: row::delivery_number(id) }
    }
}

/// What a step did.
pub(crate) struct Step {
    pub(crate) changed: usize,
    /// Where the next one goes on; `None` when nothing is left.
    pub(crate) next: Option<Position>,
}

#[derive(Clone, Debug)]
struct Chore {
    work: Work,
    position: Position,
    changed: u64,
}

/// What is left to do. Usually nothing.
#[derive(Default)]
pub(crate) struct Chores {
    by_number: BTreeMap<i64, Chore>,
    /// Endpoints that are disabled and of which not everything pending knows.
    unaware: HashMap<(ProjectId, EndpointUrl), i64>,
}

impl Chores {
    pub(crate) fn load(conn: &Connection) -> Result<Self, Fault> {
        let mut statement = conn.prepare(
            "SELECT number, at, run, endpoint, changed, kind, app, project, receiver, url, since, until
             FROM chores WHERE done = 0",
        )?;
        let mut rows = statement.query([])?;
        let mut chores = Self::default();
        while let Some(row) = rows.next()? {
            let position = Position { at: row.get(1)?, run: row::run_id(row, 2)?, endpoint: row.get(3)? };
            chores.insert(row.get(0)?, Chore { work: read(row)?, position, changed: row.get(4)? });
        }
        Ok(chores)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Whether deliveries to disabled endpoints may be pending.
    pub(crate) fn has_unaware(&self) -> bool {
        !self.unaware.is_empty()
    }

    /// The chore that sets aside what is pending for an endpoint.
    pub(crate) fn setting_aside(&self, endpoint: &(ProjectId, EndpointUrl)) -> Option<i64> {
        self.unaware.get(endpoint).copied()
    }

    fn insert(&mut self, number: i64, chore: Chore) {
        if let Work::SetAside(project, url) = &chore.work {
            self.unaware.insert((project.clone(), url.clone()), number);
        }
        self.by_number.insert(number, chore);
    }

    fn remove(&mut self, number: i64) {
        if let Some(Chore { work: Work::SetAside(project, url), .. }) = self.by_number.remove(&number) {
            self.unaware.remove(&(project, url));
        }
    }
}

fn read(row: &Row<'_>) -> Result<Work, Fault> {
    let endpoints = || {
        Ok::<_, Fault>(match row.get_ref(9)?.as_str_or_null()? {
            Some(url) => Endpoints::One(EndpointUrl::checked(url)),
            None => Endpoints::Of(Receiver::stored(row.get_ref(8)?.as_str()?)),
        })
    };
    let wish = |which| {
        let (since, until) = (row::time(row, 10)?, row::time(row, 11)?);
        let project = row::parsed(row, 7)?;
        Ok::<_, Fault>(Work::Redeliver(Wish { project, endpoints: endpoints()?, since, until, which }))
    };
    match row.get_ref(5)?.as_str()? {
        "set_aside" => {
            Ok(Work::SetAside(row::parsed(row, 7)?, EndpointUrl::checked(row.get_ref(9)?.as_str()?)))
        }
        "cancel" => Ok(Work::Cancel(row.get(6)?)),
        "redeliver_given_up" => wish(Failed::ForGood),
        "redeliver_pending" => wish(Failed::SoFar),
        other => Err(Fault::Corrupt(format!("a chore of the kind `{other}`"))),
    }
}

/// Writes down what is to be done. Returns its number.
pub(crate) fn add(batch: &mut Batch<'_>, work: Work) -> Result<i64, Fault> {
    let mut position = Position::START;
    let (kind, app, project, endpoints, times) = match &work {
        Work::SetAside(project, url) => {
            ("set_aside", None, Some(project), Some(Endpoints::One(url.clone())), None)
        }
        Work::Cancel(app) => ("cancel", Some(*app), None, None, None),
        Work::Redeliver(Wish { project, endpoints, since, until, which }) => {
            let kind = match which {
                Failed::ForGood => "redeliver_given_up",
                Failed::SoFar => {
                    // What is due already needs no help.
                    position = Position::after(*until);
                    "redeliver_pending"
                }
            };
            (kind, None, Some(project), Some(endpoints.clone()), Some((since.as_millis(), until.as_millis())))
        }
    };
    let receiver = endpoints.as_ref().map(Endpoints::receiver);
    batch
        .sql(
            "INSERT INTO chores (kind, app, project, receiver, url, since, until, at, run, endpoint)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            kind,
            app,
            project.map(ProjectId::as_str),
            receiver.as_ref().map(Receiver::as_str),
            endpoints.as_ref().and_then(Endpoints::url).map(EndpointUrl::as_str),
            times.map(|(since, _)| since),
            times.map(|(_, until)| until),
            position.at,
            position.run.into_bytes(),
            position.endpoint,
        ])?;
    let number = batch.conn.last_insert_rowid();
    batch.books.chores.insert(number, Chore { work, position, changed: 0 });
    Ok(number)
}

/// One step of a chore, if it is not done.
pub(crate) fn step(batch: &mut Batch<'_>, number: i64) -> Result<(), Fault> {
    let Some(Chore { work, position, changed }) = batch.books.chores.by_number.get(&number).cloned() else {
        return Ok(());
    };
    let step = match &work {
        Work::SetAside(project, url) => deliveries::set_aside(batch, project, url, position)?,
        Work::Cancel(app) => registry::cancel_queued(batch, *app, position)?,
        Work::Redeliver(wish) => deliveries::redeliver_some(batch, wish, position)?,
    };
    let changed = changed + step.changed as u64;
    if let Some(position) = step.next {
        batch
            .sql("UPDATE chores SET at = ?2, run = ?3, endpoint = ?4, changed = ?5 WHERE number = ?1")?
            .execute(params![number, position.at, position.run.into_bytes(), position.endpoint, changed])?;
        batch.books.chores.by_number.insert(number, Chore { work, position, changed });
        return Ok(());
    }
    if matches!(work, Work::Redeliver(_)) {
        batch
            .sql("UPDATE chores SET changed = ?2, done = 1 WHERE number = ?1")?
            .execute(params![number, changed])?;
    } else {
        batch.sql("DELETE FROM chores WHERE number = ?1")?.execute([number])?;
    }
    batch.books.chores.remove(number);
    Ok(())
}

/// Cancels all that is queued of a deleted app, now: it is about to be there again.
///
/// # Errors
/// When more is queued than one write may change; the chore goes on meanwhile.
pub(crate) fn finish_cancelling(batch: &mut Batch<'_>, app: i64) -> Result<(), Fault> {
    let is_cancelling = |(_, chore): &(&i64, &Chore)| matches!(chore.work, Work::Cancel(of) if of == app);
    for _ in 0..STEPS_AT_ONCE_MAX {
        let Some(number) = batch.books.chores.by_number.iter().find(is_cancelling).map(|(number, _)| *number)
        else {
            return Ok(());
        };
        step(batch, number)?;
    }
    Err(Fault::Refused(
        "runs of the deleted app of this name are still being cancelled; try again in a moment".into(),
    ))
}

/// Deliveries became due at another time: those that are set aside by that are looked for from the start.
pub(crate) fn begin_anew(batch: &mut Batch<'_>) -> Result<(), Fault> {
    let Position { at, run, endpoint } = Position::START;
    batch
        .sql("UPDATE chores SET at = ?1, run = ?2, endpoint = ?3 WHERE kind = 'set_aside'")?
        .execute(params![at, run.into_bytes(), endpoint])?;
    batch.effects.books = true;
    Ok(())
}

/// How much was changed, once all of these are done; it is told once.
fn take_done(batch: &mut Batch<'_>, numbers: &[i64]) -> Result<Option<u64>, Fault> {
    if numbers.iter().any(|number| batch.books.chores.by_number.contains_key(number)) {
        return Ok(None);
    }
    let mut changed = 0;
    for number in numbers {
        let mut statement = batch.sql("DELETE FROM chores WHERE number = ?1 RETURNING changed")?;
        let mut rows = statement.query([number])?;
        while let Some(row) = rows.next()? {
            changed += row.get::<_, u64>(0)?;
        }
    }
    Ok(Some(changed))
}

/// Forgets counts for which nobody came.
pub(crate) fn forget_done(conn: &Connection) -> Result<(), Fault> {
    conn.execute("DELETE FROM chores WHERE done = 1", [])?;
    Ok(())
}

impl Store {
    /// Waits until the writer has done these. Returns how many rows they changed. After an error they go on all
    /// the same, as soon as they can.
    pub(crate) async fn done(&self, numbers: Vec<i64>) -> Stored<u64> {
        loop {
            let asked = numbers.clone();
            // The next step is in the same transaction as the question.
            let answer = self.inner.committer.write(0, move |batch| take_done(batch, &asked)).await?;
            if let Some(changed) = answer {
                return Ok(changed);
            }
            if let Some(error) = numbers.iter().find_map(|number| self.inner.committer.trouble().of(*number))
            {
                return Err(error);
            }
        }
    }
}

/// Chores whose last step failed.
#[derive(Default)]
pub(crate) struct Trouble(Mutex<HashMap<i64, Failure>>);

struct Failure {
    error: StoreError,
    pause: Duration,
    until: Instant,
}

impl Trouble {
    fn of(&self, number: i64) -> Option<StoreError> {
        self.lock().get(&number).map(|failure| failure.error.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chore whose turn it is: the first that did not fail just now. Else how long until one may be tried.
    pub(crate) fn next(&self, chores: &Chores, now: Instant) -> Result<i64, Duration> {
        let mut failures = self.lock();
        if !failures.is_empty() {
            failures.retain(|number, _| chores.by_number.contains_key(number));
        }
        let wait = |number| failures.get(number).map_or(Duration::ZERO, |failure| failure.until - now);
        let next = chores.by_number.keys().map(|number| (wait(number), *number)).min();
        match next {
            Some((Duration::ZERO, number)) => Ok(number),
            Some((wait, _)) => Err(wait),
            None => Err(Duration::MAX),
        }
    }

    fn ended(&self, number: i64, result: Result<(), StoreError>) {
        let mut failures = self.lock();
        let Err(error) = result else {
            if !failures.is_empty() {
                failures.remove(&number);
            }
            return;
        };
        let pause = failures.get(&number).map_or(PAUSE_FIRST, |failure| (failure.pause * 2).min(PAUSE_MAX));
        metrics::counter!("postback_store_chore_failures_total").increment(1);
        tracing::error!(
            %error,
            chore.number = number,
            chore.pause_secs = pause.as_secs(),
            "a step of long work failed; it is tried again"
        );
        failures.insert(number, Failure { error, pause, until: Instant::now() + pause });
    }
}

/// The next step of a chore, as a job of the writer's own.
pub(crate) struct NextStep {
    pub(crate) number: i64,
    pub(crate) health: Arc<Health>,
}

impl Job for NextStep {
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        step(batch, self.number)
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        self.health.trouble.ended(self.number, result);
    }

    fn place(&self) -> Place {
        Place::Own
    }

    fn bytes(&self) -> usize {
        0
    }

    /// It has time until there is space.
    fn may_draw(&self) -> bool {
        false
    }
}
