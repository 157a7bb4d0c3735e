//! One transaction being filled, and what the writer remembers between transactions.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use queue::inbox::Inbox;
use queue::run::EndpointUrl;
use queue::{AppId, Clock, Entropy, InboxId, ProjectId, RunId, Timestamp};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use crate::Bounds;
use crate::chores::Chores;
use crate::deliveries::Failing;
use crate::fault::Fault;
use crate::results::ResultFiles;
use crate::row;
use crate::traffic::Tally;
use crate::vault::Vault;

/// What a job sees: the open transaction, what the writer knows by heart, and what is to happen once
/// the transaction is durable.
pub(crate) struct Batch<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) books: &'a mut Books,
    pub(crate) effects: &'a mut Effects,
    pub(crate) setting: &'a Setting,
}

/// What does not change while the store is open.
pub(crate) struct Setting {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) vault: Vault,
    pub(crate) results: ResultFiles,
    pub(crate) incarnation: i64,
    pub(crate) bounds: Bounds,
    pub(crate) batch_fill: Option<usize>,
}

impl<'a> Batch<'a> {
    /// A statement, prepared once.
    pub(crate) fn sql(&self, text: &str) -> Result<CachedStatement<'a>, Fault> {
        Ok(self.conn.prepare_cached(text)?)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.setting.clock.now()
    }

    /// The number of an app, given to it when it is first heard of.
    pub(crate) fn app(&mut self, app: &AppId) -> Result<AppNumber, Fault> {
        if let Some(known) = self.books.apps.get(app) {
            return Ok(*known);
        }
        self.conn
            .prepare_cached("INSERT INTO app_numbers (app, project) VALUES (?1, ?2)")?
            .execute(params![app.as_str(), app.project().as_str()])?;
        let known = AppNumber { number: self.conn.last_insert_rowid(), deleted: false };
        self.books.apps.insert(app.clone(), known);
        self.books.projects.insert(known.number, app.project());
        Ok(known)
    }

    /// Whether the app behind a number was deleted.
    pub(crate) fn is_deleted(&self, number: i64) -> bool {
        self.books.deleted.contains(&number)
    }
}

/// A known app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppNumber {
    pub(crate) number: i64,
    pub(crate) deleted: bool,
}

/// How much an inbox keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Captured {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

/// What the writer knows by heart. Loaded from the database, kept in step by the jobs, and loaded anew
/// when a batch was rolled back.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) apps: HashMap<AppId, AppNumber>,
    pub(crate) projects: HashMap<i64, ProjectId>,
    pub(crate) deleted: HashSet<i64>,
    /// Queued runs by app number.
    pub(crate) queued: HashMap<i64, u64>,
    /// Endpoints that take bodies of so many bytes and no more.
    pub(crate) body_limits: HashMap<(ProjectId, EndpointUrl), u64>,
    /// Addresses to which nothing gets through at the moment.
    pub(crate) failing: Failing,
    /// Endpoints that get nothing.
    pub(crate) disabled: HashSet<(ProjectId, EndpointUrl)>,
    /// Long work that is not done.
    pub(crate) chores: Chores,
    /// What inboxes keep.
    pub(crate) captured: HashMap<InboxId, Captured>,
    /// Where the fair turn of the receivers stands. Not stored: it is only a matter of order.
    pub(crate) turn: String,
    /// The receiver whose large delivery found too few bytes left and has the next ones. Not stored either.
    pub(crate) awaits_bytes: Option<String>,
}

impl Books {
    pub(crate) fn load(conn: &Connection) -> Result<Self, Fault> {
        let mut books = Self::default();
        let mut statement = conn.prepare("SELECT number, app, project, deleted_at FROM app_numbers")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            let deleted = row::optional_time(row, 3)?.is_some();
            books.apps.insert(row::parsed(row, 1)?, AppNumber { number, deleted });
            books.projects.insert(number, row::parsed(row, 2)?);
            if deleted {
                books.deleted.insert(number);
            }
        }
        let mut statement = conn.prepare(
            "SELECT app, count(*) FROM runs WHERE state = 'queued' AND delayed = 0 GROUP BY app
                          UNION ALL
                          SELECT app, count(*) FROM runs WHERE state = 'queued' AND delayed = 1 GROUP BY app",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            *books.queued.entry(row.get(0)?).or_default() += row.get::<_, u64>(1)?;
        }
        let mut statement = conn.prepare("SELECT project, url FROM endpoints")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            books.disabled.insert((row::parsed(row, 0)?, EndpointUrl::checked(row.get_ref(1)?.as_str()?)));
        }
        let mut statement = conn.prepare("SELECT project, url, body_bytes_max FROM endpoint_settings")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let endpoint = (row::parsed(row, 0)?, EndpointUrl::checked(row.get_ref(1)?.as_str()?));
            books.body_limits.insert(endpoint, row.get(2)?);
        }
        books.failing = Failing::load(conn)?;
        books.chores = Chores::load(conn)?;
        let mut statement =
            conn.prepare("SELECT inbox, count(*), sum(length(body)) FROM inbox_requests GROUP BY inbox")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let captured = Captured { requests: row.get(1)?, bytes: row.get(2)? };
            books.captured.insert(row::parsed(row, 0)?, captured);
        }
        Ok(books)
    }

    pub(crate) fn forget_app(&mut self, number: i64, app: &AppId) {
        self.apps.remove(app);
        self.projects.remove(&number);
        self.deleted.remove(&number);
        self.queued.remove(&number);
    }

    pub(crate) fn queue_grew(&mut self, app: i64) {
        *self.queued.entry(app).or_default() += 1;
    }

    pub(crate) fn queue_shrank(&mut self, app: i64) {
        if let Some(count) = self.queued.get_mut(&app) {
            *count = count.saturating_sub(1);
        }
    }

    /// The most bytes of a body that an endpoint takes, where somebody said so.
    pub(crate) fn body_limit(&self, project: &ProjectId, url: &EndpointUrl) -> Option<u64> {
        if self.body_limits.is_empty() {
            return None;
        }
        self.body_limits.get(&(project.clone(), url.clone())).copied()
    }

    pub(crate) fn is_disabled(&self, project: &ProjectId, url: &EndpointUrl) -> bool {
        !self.disabled.is_empty() && self.disabled.contains(&(project.clone(), url.clone()))
    }
}

/// What happens once the transaction is durable, before its waiters are told.
#[derive(Default)]
pub(crate) struct Effects {
    /// Runs that ended.
    pub(crate) ended: Vec<RunId>,
    /// What is counted.
    pub(crate) tally: Tally,
    /// Projects, keys, apps or builds changed.
    pub(crate) registry: bool,
    /// Inboxes that were made, changed or removed.
    pub(crate) inboxes: Vec<(InboxId, Option<Inbox>)>,
    /// Result files that nothing points at any more.
    pub(crate) files: Vec<PathBuf>,
    /// The books must be loaded anew.
    pub(crate) books: bool,
}

/// Up to which moment people were warned of results that go undelivered.
pub(crate) fn warned_until(conn: &Connection) -> Result<i64, Fault> {
    Ok(conn.query_row("SELECT ifnull(warned_until, ?1) FROM node", [i64::MIN], |row| row.get(0))?)
}

/// The key that signs links to results, made when there is none.
pub(crate) fn link_key(conn: &Connection, entropy: &dyn Entropy) -> Result<[u8; 32], Fault> {
    conn.execute("UPDATE node SET link_key = ?1 WHERE link_key IS NULL", [entropy.bytes::<32>()])?;
    conn.query_row("SELECT link_key FROM node", [], |row| Ok(row::array(row, 0)))?
}

/// The new incarnation of this store.
pub(crate) fn next_incarnation(conn: &Connection) -> Result<i64, Fault> {
    let incarnation = conn
        .query_row("UPDATE node SET incarnation = incarnation + 1 RETURNING incarnation", [], |row| {
            row.get(0)
        })
        .optional()?;
    incarnation.ok_or_else(|| Fault::Corrupt("the table `node` has no row".to_owned()))
}
