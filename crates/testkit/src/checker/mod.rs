//! The one judge of every crash test: what a client knows, what the receiver got, what user code did,
//! what the store says and what the machine shows must tell one story.
//!
//! Each rule is a function that returns findings and stands alone; [`Evidence::findings`] asks them
//! all. The letters are those of the invariants:
//!
//! | | |
//! |---|---|
//! | I1 | an acknowledged run exists and ends once; a refused one does not exist; an unknown one exists once at most, and a retry with its key lands on it |
//! | I2 | what has ended, run or delivery, never changes |
//! | I3 | attempts are 1..n, each with one end |
//! | I4 | one id and one body per run and endpoint, and the body tells the recorded result |
//! | I5 | each delivery ends visibly; what was answered with 2xx is recorded so |
//! | I6 | no process of an older server a second after the next one is ready |
//! | I7 | a result is that of the run's last attempt, never of a stale one |
//! | I8 | the files are whole, and none belongs to nobody |
//! | I9 | what befalls one receiver is not felt by the others: their webhooks do not come long after the end of their runs |
//! | I10 | memory, descriptors, threads and the write-ahead log come back after the load |
//! | I11 | no secret in any output |
//!
//! I9 is asked only where somebody says how long is long. Two more rules bound what may happen again:
//! `executions`, by attempts and by crashes that hit the run, and `requests` on the wire.

mod files;
mod rules;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use queue::Timestamp;

pub use files::{damage, integrity};
pub use views::{Attempt, Delivery, DeliveryAttempt, Run, RunError};

use crate::footprint::Footprint;
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

/// One time that user code ran, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Execution {
    /// The request it ran for.
    pub request: u64,
    /// When it began, in microseconds since 1970.
    pub at: u64,
    /// The process it ran in.
    pub pid: u64,
}

/// What died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The server, and its replicas with it.
    Server,
    /// One replica.
    Replica,
}

/// One death, somewhere between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// What died.
    pub victim: Victim,
    /// It lived then, …
    pub from: Timestamp,
    /// … and was dead then.
    pub to: Timestamp,
}

/// Something that the server let out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it was seen.
    pub place: String,
    /// What it said.
    pub text: String,
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

/// All that is known when the load is over and the server idle. Request number `n` asks for a run whose
/// result has `n` as its `value`: so the requests whose fate is unknown are found again.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The client's history, by request number.
    pub history: BTreeMap<u64, Known>,
    /// Requests that were made again with their key, and the run that the answer named.
    pub retried: BTreeMap<u64, String>,
    /// Every run the API lists.
    pub runs: Vec<Run>,
    /// The same, asked again after one more restart.
    pub runs_later: Vec<Run>,
    /// What the receiver got and answered with 200.
    pub arrivals: Vec<Arrival>,
    /// Each time that user code ran.
    pub effects: Vec<Execution>,
    /// Every death up to the moment when the load was over.
    pub crashes: Vec<Crash>,
    /// Processes of a dead server that were still there a second after the next one was ready.
    pub survivors: Vec<String>,
    /// What [`damage`] said.
    pub damage: Vec<String>,
    /// What a server took before the load, and what one takes after it.
    pub footprints: Option<(Footprint, Footprint)>,
    /// How long a webhook may take from the end of its run, when nothing but others stands in its way.
    pub delay_max: Option<Duration>,
    /// Secrets by name.
    pub secrets: Vec<(String, String)>,
    /// Whatever left the server.
    pub outputs: Vec<Output>,
}

impl Evidence {
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

    /// How many died.
    pub fn deaths(&self, victim: Victim) -> usize {
        self.crashes.iter().filter(|crash| crash.victim == victim).count()
    }

    /// Executions beyond the first of each request.
    pub fn executions_again(&self) -> usize {
        let requests: HashSet<_> = self.effects.iter().map(|execution| execution.request).collect();
        self.effects.len() - requests.len()
    }

    /// Requests at the receiver beyond the first of each delivery.
    pub fn deliveries_again(&self) -> usize {
        let ids: HashSet<_> = self.arrivals.iter().map(|arrival| arrival.header("webhook-id")).collect();
        self.arrivals.len() - ids.len()
    }
}
