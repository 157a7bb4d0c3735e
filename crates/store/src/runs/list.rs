//! Lists of runs: page by page, newest first, as fast with a million runs as with ten.
//!
//! What a filter can say by an index or by the time in the ids is found at once. What it says of texts is found by
//! looking at runs one by one, and such a look is bounded: it says where it stopped.

use std::collections::BinaryHeap;

use queue::limits::{RUNS_SEARCHED_MAX, SEARCHED_BYTES_MAX};
use queue::outcome::RunError;
use queue::run::{RunFilter, RunList, RunState, RunView};
use queue::search::Said;
use queue::{AppId, ProjectId, RunId};
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row, Rows, params};

use super::view::{COLUMNS, read};
use crate::fault::Fault;
use crate::row;

/// Rows of an index that are looked at to find those of a list. Where there are more of a kind, the list is full
/// soon on the way from the newest one.
pub(crate) const FEW: i64 = if cfg!(test) { 1_000 } else { 10_000 };

/// A way to find an app's runs. The conditions are literals: the planner sees which index holds such rows.
#[derive(Clone, Copy)]
enum Way {
    /// From the newest on: the runs of an app lie in order in one index.
    InOrder,
    /// Through the index of those in one state, which holds few.
    Queued,
    Delayed,
    Running,
    /// Through the index of those without a result, which is in the order of the list.
    Failed,
    Cancelled,
    Expired,
}

impl Way {
    const fn from(self) -> &'static str {
        match self {
            Self::InOrder => "runs r",
            Self::Queued => "runs r INDEXED BY runs_queued",
            Self::Delayed => "runs r INDEXED BY runs_delayed_by_app",
            Self::Running => "runs r INDEXED BY runs_running",
            Self::Failed | Self::Cancelled | Self::Expired => "runs r INDEXED BY runs_without_result",
        }
    }

    const fn condition(self) -> &'static str {
        match self {
            Self::InOrder => "r.app = ?1",
            Self::Queued => "r.app = ?1 AND r.state = 'queued' AND r.delayed = 0",
            Self::Delayed => "r.app = ?1 AND r.state = 'queued' AND r.delayed = 1",
            Self::Running => "r.state = 'running' AND r.app = ?1",
            Self::Failed => "r.app = ?1 AND r.state = 'failed'",
            Self::Cancelled => "r.app = ?1 AND r.state = 'cancelled'",
            Self::Expired => "r.app = ?1 AND r.state = 'expired'",
        }
    }

    /// What a look at a run costs a search. An index names the run and no more: the rest is a jump away.
    const fn cost(self) -> usize {
        if matches!(self, Self::InOrder) { 1 } else { 2 }
    }

    /// Whether the index has few rows for the app.
    fn has_few(self, conn: &Connection, number: i64) -> Result<bool, Fault> {
        let app = if matches!(self, Self::Running) {
            "?1 IS NOT NULL AND r.state = 'running'"
        } else {
            self.condition()
        };
        let text = format!("SELECT count(*) FROM (SELECT 1 FROM {} WHERE {app} LIMIT ?2)", self.from());
        let mut statement = conn.prepare_cached(&text)?;
        let found: i64 = statement.query_row(params![number, FEW], |row| row.get(0))?;
        Ok(found < FEW)
    }
}

/// The ways that find the runs in a state.
fn ways(conn: &Connection, state: Option<RunState>, number: i64) -> Result<&'static [Way], Fault> {
    let ways: &[Way] = match state {
        Some(RunState::Queued) => &[Way::Queued, Way::Delayed],
        Some(RunState::Running) => &[Way::Running],
        Some(RunState::Failed) => &[Way::Failed],
        Some(RunState::Cancelled) => &[Way::Cancelled],
        Some(RunState::Expired) => &[Way::Expired],
        Some(RunState::Succeeded) | None => &[Way::InOrder],
    };
    for way in ways {
        if matches!(way, Way::Queued | Way::Delayed | Way::Running) && !way.has_few(conn, number)? {
            return Ok(&[Way::InOrder]);
        }
    }
    Ok(ways)
}

/// Newest first. Those of several apps, or found in several ways, are merged.
pub(super) fn page(conn: &Connection, filter: &RunFilter) -> Result<RunList, Fault> {
    let places = places(conn, filter)?;
    // What no index tells apart is looked for like a text: there may be few of it among very many.
    let by_state = filter.state.is_some() && places.iter().any(|(_, way)| matches!(way, Way::InOrder));
    if by_state || filter.async_only || !filter.search.is_empty() {
        return search(conn, filter, &places, SEARCHED_MAX);
    }
    let mut runs = Vec::new();
    for (number, way) in places {
        of_app(conn, filter, number, way, &mut runs)?;
    }
    runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.id));
    runs.truncate(filter.limit);
    let next = if runs.len() == filter.limit { runs.last().map(|run| run.id) } else { None };
    let looked = runs.len();
    Ok(RunList { runs, next, looked })
}

/// Where the runs of a list lie: under the numbers of apps, each with the ways that find them.
fn places(conn: &Connection, filter: &RunFilter) -> Result<Vec<(i64, Way)>, Fault> {
    let mut places = Vec::new();
    for number in numbers(conn, &filter.project, filter.app.as_ref())? {
        places.extend(ways(conn, filter.state, number)?.iter().map(|way| (number, *way)));
    }
    Ok(places)
}

fn numbers(conn: &Connection, project: &ProjectId, app: Option<&AppId>) -> Result<Vec<i64>, Fault> {
    let mut statement = conn
        .prepare_cached("SELECT number FROM app_numbers WHERE project = ?1 AND (?2 IS NULL OR app = ?2)")?;
    let numbers = statement.query_map(params![project.as_str(), app.map(AppId::as_str)], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn of_app(
    conn: &Connection,
    filter: &RunFilter,
    number: i64,
    way: Way,
    runs: &mut Vec<RunView>,
) -> Result<(), Fault> {
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let bounds = bounds(filter);
    let mut statement = conn.prepare_cached(&listed(way, &bounds))?;
    let mut rows = statement.query(bounds.values(&[&number, &limit]).as_slice())?;
    while let Some(row) = rows.next()? {
        runs.push(read(row)?);
    }
    Ok(())
}

fn listed(way: Way, bounds: &Bounds) -> String {
    // The order of the joins keeps the order of the list where it is found in order.
    format!(
        "SELECT {COLUMNS} FROM {} CROSS JOIN app_numbers n ON n.number = r.app WHERE {}{} ORDER BY r.id DESC LIMIT ?2",
        way.from(),
        way.condition(),
        bounds.condition(2)
    )
}

/// Between which ids the runs of a list lie. Ids begin with the time of acceptance.
struct Bounds {
    from: Option<[u8; 16]>,
    below: Option<[u8; 16]>,
}

fn bounds(filter: &RunFilter) -> Bounds {
    Bounds { from: filter.from().map(RunId::into_bytes), below: filter.below().map(RunId::into_bytes) }
}

impl Bounds {
    /// What to say in a statement that has so many values before …
    fn condition(&self, before: usize) -> String {
        let bounds =
            [(&self.from, ">="), (&self.below, "<")].into_iter().filter(|(bound, _)| bound.is_some());
        let said =
            bounds.enumerate().map(|(index, (_, than))| format!(" AND r.id {than} ?{}", before + 1 + index));
        said.collect()
    }

    /// … and its values then.
    fn values<'a>(&'a self, before: &[&'a dyn ToSql]) -> Vec<&'a dyn ToSql> {
        let bounds = [&self.from, &self.below].into_iter().flatten().map(|bound| bound as &dyn ToSql);
        before.iter().copied().chain(bounds).collect()
    }
}

/// Runs that one search looks at.
const SEARCHED_MAX: usize = if cfg!(test) { 50 } else { RUNS_SEARCHED_MAX };

/// Runs that say what is searched for: looks at no more than `most`, or half as many through an index, the newest of
/// all places first.
fn search(
    conn: &Connection,
    filter: &RunFilter,
    places: &[(i64, Way)],
    most: usize,
) -> Result<RunList, Fault> {
    let bounds = bounds(filter);
    let mut statements = Vec::new();
    for (number, way) in places {
        statements.push((conn.prepare_cached(&looked_at(*way, filter, &bounds))?, number));
    }
    let mut walks = Vec::new();
    for (statement, number) in &mut statements {
        walks.push(statement.query(bounds.values(&[number]).as_slice())?);
    }
    let mut heads = BinaryHeap::new();
    for (place, walk) in walks.iter_mut().enumerate() {
        heads.extend(head(walk, filter, place)?);
    }
    let mut show = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM runs r JOIN app_numbers n ON n.number = r.app WHERE r.id = ?1"
    ))?;
    let (mut list, mut last, mut cost) = (RunList::default(), None, 0);
    while let Some((id, place, fits)) = heads.pop() {
        if cost >= most || list.runs.len() == filter.limit {
            list.next = last;
            break;
        }
        (cost, last) = (cost + places[place].1.cost(), Some(id));
        list.looked += 1;
        if fits {
            let mut rows = show.query(params![id.into_bytes()])?;
            list.runs.extend(rows.next()?.map(read).transpose()?);
        }
        heads.extend(head(&mut walks[place], filter, place)?);
    }
    Ok(list)
}

/// The next run of a walk, and whether it is looked for.
fn head(
    walk: &mut Rows<'_>,
    filter: &RunFilter,
    place: usize,
) -> Result<Option<(RunId, usize, bool)>, Fault> {
    let Some(row) = walk.next()? else { return Ok(None) };
    let id = row::run_id(row, 0)?;
    Ok(Some((id, place, fits(row, filter, id)?)))
}

/// What a search looks at, newest first: one walk, in which each run is found once. A long result is not read at all.
fn looked_at(way: Way, filter: &RunFilter, bounds: &Bounds) -> String {
    let (result, results) = if filter.search.reads_results() {
        (
            format!("CASE WHEN length(s.body) <= {SEARCHED_BYTES_MAX} THEN s.body END"),
            "LEFT JOIN results s ON s.run = r.id",
        )
    } else {
        ("NULL".to_owned(), "")
    };
    format!(
        "SELECT r.id, r.mode = 'async', r.state, r.function, r.error, r.metadata, r.warning, {result}
         FROM {} {results} WHERE {}{} ORDER BY r.id DESC",
        way.from(),
        way.condition(),
        bounds.condition(1)
    )
}

fn fits(row: &Row<'_>, filter: &RunFilter, id: RunId) -> Result<bool, Fault> {
    if filter.async_only && !row.get::<_, bool>(1)? {
        return Ok(false);
    }
    if let Some(state) = filter.state
        && row::state(row, 2)? != state
    {
        return Ok(false);
    }
    if filter.search.is_empty() {
        return Ok(true);
    }
    let error: Option<RunError> = row::optional_json(row, 4)?;
    Ok(filter.search.fits(&Said {
        id,
        function: row.get_ref(3)?.as_str()?,
        error: error.as_ref(),
        metadata: row.get_ref(5)?.as_str_or_null()?,
        warning: row.get_ref(6)?.as_str_or_null()?,
        result: row.get_ref(7)?.as_blob_or_null()?,
    }))
}

#[cfg(test)]
#[path = "list/tests.rs"]
mod tests;
