//! How endpoints do, counted from what is kept about the newest deliveries: the path of a run writes nothing for it.

use std::collections::HashMap;
use std::time::Duration;

use queue::ProjectId;
use queue::delivery::DeliveryAttemptView;
use queue::figures::{EndpointFigures, LastAttempt, NextAttempt};
use queue::limits::{
    DELIVERIES_LOOKED_AT_MAX, ENDPOINT_ATTEMPTS_SHOWN_MAX, ENDPOINTS_SHOWN_MAX, PENDING_LOOKED_AT_MAX,
};
use queue::run::EndpointUrl;
use rusqlite::{Connection, params};

use super::view::{ATTEMPT, attempt, history};
use crate::fault::Fault;
use crate::row;

/// What is counted of an endpoint.
struct Count {
    figures: EndpointFigures,
    answers: Vec<Duration>,
}

impl Count {
    fn add(&mut self, delivery_id: &str, run_id: queue::RunId, attempt: DeliveryAttemptView) {
        self.figures.since = self.figures.since.min(attempt.started_at);
        if let Some(report) = &attempt.report {
            self.figures.attempts += 1;
            self.figures.succeeded += u64::from(report.reason.is_none());
            if report.status_code.is_some() {
                self.answers.push(report.duration);
            }
        }
        self.figures.last.push(LastAttempt { delivery_id: delivery_id.to_owned(), run_id, attempt });
    }
}

pub(super) fn of_project(conn: &Connection, project: &ProjectId) -> Result<Vec<EndpointFigures>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT d.attempt, {ATTEMPT}, d.run, d.endpoint, d.url
         FROM (SELECT run, endpoint FROM deliveries ORDER BY run DESC, endpoint DESC LIMIT ?2) w
             CROSS JOIN deliveries d ON d.run = w.run AND d.endpoint = w.endpoint
             CROSS JOIN runs r ON r.id = d.run CROSS JOIN app_numbers n ON n.number = r.app
         WHERE n.project = ?1"
    ))?;
    let mut rows = statement.query(params![project.as_str(), DELIVERIES_LOOKED_AT_MAX as i64])?;
    let mut counts: Vec<Count> = Vec::new();
    let mut places: HashMap<EndpointUrl, usize> = HashMap::new();
    while let Some(row) = rows.next()? {
        let url = EndpointUrl::checked(row.get_ref(15)?.as_str()?);
        let id = row::delivery_id(row, 13)?;
        let made: u32 = row.get(0)?;
        let place = match places.get(&url) {
            Some(place) => *place,
            None if counts.len() == ENDPOINTS_SHOWN_MAX => continue,
            None => {
                let figures = EndpointFigures::none(url.clone(), id.run.accepted_at());
                counts.push(Count { figures, answers: Vec::new() });
                places.insert(url, counts.len() - 1);
                counts.len() - 1
            }
        };
        let (count, webhook_id) = (&mut counts[place], id.webhook_id());
        if made > 0 {
            count.add(&webhook_id, id.run, attempt(row)?);
        }
        if made > 1 {
            for former in history(conn, id)? {
                count.add(&webhook_id, id.run, former);
            }
        }
    }
    drop(rows);
    let mut figures = Vec::with_capacity(counts.len());
    for Count { figures: mut one, answers } in counts {
        one.measure(answers);
        one.last.sort_by_key(|last| std::cmp::Reverse((last.attempt.started_at, last.attempt.number)));
        one.last.truncate(ENDPOINT_ATTEMPTS_SHOWN_MAX);
        what_waits(conn, project, &mut one)?;
        figures.push(one);
    }
    Ok(figures)
}

/// What waits for a receiver, and whether it is a project's and for one address.
const WAITING: &str = "SELECT d.run, d.endpoint, d.next_at, d.url = ?2 AND n.project = ?3
    FROM (SELECT run, endpoint, next_at, url FROM deliveries
          WHERE state = 'pending' AND receiver = ?1 ORDER BY next_at LIMIT ?4) d
        CROSS JOIN runs r ON r.id = d.run CROSS JOIN app_numbers n ON n.number = r.app";

/// What is due next, from the index by receiver and time.
fn what_waits(conn: &Connection, project: &ProjectId, figures: &mut EndpointFigures) -> Result<(), Fault> {
    let mut statement = conn.prepare_cached(WAITING)?;
    let receiver = figures.url.receiver();
    let most = PENDING_LOOKED_AT_MAX as i64;
    let mut rows =
        statement.query(params![receiver.as_str(), figures.url.as_str(), project.as_str(), most])?;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        looked_at += 1;
        if !row.get::<_, bool>(3)? {
            continue;
        }
        figures.pending += 1;
        let id = row::delivery_id(row, 0)?;
        let at = row::time(row, 2)?;
        figures.next.push(NextAttempt { delivery_id: id.webhook_id(), run_id: id.run, at });
    }
    figures.pending_more = looked_at == PENDING_LOOKED_AT_MAX;
    figures.next.sort_by_key(|next| next.at);
    figures.next.truncate(ENDPOINT_ATTEMPTS_SHOWN_MAX);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However much waits, the earliest are found without sorting.
    #[test]
    fn what_waits_is_a_walk_of_the_index_by_time() {
        let conn = crate::vault::newest_schema();
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {WAITING}")).unwrap();
        let values = params!["https://a.example", "https://a.example/hook", "p-11111111", 10];
        let steps = statement.query_map(values, |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<_> = steps.map(Result::unwrap).collect();
        assert!(steps.iter().any(|step| step.contains("INDEX deliveries_pending (receiver=?)")), "{steps:?}");
        assert!(steps.iter().all(|step| !step.contains("TEMP B-TREE")), "{steps:?}");
    }
}
