//! The port `Inboxes`: temporary endpoints of our own, and what they recorded.

use std::collections::HashMap;

use async_trait::async_trait;
use queue::inbox::{CapturedRequest, Inbox};
use queue::port::{Inboxes, Stored};
use queue::{InboxId, ProjectId};
use rusqlite::{Connection, Row, params};

use crate::Store;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;
use crate::vault::{Place, Vault};

#[async_trait]
impl Inboxes for Store {
    async fn create_inbox(&self, inbox: Inbox) -> Stored<()> {
        self.inner.committer.write(0, move |batch| create(batch, &inbox)).await
    }

    async fn inbox(&self, id: &InboxId) -> Stored<Option<Inbox>> {
        Ok(self.inner.memory.inbox(id))
    }

    async fn inboxes(&self, project: &ProjectId) -> Stored<Vec<Inbox>> {
        let mut inboxes = self.inner.memory.inboxes(|inbox| inbox.project == *project);
        inboxes.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(inboxes)
    }

    async fn record(&self, inbox: &InboxId, request: CapturedRequest) -> Stored<i64> {
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

/// Every inbox, for the memory.
pub(crate) fn load(conn: &Connection, vault: &Vault) -> Result<HashMap<InboxId, Inbox>, Fault> {
    let mut statement = conn.prepare("SELECT id, project, sealed_token, created_at FROM inboxes")?;
    let mut rows = statement.query([])?;
    let mut inboxes = HashMap::new();
    while let Some(row) = rows.next()? {
        let id: InboxId = row::parsed(row, 0)?;
        let inbox = Inbox {
            view_token: vault.open_text(token_place(&id), row.get_ref(2)?.as_blob()?)?,
            id,
            project: row::parsed(row, 1)?,
            created_at: row::time(row, 3)?,
        };
        inboxes.insert(inbox.id.clone(), inbox);
    }
    Ok(inboxes)
}

fn token_place(inbox: &InboxId) -> Place<'_> {
    Place::new("inboxes", inbox.as_str().as_bytes(), "sealed_token")
}

fn create(batch: &mut Batch<'_>, inbox: &Inbox) -> Result<(), Fault> {
    let token = batch.setting.vault.seal(token_place(&inbox.id), inbox.view_token.as_bytes());
    batch
        .sql("INSERT INTO inboxes (id, project, sealed_token, created_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![inbox.id.as_str(), inbox.project.as_str(), token, inbox.created_at.as_millis()])?;
    batch.effects.inboxes.push(inbox.clone());
    Ok(())
}

fn record(batch: &mut Batch<'_>, inbox: &InboxId, request: &CapturedRequest) -> Result<i64, Fault> {
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
    let bound = batch.setting.bounds.inbox_requests;
    let kept = batch.books.captured.entry(inbox.clone()).or_default();
    *kept += 1;
    if *kept > bound {
        let surplus = *kept - bound;
        *kept = bound;
        batch
            .sql(
                "DELETE FROM inbox_requests WHERE sequence IN (
                     SELECT sequence FROM inbox_requests WHERE inbox = ?1 ORDER BY sequence LIMIT ?2)",
            )?
            .execute(params![inbox.as_str(), surplus])?;
    }
    Ok(sequence)
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
