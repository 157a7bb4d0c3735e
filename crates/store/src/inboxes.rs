//! The port `Inboxes`: temporary endpoints of our own, and what they recorded.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use queue::inbox::{CapturedRequest, Inbox, InboxChange, Recorded, Reply};
use queue::limits::INBOXES_PER_PROJECT_MAX;
use queue::port::{Inboxes, Stored};
use queue::{InboxId, ProjectId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::Store;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;
use crate::vault::{Place, Vault};

/// Requests of a deleted inbox removed in one transaction, …
const REMOVED_PER_BATCH: usize = 200;
/// … fewer when their bodies are large.
const REMOVED_BYTES_PER_BATCH: u64 = 64 << 20;

#[async_trait]
impl Inboxes for Store {
    async fn create_inbox(&self, inbox: Inbox) -> Stored<bool> {
        self.inner.committer.write(0, move |batch| create(batch, &inbox)).await
    }

    async fn inbox(&self, id: &InboxId) -> Stored<Option<Inbox>> {
        let now = self.inner.clock.now();
        Ok(self.inner.memory.inbox(id).filter(|inbox| inbox.is_open(now)))
    }

    async fn inboxes(&self, project: &ProjectId) -> Stored<Vec<Inbox>> {
        let now = self.inner.clock.now();
        let mut inboxes = self.inner.memory.inboxes(|inbox| inbox.project == *project && inbox.is_open(now));
        inboxes.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(inboxes)
    }

    async fn change_inbox(&self, id: &InboxId, change: InboxChange) -> Stored<Option<Inbox>> {
        let id = id.clone();
        self.inner.committer.write(0, move |batch| set(batch, &id, &change)).await
    }

    async fn delete_inbox(&self, id: &InboxId) -> Stored<bool> {
        let id = id.clone();
        let ended = move |batch: &mut Batch<'_>| {
            let change = InboxChange { expires_at: Some(Some(batch.now())), ..InboxChange::default() };
            Ok(set(batch, &id, &change)?.is_some())
        };
        self.inner.committer.end(ended).await
    }

    async fn record(&self, inbox: &InboxId, request: CapturedRequest) -> Stored<Recorded> {
        let inbox = inbox.clone();
        let bytes = request.body.len();
        self.inner.committer.write(bytes, move |batch| record(batch, &inbox, &request)).await
    }

    async fn requests(&self, inbox: &InboxId, after: i64, limit: usize) -> Stored<Vec<CapturedRequest>> {
        let inbox = inbox.clone();
        self.inner.memory.readers().read(move |conn| after_sequence(conn, &inbox, after, limit)).await
    }

    async fn requests_before(
        &self,
        inbox: &InboxId,
        before: i64,
        limit: usize,
        bytes_max: usize,
    ) -> Stored<Vec<CapturedRequest>> {
        let inbox = inbox.clone();
        self.inner
            .memory
            .readers()
            .read(move |conn| before_sequence(conn, &inbox, before, limit, bytes_max))
            .await
    }
}

impl Store {
    /// Removes inboxes that ended before `now`, with what they recorded.
    pub(crate) async fn remove_ended_inboxes(&self, now: Timestamp) -> Stored<()> {
        for inbox in self.inner.memory.inboxes(|inbox| !inbox.is_open(now)) {
            loop {
                let id = inbox.id.clone();
                if self.inner.committer.end(move |batch| remove_some(batch, &id, now)).await? {
                    break;
                }
            }
        }
        Ok(())
    }
}

const INBOX: &str = "SELECT id, project, sealed_token, created_at, name, expires_at, reply FROM inboxes";

/// Every inbox, for the memory.
pub(crate) fn load(conn: &Connection, vault: &Vault) -> Result<HashMap<InboxId, Inbox>, Fault> {
    let mut statement = conn.prepare(INBOX)?;
    let mut rows = statement.query([])?;
    let mut inboxes = HashMap::new();
    while let Some(row) = rows.next()? {
        let inbox = read_inbox(row, vault)?;
        inboxes.insert(inbox.id.clone(), inbox);
    }
    Ok(inboxes)
}

fn read_inbox(row: &Row<'_>, vault: &Vault) -> Result<Inbox, Fault> {
    let id: InboxId = row::parsed(row, 0)?;
    Ok(Inbox {
        view_token: vault.open_text(token_place(&id), row.get_ref(2)?.as_blob()?)?,
        id,
        project: row::parsed(row, 1)?,
        created_at: row::time(row, 3)?,
        name: row.get(4)?,
        expires_at: row::optional_time(row, 5)?,
        reply: row::optional_json::<Reply>(row, 6)?.map(Arc::new),
    })
}

fn find(batch: &Batch<'_>, id: &InboxId) -> Result<Option<Inbox>, Fault> {
    let mut statement = batch.sql(&format!("{INBOX} WHERE id = ?1"))?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?.map(|row| read_inbox(row, &batch.setting.vault)).transpose()
}

fn token_place(inbox: &InboxId) -> Place<'_> {
    Place::new("inboxes", inbox.as_str().as_bytes(), "sealed_token")
}

fn create(batch: &mut Batch<'_>, inbox: &Inbox) -> Result<bool, Fault> {
    let open: usize = batch
        .sql("SELECT count(*) FROM inboxes WHERE project = ?1 AND (expires_at IS NULL OR expires_at > ?2)")?
        .query_row(params![inbox.project.as_str(), batch.now().as_millis()], |row| row.get(0))?;
    if open >= INBOXES_PER_PROJECT_MAX {
        return Ok(false);
    }
    let token = batch.setting.vault.seal(token_place(&inbox.id), inbox.view_token.as_bytes());
    batch
        .sql(
            "INSERT INTO inboxes (id, project, sealed_token, created_at, name, expires_at, reply)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            inbox.id.as_str(),
            inbox.project.as_str(),
            token,
            inbox.created_at.as_millis(),
            inbox.name,
            inbox.expires_at.map(Timestamp::as_millis),
            inbox.reply.as_deref().map(row::to_json),
        ])?;
    batch.effects.inboxes.push((inbox.id.clone(), Some(inbox.clone())));
    Ok(true)
}

fn set(batch: &mut Batch<'_>, id: &InboxId, change: &InboxChange) -> Result<Option<Inbox>, Fault> {
    let now = batch.now();
    let Some(mut inbox) = find(batch, id)?.filter(|inbox| inbox.is_open(now)) else { return Ok(None) };
    inbox.set(change.clone());
    let token = batch.setting.vault.seal(token_place(id), inbox.view_token.as_bytes());
    batch
        .sql(
            "UPDATE inboxes SET sealed_token = ?2, name = ?3, expires_at = ?4, reply = ?5,
                                answered = CASE WHEN ?6 THEN 0 ELSE answered END
             WHERE id = ?1",
        )?
        .execute(params![
            id.as_str(),
            token,
            inbox.name,
            inbox.expires_at.map(Timestamp::as_millis),
            inbox.reply.as_deref().map(row::to_json),
            change.reply.is_some(),
        ])?;
    batch.effects.inboxes.push((id.clone(), Some(inbox.clone())));
    Ok(Some(inbox))
}

fn record(batch: &mut Batch<'_>, inbox: &InboxId, request: &CapturedRequest) -> Result<Recorded, Fault> {
    batch
        .sql(
            "INSERT INTO inbox_requests (inbox, id, method, path, headers, body, received_at, signature)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            inbox.as_str(),
            request.id.as_bytes(),
            request.method,
            request.path,
            row::to_json(&request.headers),
            request.body.as_ref(),
            request.received_at.as_millis(),
            row::to_json(&request.signature),
        ])?;
    let sequence = batch.conn.last_insert_rowid();
    let kept = batch.books.captured.entry(inbox.clone()).or_default();
    kept.requests += 1;
    kept.bytes += request.body.len() as u64;
    make_room(batch, inbox)?;
    let place = batch
        .sql(
            "UPDATE inboxes SET answered = answered + 1 WHERE id = ?1 AND reply IS NOT NULL
             RETURNING answered - 1",
        )?
        .query_row([inbox.as_str()], |row| row.get(0))
        .optional()?;
    Ok(Recorded { sequence, place: place.unwrap_or(0) })
}

/// Removes the oldest requests until what is left is within its bounds. The newest one always stays.
fn make_room(batch: &mut Batch<'_>, inbox: &InboxId) -> Result<(), Fault> {
    let bounds = batch.setting.bounds;
    let Some(kept) = batch.books.captured.get_mut(inbox) else { return Ok(()) };
    while kept.requests > 1 && (kept.requests > bounds.inbox_requests || kept.bytes > bounds.inbox_bytes) {
        let oldest = "SELECT sequence FROM inbox_requests WHERE inbox = ?1 ORDER BY sequence LIMIT 1";
        let gone: u64 = batch
            .conn
            .prepare_cached(&format!(
                "DELETE FROM inbox_requests WHERE sequence = ({oldest}) RETURNING length(body)"
            ))?
            .query_row([inbox.as_str()], |row| row.get(0))?;
        kept.requests -= 1;
        kept.bytes = kept.bytes.saturating_sub(gone);
    }
    Ok(())
}

/// A part of what an ended inbox recorded, and at last the inbox. Says whether it is gone.
fn remove_some(batch: &mut Batch<'_>, id: &InboxId, now: Timestamp) -> Result<bool, Fault> {
    if find(batch, id)?.is_some_and(|inbox| inbox.is_open(now)) {
        return Ok(true);
    }
    let mut statement =
        batch.sql("SELECT sequence, length(body) FROM inbox_requests WHERE inbox = ?1 ORDER BY sequence")?;
    let mut rows = statement.query([id.as_str()])?;
    let (mut gone, mut bytes) = (Vec::new(), 0u64);
    while gone.len() < REMOVED_PER_BATCH
        && bytes < REMOVED_BYTES_PER_BATCH
        && let Some(row) = rows.next()?
    {
        gone.push(row.get::<_, i64>(0)?);
        bytes += row.get::<_, u64>(1)?;
    }
    drop(rows);
    drop(statement);
    for sequence in &gone {
        batch.sql("DELETE FROM inbox_requests WHERE sequence = ?1")?.execute([sequence])?;
    }
    if !gone.is_empty() {
        return Ok(false);
    }
    batch.sql("DELETE FROM inboxes WHERE id = ?1")?.execute([id.as_str()])?;
    batch.books.captured.remove(id);
    batch.effects.inboxes.push((id.clone(), None));
    Ok(true)
}

const REQUEST: &str = "SELECT sequence, id, method, path, headers, received_at, signature, length(body), body
    FROM inbox_requests";

fn after_sequence(
    conn: &Connection,
    inbox: &InboxId,
    after: i64,
    limit: usize,
) -> Result<Vec<CapturedRequest>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "{REQUEST} WHERE inbox = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![inbox.as_str(), after, limit])?;
    let mut requests = Vec::new();
    while let Some(row) = rows.next()? {
        requests.push(read(row)?);
    }
    Ok(requests)
}

fn before_sequence(
    conn: &Connection,
    inbox: &InboxId,
    before: i64,
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<CapturedRequest>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "{REQUEST} WHERE inbox = ?1 AND sequence < ?2 ORDER BY sequence DESC LIMIT ?3"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![inbox.as_str(), before, limit])?;
    let (mut requests, mut bytes) = (Vec::new(), 0usize);
    while let Some(row) = rows.next()? {
        if !requests.is_empty() {
            bytes = bytes.saturating_add(row.get(7)?);
            if bytes > bytes_max {
                break;
            }
        }
        requests.push(read(row)?);
    }
    Ok(requests)
}

fn read(row: &Row<'_>) -> Result<CapturedRequest, Fault> {
    let id: [u8; 16] = row::array(row, 1)?;
    Ok(CapturedRequest {
        id: uuid::Uuid::from_bytes(id),
        sequence: row.get(0)?,
        method: row.get(2)?,
        path: row.get(3)?,
        headers: row::json(row, 4)?,
        body: row::bytes(row, 8)?,
        received_at: row::time(row, 5)?,
        signature: row::json(row, 6)?,
    })
}
