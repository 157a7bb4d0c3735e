//! Which deliveries begin: those that are due, receivers in fair turn, as far as there is room.
//!
//! The index of pending deliveries is ordered by receiver and then by time, so one seek finds the next
//! receiver and its earliest delivery. The turn goes on where the last call stopped; a receiver with a
//! thousand due deliveries gets its places and not more, and then it is the next one's turn.
//!
//! Results that are kept as files are bounded in bytes as well. One that finds too few left has the next
//! that come free, before all other large ones; small ones pass them all.

use queue::Timestamp;
use queue::limits::RESULT_BYTES_MAX;
use queue::port::Room;
use queue::run::{EndpointUrl, Receiver};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::complete::endpoint;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::results::bytes_of;
use crate::row;
use crate::runs::Begun;

/// Receivers looked at in one call. What lies beyond is due still, and first in the next call.
const RECEIVERS_PER_CALL: usize = 1_024;

/// Large deliveries of one receiver that small ones of the same can pass.
const PASSED_MAX: usize = 32;

/// The next receiver with a pending delivery, and when its earliest is due.
const NEXT_RECEIVER: &str = "SELECT receiver, next_at FROM deliveries
    WHERE state = 'pending' AND receiver > ?1 ORDER BY receiver, next_at LIMIT 1";

pub(super) fn begin(batch: &mut Batch<'_>, now: Timestamp, room: &Room) -> Result<Vec<Begun>, Fault> {
    let mut begun = Vec::new();
    let mut bytes = Bytes { left: room.bytes, awaited_by: None };
    let awaiting = std::mem::take(&mut batch.books.awaits_bytes);
    if let Some(receiver) = &awaiting {
        let places = places(room, receiver).min(room.total).min(1);
        begin_to(batch, now, receiver, places, Which::Large, &mut bytes, &mut begun)?;
    }
    let begun_before = begun.len();
    let start = std::mem::take(&mut batch.books.turn);
    let (mut at, mut wrapped) = (start.clone(), false);
    for _ in 0..RECEIVERS_PER_CALL {
        if begun.len() >= room.total {
            break;
        }
        let Some((receiver, due_at)) =
            next_receiver(batch.conn, &at)?.filter(|(next, _)| !wrapped || *next <= start)
        else {
            // Past the last one, the turn begins anew, up to where this call started.
            if wrapped || start.is_empty() {
                break;
            }
            (at, wrapped) = (String::new(), true);
            continue;
        };
        if due_at <= now {
            let taken = if awaiting.as_ref() == Some(&receiver) { begun_before } else { 0 };
            let places = places(room, &receiver).saturating_sub(taken).min(room.total - begun.len());
            begin_to(batch, now, &receiver, places, Which::All, &mut bytes, &mut begun)?;
        }
        at = receiver;
    }
    batch.books.turn = at;
    batch.books.awaits_bytes = bytes.awaited_by;
    Ok(begun)
}

/// What large results may still take.
struct Bytes {
    left: usize,
    /// The receiver of one that found too few: no other takes any before it.
    awaited_by: Option<String>,
}

impl Bytes {
    fn take(&mut self, bytes: usize, receiver: &str) -> bool {
        if self.awaited_by.is_some() {
            return false;
        }
        if bytes > self.left {
            self.awaited_by = Some(receiver.to_owned());
            return false;
        }
        self.left -= bytes;
        true
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Large,
}

/// Records an attempt for the oldest due deliveries of one receiver.
fn begin_to(
    batch: &Batch<'_>,
    now: Timestamp,
    receiver: &str,
    places: usize,
    which: Which,
    bytes: &mut Bytes,
    begun: &mut Vec<Begun>,
) -> Result<(), Fault> {
    if places == 0 {
        return Ok(());
    }
    let first = begun.len();
    let (file, passed) = if batch.setting.results.may_hold_any() {
        ("(SELECT file FROM results r WHERE r.run = deliveries.run AND r.body IS NULL)", PASSED_MAX)
    } else {
        ("NULL", 0)
    };
    // Outcomes first: they do not wait for what was told on the way, which is never large.
    let outcomes = ("endpoint < 65536", file, passed);
    let events = ("endpoint >= 65536", "NULL", 0);
    for (of, file, passed) in [outcomes, events].into_iter().take(if which == Which::All { 2 } else { 1 }) {
        let left = places - (begun.len() - first);
        if left == 0 {
            break;
        }
        let mut statement = batch.sql(&format!(
            "SELECT run, endpoint, url, attempt, schedule_from, thin OR status_code IS 413, schedule, {file}
             FROM deliveries WHERE state = 'pending' AND receiver = ?1 AND next_at <= ?2 AND {of}
             ORDER BY next_at LIMIT ?3"
        ))?;
        let limit = i64::try_from(left.saturating_add(passed)).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![receiver, now.as_millis(), limit])?;
        while let Some(row) = rows.next()? {
            let large = row.get_ref(7)?.as_str_or_null()?.map(bytes_of);
            let may_begin = match large {
                Some(large) => bytes.take(large, receiver),
                None => which == Which::All,
            };
            if !may_begin {
                continue;
            }
            let attempt: u32 = row.get(3)?;
            begun.push(Begun {
                id: row::delivery_id(row, 0)?,
                url: EndpointUrl::checked(row.get_ref(2)?.as_str()?),
                attempt: attempt + 1,
                step: (attempt + 1).saturating_sub(row.get(4)?).max(1),
                schedule: row::schedule(row, 6)?,
                thin: row.get(5)?,
                body_bytes_max: None,
                large_bytes: large.unwrap_or(0),
            });
            if begun.len() - first >= places {
                break;
            }
        }
    }
    if batch.books.chores.has_unaware() {
        skip_disabled(batch, first, begun)?;
    }
    for begun in &mut begun[first..] {
        if !batch.books.body_limits.is_empty()
            && let Some((project, url)) = endpoint(batch, begun.id)?
        {
            begun.body_bytes_max = batch.books.body_limit(&project, &url);
        }
        record(batch, begun)?;
    }
    Ok(())
}

/// Leaves out what goes to an endpoint that was disabled just now, and is set aside before long.
fn skip_disabled(batch: &Batch<'_>, first: usize, begun: &mut Vec<Begun>) -> Result<(), Fault> {
    for attempt in begun.split_off(first) {
        let endpoint = endpoint(batch, attempt.id)?;
        if endpoint.is_none_or(|endpoint| batch.books.chores.setting_aside(&endpoint).is_none()) {
            begun.push(attempt);
        }
    }
    Ok(())
}

/// The attempt takes its place in the delivery's row; the one before it goes to the history.
fn record(batch: &Batch<'_>, begun: &Begun) -> Result<(), Fault> {
    let key = (begun.id.run.into_bytes(), row::delivery_number(begun.id));
    if begun.attempt > 1 {
        batch
            .sql(
                "INSERT INTO delivery_attempts (run, endpoint, number, started_at, ended_at, status_code, reason,
                                                response, duration_us, reused_connection, dns_us, connect_us,
                                                tls_us, first_byte_us, thin)
                 SELECT run, endpoint, attempt, started_at, ended_at, status_code, reason, response, duration_us,
                        reused_connection, dns_us, connect_us, tls_us, first_byte_us, thin
                 FROM deliveries WHERE run = ?1 AND endpoint = ?2",
            )?
            .execute(params![key.0, key.1])?;
    }
    batch
        .sql(
            "UPDATE deliveries SET state = 'sending', next_at = NULL, attempt = ?3, incarnation = ?4,
                    started_at = ?5, ended_at = NULL, status_code = NULL, reason = NULL, response = NULL,
                    duration_us = NULL, reused_connection = NULL, dns_us = NULL, connect_us = NULL, tls_us = NULL,
                    first_byte_us = NULL, thin = ?6
             WHERE run = ?1 AND endpoint = ?2",
        )?
        .execute(params![
            key.0,
            key.1,
            begun.attempt,
            batch.setting.incarnation,
            batch.now().as_millis(),
            begun.thin
        ])?;
    Ok(())
}

/// When the next pending delivery is due to a receiver with a place left.
pub(super) fn next_due(conn: &Connection, room: &Room) -> Result<Option<Timestamp>, Fault> {
    if room.total == 0 {
        return Ok(None);
    }
    // Few bytes are left: what is large was looked at, and is again when one that has bytes ends.
    let is_tight = room.bytes < RESULT_BYTES_MAX;
    let (mut at, mut earliest) = (String::new(), None::<Timestamp>);
    while let Some((receiver, due_at)) = next_receiver(conn, &at)? {
        let due_at = if is_tight { next_small(conn, &receiver)? } else { Some(due_at) };
        if let Some(due_at) = due_at
            && places(room, &receiver) > 0
        {
            earliest = Some(earliest.map_or(due_at, |known| known.min(due_at)));
        }
        at = receiver;
    }
    Ok(earliest)
}

/// When a receiver's earliest delivery without a large result is due, if large ones can be passed so far.
fn next_small(conn: &Connection, receiver: &str) -> Result<Option<Timestamp>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT min(next_at) FROM (SELECT run, endpoint, next_at FROM deliveries
             WHERE state = 'pending' AND receiver = ?1 ORDER BY next_at LIMIT ?2) d
         WHERE d.endpoint >= 65536
             OR NOT EXISTS (SELECT 1 FROM results r WHERE r.run = d.run AND r.body IS NULL)",
    )?;
    let limit = i64::try_from(PASSED_MAX).unwrap_or(i64::MAX);
    statement.query_row(params![receiver, limit], |row| Ok(row::optional_time(row, 0)))?
}

fn next_receiver(conn: &Connection, after: &str) -> Result<Option<(String, Timestamp)>, Fault> {
    let mut statement = conn.prepare_cached(NEXT_RECEIVER)?;
    let found = statement.query_row([after], |row| Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?))));
    Ok(found.optional()?)
}

fn places(room: &Room, receiver: &str) -> usize {
    room.receivers.get(&Receiver::stored(receiver)).copied().unwrap_or(room.per_receiver)
}
