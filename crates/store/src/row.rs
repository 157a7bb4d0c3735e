//! Columns and what they mean.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::registry::{BuildStatus, KeyHash};
use queue::rerun::RetryPolicy;
use queue::run::{EndpointUrl, Generation, Mode, RunState};
use queue::webhook::{Event, EventFilter, Metadata, Schedule, WebhookHeaders};
use queue::{DeliveryId, RunId, Timestamp};
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;

pub(crate) fn bytes(row: &Row<'_>, column: usize) -> Result<Bytes, Fault> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}

pub(crate) fn optional_bytes(row: &Row<'_>, column: usize) -> Result<Option<Bytes>, Fault> {
    Ok(row.get_ref(column)?.as_blob_or_null()?.map(Bytes::copy_from_slice))
}

pub(crate) fn text(row: &Row<'_>, column: usize) -> Result<Arc<str>, Fault> {
    Ok(row.get_ref(column)?.as_str()?.into())
}

pub(crate) fn run_id(row: &Row<'_>, column: usize) -> Result<RunId, Fault> {
    array(row, column).map(RunId::from_bytes)
}

/// The two columns that name a delivery: `run` and `endpoint`, the one right after the other.
pub(crate) fn delivery_id(row: &Row<'_>, column: usize) -> Result<DeliveryId, Fault> {
    let number: i64 = row.get(column + 1)?;
    let split = || Some((u32::try_from(number >> 16).ok()?, u16::try_from(number & 0xFFFF).ok()?));
    let (event, index) = split().ok_or_else(|| Fault::Corrupt(format!("a delivery of number {number}")))?;
    Ok(DeliveryId { run: run_id(row, column)?, event, index })
}

/// What the column `endpoint` holds: the endpoint's index, and above its 16 bits the event's number. So
/// the outcome's deliveries come first, and have the smaller numbers.
pub(crate) fn delivery_number(id: DeliveryId) -> i64 {
    i64::from(id.event) << 16 | i64::from(id.index)
}

pub(crate) fn key_hash(row: &Row<'_>, column: usize) -> Result<KeyHash, Fault> {
    array(row, column)
}

pub(crate) fn array<const N: usize>(row: &Row<'_>, column: usize) -> Result<[u8; N], Fault> {
    let blob = row.get_ref(column)?.as_blob()?;
    blob.try_into().map_err(|_| Fault::Corrupt(format!("a value of {} bytes instead of {N}", blob.len())))
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_millis(row.get(column)?))
}

pub(crate) fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

/// A duration as it is kept.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn optional_micros(row: &Row<'_>, column: usize) -> Result<Option<Duration>, Fault> {
    Ok(row.get::<_, Option<u64>>(column)?.map(Duration::from_micros))
}

/// Any of the ids and names that read themselves from text.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize) -> Result<T, Fault>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error: T::Err| Fault::Corrupt(error.to_string()))
}

pub(crate) fn optional_parsed<T>(row: &Row<'_>, column: usize) -> Result<Option<T>, Fault>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(_) => parsed(row, column).map(Some),
    }
}

pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, Fault> {
    from_json(row.get_ref(column)?.as_str()?)
}

pub(crate) fn optional_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>, Fault> {
    row.get_ref(column)?.as_str_or_null()?.map(from_json).transpose()
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Corrupt(format!("a JSON column: {error}")))
}

pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what the store keeps has string keys and serialises")
}

/// The endpoints of a run; most runs have none or one.
pub(crate) fn webhooks(row: &Row<'_>, column: usize) -> Result<Vec<EndpointUrl>, Fault> {
    Ok(optional_json(row, column)?.unwrap_or_default())
}

pub(crate) fn to_webhooks(webhooks: &[EndpointUrl]) -> Option<String> {
    (!webhooks.is_empty()).then(|| to_json(&webhooks))
}

/// The columns `retries` and `retry_on`.
pub(crate) fn retry(row: &Row<'_>, column: usize) -> Result<Option<Arc<RetryPolicy>>, Fault> {
    let Some(retries) = row.get(column)? else { return Ok(None) };
    Ok(Some(Arc::new(RetryPolicy { retries, on: parsed(row, column + 1)? })))
}

/// The names of the caller's headers; their values lie sealed.
pub(crate) fn header_names(row: &Row<'_>, column: usize) -> Result<Vec<String>, Fault> {
    let names = row.get_ref(column)?.as_str_or_null()?;
    Ok(names.map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default())
}

/// No name of a header holds a comma.
pub(crate) fn to_header_names(headers: &WebhookHeaders) -> String {
    headers.names().collect::<Vec<_>>().join(",")
}

pub(crate) fn metadata(row: &Row<'_>, column: usize) -> Result<Option<Metadata>, Fault> {
    Ok(row.get_ref(column)?.as_str_or_null()?.map(Metadata::stored))
}

/// What endpoints are told. Most runs tell their outcome alone, and have no words for it.
pub(crate) fn events(row: &Row<'_>, column: usize) -> Result<EventFilter, Fault> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(EventFilter::default()),
        Some(words) => {
            EventFilter::parse(words.split(',')).map_err(|error| Fault::Corrupt(format!("a filter {error}")))
        }
    }
}

pub(crate) fn to_events(events: EventFilter) -> Option<String> {
    (events != EventFilter::default()).then(|| events.to_string())
}

/// When deliveries are tried again, where that is the run's own.
pub(crate) fn schedule(row: &Row<'_>, column: usize) -> Result<Option<Schedule>, Fault> {
    optional_parsed(row, column)
}

pub(crate) fn event(row: &Row<'_>, column: usize) -> Result<Event, Fault> {
    word(row, column, Event::ALL, Event::as_str)
}

pub(crate) const fn generation_word(generation: Generation) -> &'static str {
    match generation {
        Generation::Legacy => "legacy",
        Generation::V3 => "v3",
        Generation::V4 => "v4",
    }
}

pub(crate) fn generation(row: &Row<'_>, column: usize) -> Result<Generation, Fault> {
    word(row, column, [Generation::Legacy, Generation::V3, Generation::V4], generation_word)
}

pub(crate) const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Sync => "sync",
        Mode::Async => "async",
    }
}

pub(crate) fn mode(row: &Row<'_>, column: usize) -> Result<Mode, Fault> {
    word(row, column, [Mode::Sync, Mode::Async], mode_word)
}

pub(crate) fn state(row: &Row<'_>, column: usize) -> Result<RunState, Fault> {
    word(row, column, RunState::ALL, RunState::as_str)
}

pub(crate) fn build_status(row: &Row<'_>, column: usize) -> Result<BuildStatus, Fault> {
    word(row, column, BuildStatus::ALL, BuildStatus::as_str)
}

/// The value whose word the column holds.
pub(crate) fn word<T: Copy>(
    row: &Row<'_>,
    column: usize,
    all: impl IntoIterator<Item = T>,
    as_str: impl Fn(T) -> &'static str,
) -> Result<T, Fault> {
    let found = row.get_ref(column)?.as_str()?;
    all.into_iter()
        .find(|value| as_str(*value) == found)
        .ok_or_else(|| Fault::Corrupt(format!("an unknown word `{found}`")))
}
