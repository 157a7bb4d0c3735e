//! Each rule has a history that breaks it, and the checker says so.

use std::path::Path;
use std::time::Instant;

use queue::Timestamp;
use serde_json::{Value, json};

use super::*;

const AT: i64 = 1_800_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(AT + millis)
}

fn micros(millis: i64) -> u64 {
    u64::try_from((AT + millis) * 1000).unwrap()
}

fn result(number: u64) -> Value {
    json!({"value": number, "at": micros(2), "pid": 40})
}

fn arrival(run: &str, id: &str, result: &Value) -> Arrival {
    let mut headers = http::HeaderMap::new();
    headers.insert("webhook-id", id.parse().unwrap());
    let body = json!({"run_id": run, "result": result}).to_string().into();
    Arrival { at: Instant::now(), received: at(6), path: "/hook".to_owned(), headers, body }
}

fn run(id: &str, number: u64) -> Run {
    serde_json::from_value(json!({
        "id": id, "state": "succeeded", "acceptedAt": at(0), "endedAt": at(5), "result": result(number),
        "attempts": [{"number": 1, "startedAt": at(1), "endedAt": at(5), "end": "succeeded"}],
        "deliveries": [{"id": format!("msg_{id}"), "state": "delivered",
                        "attempts": [{"number": 1, "endedAt": at(6), "statusCode": 200}]}],
    }))
    .unwrap()
}

/// One request that went well.
fn good() -> Evidence {
    Evidence {
        history: [(7, Known::Acked("a".to_owned()))].into(),
        runs: vec![run("a", 7)],
        runs_later: vec![run("a", 7)],
        arrivals: vec![arrival("a", "msg_a", &result(7))],
        effects: vec![Execution { request: 7, at: micros(2), pid: 40 }],
        ..Evidence::default()
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

/// Changes the run in both looks at it.
fn both(evidence: &mut Evidence, spoil: impl Fn(&mut Run)) {
    spoil(&mut evidence.runs[0]);
    spoil(&mut evidence.runs_later[0]);
}

fn crash(victim: Victim, millis: i64) -> Crash {
    Crash { victim, from: at(millis), to: at(millis) }
}

const NOTHING: [&str; 0] = [];

#[test]
fn good_evidence_has_no_findings() {
    assert_eq!(good().findings(), []);
    for known in [Known::Unknown, Known::Refused(429)] {
        assert_eq!(rules(|e| _ = e.history.insert(8, known.clone())), NOTHING);
    }
    assert_eq!(rules(|e| _ = e.retried.insert(7, "a".to_owned())), NOTHING);
}

#[test]
fn i1_finds_a_lost_run() {
    assert_eq!(rules(|e| _ = e.history.insert(8, Known::Acked("b".to_owned()))), ["I1"]);
}

#[test]
fn i1_finds_a_run_that_does_not_end_or_ends_as_another() {
    for state in ["queued", "running", "failed", "expired"] {
        assert_eq!(rules(|e| both(e, |run| run.state = state.to_owned())), ["I1"], "{state}");
    }
    assert!(rules(|e| e.runs[0].ended_at = None).contains(&"I1"));
    assert!(rules(|e| e.runs[0].result = result(8)).contains(&"I1"));
}

#[test]
fn i1_lets_a_run_end_as_crash_loop_only_when_it_was_hit_three_times() {
    let looped = |crashes: i64| {
        move |e: &mut Evidence| {
            both(e, |run| {
                run.state = "failed".to_owned();
                run.error = Some(RunError { code: "crash_loop".to_owned() });
                run.result = Value::Null;
                run.attempts = serde_json::from_value(json!([1, 2, 3].map(|number| {
                    json!({"number": number, "startedAt": at(1), "endedAt": at(2), "end": "worker_crashed"})
                })))
                .unwrap();
            });
            e.arrivals = vec![arrival("a", "msg_a", &Value::Null)];
            e.crashes = (0..crashes).map(|number| crash(Victim::Replica, number)).collect();
        }
    };
    assert_eq!(rules(looped(3)), NOTHING);
    assert_eq!(rules(looped(2)), ["I1"]);
}

#[test]
fn i1_finds_a_refused_run_that_exists() {
    assert_eq!(rules(|e| _ = e.history.insert(7, Known::Refused(503))), ["I1"]);
}

#[test]
fn i1_finds_a_request_that_became_two_runs_and_a_retry_that_went_astray() {
    let twice = |e: &mut Evidence| {
        e.history.insert(7, Known::Unknown);
        let mut second = run("b", 7);
        second.deliveries.clear();
        e.runs.push(second.clone());
        e.runs_later.push(second);
    };
    assert_eq!(rules(twice), ["I1"]);
    assert_eq!(rules(|e| _ = e.retried.insert(7, "b".to_owned())), ["I1"]);
    assert_eq!(rules(|e| _ = e.retried.insert(9, "b".to_owned())), ["I1"], "a run that is not there");
}

#[test]
fn i2_finds_an_end_that_changed_and_a_run_that_went() {
    assert_eq!(rules(|e| e.runs_later[0].result = result(9)), ["I2"]);
    assert_eq!(rules(|e| e.runs_later[0].state = "failed".to_owned()), ["I2"]);
    assert_eq!(rules(|e| e.runs_later.clear()), ["I2"]);
}

#[test]
fn i2_finds_a_delivery_that_changed() {
    assert_eq!(rules(|e| e.runs_later[0].deliveries.clear()), ["I2"]);
    let of = |e: &mut Evidence, spoil: fn(&mut Delivery)| spoil(&mut e.runs_later[0].deliveries[0]);
    assert_eq!(rules(|e| of(e, |delivery| delivery.state = "pending".to_owned())), ["I2"]);
    assert_eq!(rules(|e| of(e, |delivery| delivery.attempts[0].status_code = Some(500))), ["I2"]);
    let waiting = |e: &mut Evidence| {
        both(e, |run| run.deliveries[0].state = "pending".to_owned());
        e.runs_later[0].deliveries[0].state = "delivered".to_owned();
    };
    assert_eq!(rules(waiting), ["I5"], "one that waited may go on");
    let rewritten = |e: &mut Evidence| {
        waiting(e);
        e.runs_later[0].deliveries[0].attempts[0].reason = Some("reset".to_owned());
    };
    assert_eq!(rules(rewritten), ["I2", "I5"], "but not with another past");
}

#[test]
fn i3_finds_a_gap_and_an_attempt_without_end() {
    assert_eq!(rules(|e| both(e, |run| run.attempts[0].number = 2)), ["I3"]);
    assert_eq!(rules(|e| both(e, |run| run.attempts[0].end = None)), ["I3"]);
}

#[test]
fn i4_finds_two_ids_two_bodies_and_one_id_for_two() {
    let second = |id: &'static str, result: Value| {
        move |e: &mut Evidence| {
            e.arrivals.push(arrival("a", id, &result));
            let attempt = DeliveryAttempt { number: 2, ended_at: None, status_code: Some(200), reason: None };
            both(e, |run| run.deliveries[0].attempts.push(attempt.clone()));
        }
    };
    assert_eq!(rules(second("msg_a", result(7))), NOTHING, "an honest duplicate");
    assert_eq!(rules(second("msg_a", json!("y"))), ["I4"]);
    assert!(rules(second("msg_other", result(7))).contains(&"I4"));
    let shared = |e: &mut Evidence| {
        second("msg_a", result(7))(e);
        e.arrivals[1].path = "/other".to_owned();
    };
    assert_eq!(rules(shared), ["I4"]);
}

#[test]
fn i4_finds_a_body_that_tells_another_result_than_the_record() {
    assert_eq!(rules(|e| e.arrivals[0] = arrival("a", "msg_a", &result(8))), ["I4"]);
}

#[test]
fn i5_finds_a_delivery_without_end_and_one_that_never_arrived() {
    for state in ["pending", "sending"] {
        let stays = |e: &mut Evidence| both(e, |run| run.deliveries[0].state = state.to_owned());
        assert_eq!(rules(stays), ["I5"], "{state}");
    }
    assert_eq!(rules(|e| e.arrivals.clear()), ["I5"]);
}

#[test]
fn i5_finds_an_answer_that_was_not_recorded_unless_the_server_died_after_it() {
    let unrecorded = |e: &mut Evidence| {
        both(e, |run| {
            run.deliveries[0].attempts[0].status_code = None;
            run.deliveries[0].attempts[0].reason = Some("outcome_unknown".to_owned());
        });
    };
    assert_eq!(rules(unrecorded), ["I5"]);
    let died = |e: &mut Evidence| {
        unrecorded(e);
        e.crashes.push(crash(Victim::Server, 9));
    };
    assert_eq!(rules(died), NOTHING);
}

#[test]
fn i6_finds_a_process_that_outlived_its_server() {
    assert_eq!(rules(|e| e.survivors.push("41: python3".to_owned())), ["I6"]);
}

#[test]
fn i7_finds_the_result_of_a_stale_attempt_and_one_that_nobody_returned() {
    let stale = |e: &mut Evidence| {
        both(e, |run| {
            run.attempts[0].end = Some("server_lost".to_owned());
            let mut second = run.attempts[0].clone();
            (second.number, second.started_at, second.end) = (2, at(4), Some("succeeded".to_owned()));
            run.attempts.push(second);
        });
    };
    assert_eq!(rules(stale), ["I7"]);
    assert_eq!(rules(|e| e.effects[0].pid = 41), ["I7"]);
}

#[test]
fn i8_finds_a_damaged_database_and_files_that_belong_to_nobody() {
    assert_eq!(rules(|e| e.damage.push("page 3".to_owned())), ["I8"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postback.db");
    let found = |folder: &Path| damage(folder).len();
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(
        "PRAGMA foreign_keys = OFF; CREATE TABLE p (x INTEGER PRIMARY KEY); CREATE TABLE c (p INTEGER REFERENCES p);
         CREATE TABLE results (run BLOB, file TEXT); CREATE INDEX i ON c (p); INSERT INTO c VALUES (5);",
    )
    .unwrap();
    assert_eq!(damage(folder.path()).last().unwrap(), "logs.db is not there");
    rusqlite::Connection::open(folder.path().join("logs.db"))
        .unwrap()
        .execute_batch("CREATE TABLE l (x)")
        .unwrap();
    assert_eq!(found(folder.path()), 1, "a row without its parent");
    conn.execute_batch("INSERT INTO p VALUES (5)").unwrap();
    assert_eq!(damage(folder.path()), NOTHING);
    std::fs::create_dir(folder.path().join("results")).unwrap();
    std::fs::write(folder.path().join("results/a.json"), "1").unwrap();
    assert_eq!(damage(folder.path()), ["results/a.json belongs to no run"]);
    conn.execute_batch("INSERT INTO results VALUES (x'00', 'a.json'), (x'01', 'b.json')").unwrap();
    assert_eq!(damage(folder.path()), ["results/b.json is gone"]);
    conn.execute_batch("DELETE FROM results WHERE file = 'b.json'").unwrap();
    drop(conn);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4096;
    bytes[last..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    assert_ne!(damage(folder.path()), NOTHING, "a page was overwritten");
}

#[test]
fn i9_finds_a_webhook_that_had_to_wait_for_others() {
    let arrives = |millis: i64, delay_max| {
        move |e: &mut Evidence| {
            e.delay_max = delay_max;
            e.arrivals[0].received = at(5 + millis);
        }
    };
    let second = Some(Duration::from_secs(1));
    assert_eq!(rules(arrives(1_000, second)), NOTHING);
    assert_eq!(rules(arrives(1_001, second)), ["I9"]);
    assert_eq!(rules(arrives(60_000, None)), NOTHING, "nobody asked");
}

#[test]
fn i10_finds_each_thing_that_did_not_come_back() {
    let before = Footprint { resident: 30 << 20, descriptors: 40, threads: 12, log: 0 };
    let spoils: [fn(&mut Footprint); 4] = [
        |after| after.resident += 65 << 20,
        |after| after.descriptors += 25,
        |after| after.threads += 5,
        |after| after.log = 65 << 20,
    ];
    assert_eq!(rules(|e| e.footprints = Some((before, before))), NOTHING);
    for spoil in spoils {
        let mut after = before;
        spoil(&mut after);
        assert_eq!(rules(|e| e.footprints = Some((before, after))), ["I10"], "{after:?}");
    }
}

#[test]
fn i11_finds_a_secret_in_an_output() {
    let said = |text: &'static str| {
        move |e: &mut Evidence| {
            e.secrets = vec![("private key".to_owned(), "private-5eed".to_owned())];
            e.outputs = vec![Output { place: "the log".to_owned(), text: text.to_owned() }];
        }
    };
    assert_eq!(rules(said("key private-…")), NOTHING);
    assert_eq!(rules(said("key private-5eed!")), ["I11"]);
}

#[test]
fn an_execution_or_a_request_that_the_store_does_not_know_is_found() {
    let again = Execution { request: 7, at: micros(3), pid: 41 };
    assert_eq!(rules(|e| e.effects.push(again)), ["executions"]);
    assert!(rules(|e| e.arrivals.push(arrival("a", "msg_a", &result(7)))).contains(&"requests"));
}

#[test]
fn an_execution_beyond_the_crashes_that_hit_the_run_is_found() {
    let again = |crashes: Vec<Crash>| {
        move |e: &mut Evidence| {
            e.effects.insert(0, Execution { request: 7, at: micros(1), pid: 39 });
            both(e, |run| {
                let mut first = run.attempts[0].clone();
                first.end = Some("server_lost".to_owned());
                run.attempts[0].number = 2;
                run.attempts.insert(0, first);
            });
            e.crashes = crashes.clone();
        }
    };
    assert_eq!(rules(again(vec![crash(Victim::Server, 1)])), NOTHING);
    assert_eq!(rules(again(Vec::new())), ["executions"]);
    assert_eq!(rules(again(vec![crash(Victim::Server, 7)])), ["executions"], "it had ended by then");
}
