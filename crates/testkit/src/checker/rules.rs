//! The rules, one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use queue::Timestamp;

use super::{Delivery, Evidence, Execution, Finding, Known, Output, Run, Victim};
use crate::recorder::Arrival;

/// How many crashes of its replica a run may cause before it ends as `crash_loop`.
const CRASH_LOOP: usize = queue::limits::CRASHES_MAX as usize;
/// What an idle server may take beyond what it took before the load.
const RESIDENT_MORE_MAX: u64 = 64 << 20;
const DESCRIPTORS_MORE_MAX: u64 = 24;
const THREADS_MORE_MAX: u64 = 4;
/// The write-ahead log begins anew long before this.
const LOG_MAX: u64 = 64 << 20;

impl Evidence {
    /// Everything that must not be.
    pub fn findings(&self) -> Vec<Finding> {
        [
            self.acknowledged_runs_end(),
            self.refused_runs_do_not_exist(),
            self.unknown_runs_exist_once(),
            self.retries_land_on_the_first_run(),
            self.ends_never_change(),
            self.attempts_are_numbered_and_ended(),
            self.duplicates_are_recognisable(),
            self.bodies_tell_the_record(),
            self.deliveries_end(),
            self.answers_are_recorded(),
            self.nothing_outlives_its_server(),
            self.results_are_of_the_last_attempt(),
            self.files_are_whole(),
            self.others_are_not_delayed(),
            self.the_machine_gets_back_what_was_taken(),
            self.no_secret_leaves(),
            self.executions_are_bounded(),
            self.requests_are_attempts(),
        ]
        .concat()
    }

    /// I1: an acknowledged run exists, has ended, and is the run of that request.
    pub fn acknowledged_runs_end(&self) -> Vec<Finding> {
        let by_id: HashMap<&str, &Run> = self.runs.iter().map(|run| (run.id.as_str(), run)).collect();
        let of = |number: &u64, id: &str| match by_id.get(id) {
            None => Some(format!("request {number} was acknowledged as run {id}, which is lost")),
            Some(run) if run.ended_at.is_none() => Some(format!("run {id} is {} in the end", run.state)),
            Some(run) if self.took_its_replicas_down(run) => None,
            Some(run) if run.state != "succeeded" => {
                Some(format!("run {id} of request {number} is {} in the end: {:?}", run.state, run.error))
            }
            Some(run) if run.request() != Some(*number) => {
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

    /// Three crashes of its replica end a run as `crash_loop`, and rightly so.
    fn took_its_replicas_down(&self, run: &Run) -> bool {
        let crashed = |end: &Option<String>| end.as_deref() == Some("worker_crashed");
        run.state == "failed"
            && run.error.as_ref().is_some_and(|error| error.code == "crash_loop")
            && run.attempts.iter().filter(|attempt| crashed(&attempt.end)).count() == CRASH_LOOP
            && self.crashes_that_hit(run, |victim| victim == Victim::Replica) >= CRASH_LOOP
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

    /// I1: a request that was made again with its key is answered with the run that it became at first.
    pub fn retries_land_on_the_first_run(&self) -> Vec<Finding> {
        let runs = self.runs_by_request();
        let astray = self.retried.iter().filter_map(|(number, retried)| {
            let runs = runs.get(number).map_or(&[][..], Vec::as_slice);
            let wrong = runs != [retried.as_str()];
            wrong.then(|| format!("request {number}, made again, became {retried}; its runs are {runs:?}"))
        });
        found("I1", astray)
    }

    /// I2: what has ended stays as it is, a run and each of its deliveries.
    pub fn ends_never_change(&self) -> Vec<Finding> {
        let later: HashMap<&str, &Run> = self.runs_later.iter().map(|run| (run.id.as_str(), run)).collect();
        let alone = |run: &Run| Run { deliveries: Vec::new(), ..run.clone() };
        let of = |run: &Run| {
            let Some(later) = later.get(run.id.as_str()) else {
                return vec![format!("run {} is gone after a restart", run.id)];
            };
            let mut changed = Vec::new();
            if run.ended_at.is_some() && alone(run) != alone(later) {
                changed.push(format!("run {} changed after its end: {run:?} became {later:?}", run.id));
            }
            if run.ended_at.is_some() && run.deliveries.len() != later.deliveries.len() {
                changed.push(format!("run {} has other deliveries after a restart", run.id));
            }
            changed.extend(run.deliveries.iter().zip(&later.deliveries).filter_map(delivery_changed));
            changed
        };
        found("I2", self.runs.iter().flat_map(of))
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

    /// I4: all requests of a delivery have one body, a run's requests to an endpoint have one id, and an
    /// id stands for nothing else.
    pub fn duplicates_are_recognisable(&self) -> Vec<Finding> {
        let mut firsts: HashMap<(String, &str), &Arrival> = HashMap::new();
        let mut ids: HashMap<&str, (String, &str)> = HashMap::new();
        let mut findings = Vec::new();
        for arrival in &self.arrivals {
            let run = arrival.json()["run_id"].as_str().unwrap_or_default().to_owned();
            let meant = (run.clone(), arrival.path.as_str());
            let first = *firsts.entry(meant.clone()).or_insert(arrival);
            let id = arrival.header("webhook-id");
            if first.header("webhook-id") != id {
                findings.push(format!("run {run} was delivered to {} under two ids", arrival.path));
            } else if *ids.entry(id).or_insert_with(|| meant.clone()) != meant {
                findings.push(format!("webhook-id {id} stands for more than one delivery"));
            }
            if first.body != arrival.body {
                findings.push(format!("run {run} was delivered to {} with two bodies", arrival.path));
            }
        }
        found("I4", findings)
    }

    /// I4: what arrived is what was recorded.
    pub fn bodies_tell_the_record(&self) -> Vec<Finding> {
        let by_id: HashMap<&str, &Run> = self.runs.iter().map(|run| (run.id.as_str(), run)).collect();
        let wrong = self.arrivals.iter().filter_map(|arrival| {
            let body = arrival.json();
            let run = by_id.get(body["run_id"].as_str().unwrap_or_default())?;
            (body["result"] != run.result)
                .then(|| format!("run {} was delivered with another result than the recorded one", run.id))
        });
        found("I4", wrong)
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

    /// I5: every 2xx that was answered after the last death of the server is recorded as such.
    pub fn answers_are_recorded(&self) -> Vec<Finding> {
        let deaths = self.crashes.iter().filter(|crash| crash.victim == Victim::Server);
        let last = deaths.map(|crash| crash.to).max().unwrap_or_default();
        let answered = self.arrivals.iter().filter(|arrival| arrival.received > last);
        let answered = counts(answered.map(|arrival| arrival.header("webhook-id")));
        let taken = |delivery: &Delivery| {
            let success = |status: Option<u16>| status.is_some_and(|status| (200..300).contains(&status));
            delivery.attempts.iter().filter(|attempt| success(attempt.status_code)).count()
        };
        let wrong = self.deliveries().filter_map(|delivery| {
            let (answered, recorded) =
                (answered.get(delivery.id.as_str()).copied().unwrap_or_default(), taken(delivery));
            (answered > recorded).then(|| {
                format!(
                    "delivery {} was answered {answered} times with 2xx, recorded {recorded} times",
                    delivery.id
                )
            })
        });
        found("I5", wrong)
    }

    /// I6: nothing of a dead server is left.
    pub fn nothing_outlives_its_server(&self) -> Vec<Finding> {
        found("I6", self.survivors.iter().map(|process| format!("{process} outlived its server")))
    }

    /// I7: a recorded result is what an execution of the last attempt returned: no earlier attempt,
    /// whose lease was over, had a say.
    pub fn results_are_of_the_last_attempt(&self) -> Vec<Finding> {
        let effects: HashSet<&Execution> = self.effects.iter().collect();
        let wrong = self.runs.iter().filter_map(|run| {
            let request = run.request()?;
            let (at, pid) = (run.result["at"].as_u64()?, run.result["pid"].as_u64()?);
            if !effects.contains(&Execution { request, at, pid }) {
                return Some(format!("the result of run {} was returned by no execution of it", run.id));
            }
            let began = run.attempts.last()?.started_at;
            let at = Timestamp::from_millis(i64::try_from(at / 1000).ok()?);
            (at < began).then(|| {
                format!("the result of run {} is of {at}, before its last attempt began at {began}", run.id)
            })
        });
        found("I7", wrong)
    }

    /// I8: the databases are whole, and no file belongs to nobody.
    pub fn files_are_whole(&self) -> Vec<Finding> {
        found("I8", self.damage.iter().cloned())
    }

    /// I9: no webhook came long after the end of its run.
    pub fn others_are_not_delayed(&self) -> Vec<Finding> {
        let Some(most) = self.delay_max else { return Vec::new() };
        let mut first: HashMap<&str, Timestamp> = HashMap::new();
        for arrival in &self.arrivals {
            let at = first.entry(arrival.header("webhook-id")).or_insert(arrival.received);
            *at = arrival.received.min(*at);
        }
        let deliveries = self.runs.iter().flat_map(|run| run.deliveries.iter().map(move |own| (run, own)));
        let late = deliveries.filter_map(|(run, delivery)| {
            let waited = first.get(delivery.id.as_str())?.since(run.ended_at?);
            (waited > most).then(|| {
                format!("delivery {} came {waited:?} after the end of its run; {most:?} at most", delivery.id)
            })
        });
        found("I9", late)
    }

    /// I10: an idle server takes no more than it took before the load.
    pub fn the_machine_gets_back_what_was_taken(&self) -> Vec<Finding> {
        let Some((before, after)) = self.footprints else { return Vec::new() };
        let figures = [
            ("bytes of memory", after.resident, before.resident + RESIDENT_MORE_MAX),
            ("descriptors", after.descriptors, before.descriptors + DESCRIPTORS_MORE_MAX),
            ("threads", after.threads, before.threads + THREADS_MORE_MAX),
            ("bytes of write-ahead log", after.log, LOG_MAX),
        ];
        let more = figures.into_iter().filter(|(_, taken, most)| taken > most);
        found("I10", more.map(|(what, taken, most)| format!("{taken} {what} after the load; {most} at most")))
    }

    /// I11: nothing that was let out has a secret in it.
    pub fn no_secret_leaves(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for Output { place, text } in &self.outputs {
            for (name, secret) in &self.secrets {
                if text.contains(secret.as_str()) {
                    findings.push(format!("{place} shows the {name}"));
                }
            }
        }
        found("I11", findings)
    }

    /// User code never ran more often than the store has attempts for it, nor more often than once and
    /// once again for each crash that hit the run.
    pub fn executions_are_bounded(&self) -> Vec<Finding> {
        let mut bounds: HashMap<u64, (usize, usize)> = HashMap::new();
        for run in &self.runs {
            if let Some(number) = self.request_of(run) {
                let (attempts, crashes) = bounds.entry(number).or_default();
                *attempts += run.attempts.len();
                *crashes += 1 + self.crashes_that_hit(run, |_| true);
            }
        }
        let more = counts(self.effects.iter().map(|execution| execution.request));
        let more = more.into_iter().filter_map(|(number, times)| {
            let (attempts, crashes) = bounds.get(&number).copied().unwrap_or_default();
            (times > attempts.min(crashes)).then(|| {
                format!("request {number} ran {times} times, in {attempts} attempt(s), at most {crashes} by its crashes")
            })
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

    fn crashes_that_hit(&self, run: &Run, matching: impl Fn(Victim) -> bool) -> usize {
        let alive = |crash: &&super::Crash| {
            crash.to >= run.accepted_at && run.ended_at.is_none_or(|end| crash.from <= end)
        };
        self.crashes.iter().filter(|crash| matching(crash.victim)).filter(alive).count()
    }

    /// The request that a run answers, also when it has no result.
    fn request_of(&self, run: &Run) -> Option<u64> {
        let acked =
            |(number, known): (&u64, &Known)| (*known == Known::Acked(run.id.clone())).then_some(*number);
        run.request().or_else(|| self.history.iter().find_map(acked))
    }

    fn runs_by_request(&self) -> BTreeMap<u64, Vec<&str>> {
        let mut map: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for run in &self.runs {
            if let Some(number) = run.request() {
                map.entry(number).or_default().push(&run.id);
            }
        }
        map
    }
}

/// How a delivery changed that must not change: all of one that has ended, the ended attempts of another.
fn delivery_changed((before, after): (&Delivery, &Delivery)) -> Option<String> {
    let kept = if before.has_ended() {
        before == after
    } else {
        let ended = before.attempts.iter().filter(|attempt| attempt.ended_at.is_some());
        before.id == after.id && ended.clone().eq(after.attempts.iter().take(ended.count()))
    };
    (!kept).then(|| format!("delivery {} changed: {before:?} became {after:?}", before.id))
}

fn found(rule: &'static str, what: impl IntoIterator<Item = String>) -> Vec<Finding> {
    what.into_iter().map(|what| Finding { rule, what }).collect()
}

fn counts<T: Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    items.fold(HashMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}
