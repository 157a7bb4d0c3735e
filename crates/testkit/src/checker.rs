//! The one judge of every crash test: what a client knows, what the receiver got, what user code did
//! and what the store says must tell one story.
//!
//! Each rule is a function that returns findings and stands alone; [`Evidence::findings`] asks them
//! all. The letters are those of the invariants: I1 acknowledged runs end, I2 ends never change, I3
//! attempts are numbered and ended, I4 duplicates are recognisable, I5 deliveries end, I8 the files
//! are whole. Two more bound what may happen again: executions and requests on the wire are attempts
//! that the store knows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::recorder::Arrival;

/// What a client knows of one of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The server said yes, with this run id: it must exist and end.
    Acked(String),
    /// The server said no, with this status: it must not exist.
    Refused(u16),
    /// The connection broke, or the server said that it does not know: it may exist, once.
    Unknown,
}

/// A run as the API shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Run {
    pub id: String,
    pub state: String,
    pub ended_at: Option<Value>,
    #[serde(default)]
    pub result: Value,
    pub attempts: Vec<Attempt>,
    pub deliveries: Vec<Delivery>,
}

/// An attempt to run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Attempt {
    pub number: usize,
    pub ended_at: Option<Value>,
    pub end: Option<String>,
}

/// A delivery of a run's outcome.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Delivery {
    pub id: String,
    pub state: String,
    pub attempts: Vec<DeliveryAttempt>,
}

/// An attempt to deliver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct DeliveryAttempt {
    pub number: usize,
    pub ended_at: Option<Value>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule found it.
    pub rule: &'static str,
    /// What it is about.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// All that is known when the load is over and the server idle. Request number `n` asks for a run
/// whose result is `n`: so the requests whose fate is unknown are found again.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The client's history, by request number.
    pub history: BTreeMap<u64, Known>,
    /// Every run the API lists.
    pub runs: Vec<Run>,
    /// The same, asked again after one more restart.
    pub runs_later: Vec<Run>,
    /// What the receiver got.
    pub arrivals: Vec<Arrival>,
    /// A request number for each time that user code ran.
    pub effects: Vec<u64>,
    /// What [`integrity`] said.
    pub damage: Vec<String>,
}

impl Evidence {
    /// Everything that must not be.
    pub fn findings(&self) -> Vec<Finding> {
        [
            self.acknowledged_runs_end(),
            self.refused_runs_do_not_exist(),
            self.unknown_runs_exist_once(),
            self.ends_never_change(),
            self.attempts_are_numbered_and_ended(),
            self.duplicates_are_recognisable(),
            self.deliveries_end(),
            self.files_are_whole(),
            self.executions_are_attempts(),
            self.requests_are_attempts(),
        ]
        .concat()
    }

    /// Panics with every finding.
    ///
    /// # Panics
    /// When there is one.
    pub fn assert_clean(&self) {
        let findings = self.findings();
        let shown: Vec<String> = findings.iter().take(20).map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{} finding(s):\n{}", findings.len(), shown.join("\n"));
    }

    /// How often the client knows so.
    pub fn count(&self, matching: impl Fn(&Known) -> bool) -> usize {
        self.history.values().filter(|known| matching(known)).count()
    }

    /// Runs of user code beyond the first of each request.
    pub fn executions_again(&self) -> usize {
        self.effects.len() - self.effects.iter().collect::<HashSet<_>>().len()
    }

    /// Requests at the receiver beyond the first of each delivery.
    pub fn deliveries_again(&self) -> usize {
        let ids: HashSet<_> = self.arrivals.iter().map(|arrival| arrival.header("webhook-id")).collect();
        self.arrivals.len() - ids.len()
    }

    /// I1: an acknowledged run exists, has ended, and is the run of that request.
    pub fn acknowledged_runs_end(&self) -> Vec<Finding> {
        let by_id: HashMap<&str, &Run> = self.runs.iter().map(|run| (run.id.as_str(), run)).collect();
        let of = |number: &u64, id: &str| match by_id.get(id) {
            None => Some(format!("request {number} was acknowledged as run {id}, which is lost")),
            Some(run) if run.state != "succeeded" => {
                Some(format!("run {id} of request {number} is {} in the end", run.state))
            }
            Some(run) if run.ended_at.is_none() => Some(format!("run {id} ended at no time")),
            Some(run) if run.result != *number => {
                Some(format!("run {id} of request {number} has the result {}", run.result))
            }
            Some(_) => None,
        };
        let acked = self.history.iter().filter_map(|(number, known)| match known {
            Known::Acked(id) => of(number, id),
            Known::Refused(_) | Known::Unknown => None,
        });
        found("I1", acked)
    }

    /// I1: what was refused does not exist.
    pub fn refused_runs_do_not_exist(&self) -> Vec<Finding> {
        let runs = self.runs_by_request();
        let refused = self.history.iter().filter_map(|(number, known)| {
            let Known::Refused(status) = known else { return None };
            runs.get(number)
                .map(|ids| format!("request {number} was refused with {status}, but {ids:?} exists"))
        });
        found("I1", refused)
    }

    /// I1: what is unknown exists once at most, and nothing exists twice.
    pub fn unknown_runs_exist_once(&self) -> Vec<Finding> {
        let runs = self.runs_by_request();
        found(
            "I1",
            runs.iter()
                .filter(|(_, ids)| ids.len() > 1)
                .map(|(number, ids)| format!("request {number} has {} runs: {ids:?}", ids.len())),
        )
    }

    /// I2: what has ended stays as it is.
    pub fn ends_never_change(&self) -> Vec<Finding> {
        let later: HashMap<&str, &Run> = self.runs_later.iter().map(|run| (run.id.as_str(), run)).collect();
        let changed = self.runs.iter().filter_map(|run| match later.get(run.id.as_str()) {
            None => Some(format!("run {} is gone after a restart", run.id)),
            Some(later) if run.ended_at.is_some() && *later != run => {
                Some(format!("run {} changed after its end: {run:?} became {later:?}", run.id))
            }
            Some(_) => None,
        });
        found("I2", changed)
    }

    /// I3: attempts are 1..n, and each of an ended run has its end.
    pub fn attempts_are_numbered_and_ended(&self) -> Vec<Finding> {
        let wrong = self.runs.iter().filter(|run| {
            let counted = (1..).zip(&run.attempts).all(|(number, attempt)| attempt.number == number);
            let ended =
                run.attempts.iter().all(|attempt| attempt.end.is_some() && attempt.ended_at.is_some());
            !counted || (run.ended_at.is_some() && !ended)
        });
        found("I3", wrong.map(|run| format!("run {} has the attempts {:?}", run.id, run.attempts)))
    }

    /// I4: all requests of a delivery have one body, and a run's requests to an endpoint one id.
    pub fn duplicates_are_recognisable(&self) -> Vec<Finding> {
        let mut firsts: HashMap<(String, &str), &Arrival> = HashMap::new();
        let mut findings = Vec::new();
        for arrival in &self.arrivals {
            let run = arrival.json()["run_id"].as_str().unwrap_or_default().to_owned();
            let first = *firsts.entry((run.clone(), &arrival.path)).or_insert(arrival);
            if first.header("webhook-id") != arrival.header("webhook-id") {
                findings.push(format!("run {run} was delivered to {} under two ids", arrival.path));
            }
            if first.body != arrival.body {
                findings.push(format!("run {run} was delivered to {} with two bodies", arrival.path));
            }
        }
        found("I4", findings)
    }

    /// I5: every delivery has ended visibly, and one that is said to be delivered arrived.
    pub fn deliveries_end(&self) -> Vec<Finding> {
        let arrived: HashSet<&str> =
            self.arrivals.iter().map(|arrival| arrival.header("webhook-id")).collect();
        let wrong = self.deliveries().filter_map(|delivery| match delivery.state.as_str() {
            "delivered" if arrived.contains(delivery.id.as_str()) => None,
            "delivered" => {
                Some(format!("delivery {} never arrived, and is said to be delivered", delivery.id))
            }
            "exhausted" | "disabled" => None,
            state => Some(format!("delivery {} is {state} in the end", delivery.id)),
        });
        found("I5", wrong)
    }

    /// I8: the database is whole.
    pub fn files_are_whole(&self) -> Vec<Finding> {
        found("I8", self.damage.iter().cloned())
    }

    /// User code never ran more often than the store has attempts for it.
    pub fn executions_are_attempts(&self) -> Vec<Finding> {
        let mut attempts: HashMap<u64, usize> = HashMap::new();
        for run in &self.runs {
            if let Some(number) = run.result.as_u64() {
                *attempts.entry(number).or_default() += run.attempts.len();
            }
        }
        let more = counts(self.effects.iter()).into_iter().filter_map(|(number, times)| {
            let known = attempts.get(number).copied().unwrap_or_default();
            (times > known).then(|| format!("request {number} ran {times} times in {known} attempt(s)"))
        });
        found("executions", more)
    }

    /// No request was on the wire that the store has no attempt for.
    pub fn requests_are_attempts(&self) -> Vec<Finding> {
        // The API may show the last attempts only, but it numbers them from the first.
        let made = |delivery: &Delivery| delivery.attempts.iter().map(|attempt| attempt.number).max();
        let attempts: HashMap<&str, usize> = self
            .deliveries()
            .map(|delivery| (delivery.id.as_str(), made(delivery).unwrap_or_default()))
            .collect();
        let ids = self.arrivals.iter().map(|arrival| arrival.header("webhook-id"));
        let more = counts(ids).into_iter().filter_map(|(id, times)| {
            let known = attempts.get(id).copied().unwrap_or_default();
            (times > known).then(|| format!("delivery {id} arrived {times} times in {known} attempt(s)"))
        });
        found("requests", more)
    }

    fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.runs.iter().flat_map(|run| &run.deliveries)
    }

    fn runs_by_request(&self) -> BTreeMap<u64, Vec<&str>> {
        let mut map: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for run in &self.runs {
            if let Some(number) = run.result.as_u64() {
                map.entry(number).or_default().push(&run.id);
            }
        }
        map
    }
}

fn found(rule: &'static str, what: impl IntoIterator<Item = String>) -> Vec<Finding> {
    what.into_iter().map(|what| Finding { rule, what }).collect()
}

fn counts<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    items.fold(HashMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

/// Makes every waiting delivery of a data directory that no server has open due at once, so that a test
/// need not wait for the schedule.
///
/// # Panics
/// When the database refuses.
pub fn hurry_deliveries(data_dir: &Path) {
    let conn = rusqlite::Connection::open(data_dir.join("postback.db")).expect("the database opens");
    conn.execute("UPDATE deliveries SET next_at = 0 WHERE state = 'pending'", []).expect("it can be written");
}

/// What SQLite finds wrong with the databases of a data directory that no server has open.
///
/// # Panics
/// When one cannot be opened.
pub fn integrity(data_dir: &Path) -> Vec<String> {
    let mut damage = Vec::new();
    for pragma in ["integrity_check", "foreign_key_check"] {
        let conn = rusqlite::Connection::open(data_dir.join("postback.db")).expect("the database opens");
        let said: Result<Vec<String>, rusqlite::Error> = conn
            .prepare(&format!("PRAGMA {pragma}"))
            .and_then(|mut check| check.query_map([], |row| row.get(0))?.collect());
        match said {
            Ok(lines) => damage
                .extend(lines.iter().filter(|line| *line != "ok").map(|line| format!("{pragma}: {line}"))),
            Err(error) => damage.push(format!("{pragma}: {error}")),
        }
    }
    damage
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn arrival(run: &str, id: &str, body: &str) -> Arrival {
        let mut headers = http::HeaderMap::new();
        headers.insert("webhook-id", id.parse().unwrap());
        let body = json!({"run_id": run, "result": body}).to_string().into();
        Arrival { at: Instant::now(), path: "/hook".to_owned(), headers, body }
    }

    fn run(id: &str, number: u64) -> Run {
        serde_json::from_value(json!({
            "id": id, "state": "succeeded", "endedAt": 5, "result": number,
            "attempts": [{"number": 1, "endedAt": 5, "end": "succeeded"}],
            "deliveries": [{"id": format!("msg_{id}"), "state": "delivered",
                            "attempts": [{"number": 1, "endedAt": 6}]}],
        }))
        .unwrap()
    }

    /// One request that went well.
    fn good() -> Evidence {
        Evidence {
            history: [(7, Known::Acked("a".to_owned()))].into(),
            runs: vec![run("a", 7)],
            runs_later: vec![run("a", 7)],
            arrivals: vec![arrival("a", "msg_a", "x")],
            effects: vec![7],
            damage: Vec::new(),
        }
    }

    /// Which rules find something once `spoil` has been at good evidence.
    fn rules(spoil: impl Fn(&mut Evidence)) -> Vec<&'static str> {
        let mut evidence = good();
        spoil(&mut evidence);
        let mut rules: Vec<_> = evidence.findings().iter().map(|finding| finding.rule).collect();
        rules.dedup();
        rules
    }

    #[test]
    fn good_evidence_has_no_findings() {
        assert_eq!(good().findings(), []);
        assert_eq!(
            rules(|e| {
                e.history.insert(8, Known::Unknown);
            }),
            [""; 0]
        );
        assert_eq!(
            rules(|e| {
                e.history.insert(8, Known::Refused(429));
            }),
            [""; 0]
        );
    }

    #[test]
    fn i1_finds_a_lost_run() {
        assert!(
            rules(|e| {
                e.history.insert(8, Known::Acked("b".to_owned()));
            })
            .contains(&"I1")
        );
    }

    #[test]
    fn i1_finds_a_run_that_does_not_end_or_ends_as_another() {
        let states = ["queued", "running", "failed", "expired"];
        for state in states {
            assert!(rules(|e| e.runs[0].state = state.to_owned()).contains(&"I1"), "{state}");
        }
        assert!(rules(|e| e.runs[0].ended_at = None).contains(&"I1"));
        assert!(rules(|e| e.runs[0].result = json!(8)).contains(&"I1"));
    }

    #[test]
    fn i1_finds_a_refused_run_that_exists() {
        assert_eq!(
            rules(|e| {
                e.history.insert(7, Known::Refused(503));
            }),
            ["I1"]
        );
    }

    #[test]
    fn i1_finds_a_request_that_became_two_runs() {
        let twice = |e: &mut Evidence| {
            e.history.insert(7, Known::Unknown);
            let mut second = run("b", 7);
            second.deliveries.clear();
            e.runs.push(second.clone());
            e.runs_later.push(second);
        };
        assert_eq!(rules(twice), ["I1"]);
    }

    #[test]
    fn i2_finds_an_end_that_changed_and_a_run_that_went() {
        assert_eq!(rules(|e| e.runs_later[0].result = json!(9)), ["I2"]);
        assert_eq!(rules(|e| e.runs_later[0].state = "failed".to_owned()), ["I2"]);
        assert_eq!(rules(|e| e.runs_later.clear()), ["I2"]);
    }

    #[test]
    fn i3_finds_a_gap_and_an_attempt_without_end() {
        let both = |e: &mut Evidence, spoil: fn(&mut Attempt)| {
            spoil(&mut e.runs[0].attempts[0]);
            spoil(&mut e.runs_later[0].attempts[0]);
        };
        assert_eq!(rules(|e| both(e, |attempt| attempt.number = 2)), ["I3"]);
        assert_eq!(rules(|e| both(e, |attempt| attempt.end = None)), ["I3"]);
    }

    #[test]
    fn i4_finds_two_ids_and_two_bodies() {
        let second = |id: &'static str, body: &'static str| {
            move |e: &mut Evidence| {
                e.arrivals.push(arrival("a", id, body));
                for runs in [&mut e.runs, &mut e.runs_later] {
                    let attempts = &mut runs[0].deliveries[0].attempts;
                    attempts.push(DeliveryAttempt { number: 2, ended_at: None });
                }
            }
        };
        assert_eq!(rules(second("msg_a", "x")), [""; 0], "an honest duplicate");
        assert_eq!(rules(second("msg_a", "y")), ["I4"]);
        assert!(rules(second("msg_other", "x")).contains(&"I4"));
    }

    #[test]
    fn i5_finds_a_delivery_without_end_and_one_that_never_arrived() {
        for state in ["pending", "sending"] {
            let stays = |e: &mut Evidence| {
                e.runs[0].deliveries[0].state = state.to_owned();
                e.runs_later[0].deliveries[0].state = state.to_owned();
            };
            assert_eq!(rules(stays), ["I5"], "{state}");
        }
        assert_eq!(rules(|e| e.arrivals.clear()), ["I5"]);
    }

    #[test]
    fn i8_finds_a_damaged_database() {
        assert_eq!(rules(|e| e.damage.push("page 3".to_owned())), ["I8"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postback.db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch(
            "PRAGMA foreign_keys = OFF; CREATE TABLE p (x INTEGER PRIMARY KEY); CREATE TABLE c (p INTEGER REFERENCES p);
             CREATE INDEX i ON c (p); INSERT INTO c VALUES (5);",
        )
        .unwrap();
        assert_eq!(integrity(folder.path()).len(), 1, "a row without its parent");
        conn.execute_batch("INSERT INTO p VALUES (5)").unwrap();
        assert_eq!(integrity(folder.path()), [""; 0]);
        drop(conn);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 4096;
        bytes[last..].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        assert_ne!(integrity(folder.path()), [""; 0], "a page was overwritten");
    }

    #[test]
    fn an_execution_or_a_request_that_the_store_does_not_know_is_found() {
        assert_eq!(rules(|e| e.effects.push(7)), ["executions"]);
        assert_eq!(rules(|e| e.arrivals.push(arrival("a", "msg_a", "x"))), ["requests"]);
    }
}
