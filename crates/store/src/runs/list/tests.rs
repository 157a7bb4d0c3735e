//! What a list finds, how far it looks for it, and by which index.

use queue::search::Search;
use queue::{Entropy, Timestamp};

use super::*;
use crate::vault::newest_schema;

const PROJECT: &str = "p-11111111";

struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

fn id(second: u8) -> RunId {
    RunId::generate(Timestamp::from_millis(i64::from(second) * 1_000), &Fixed(second))
}

/// A run of each second, by turns of two apps; every tenth of them says so.
fn runs(count: u8) -> Connection {
    let conn = newest_schema();
    conn.execute_batch(&format!(
        "INSERT INTO app_numbers (number, app, project) VALUES (1, '{PROJECT}-a', '{PROJECT}'),
                                                               (2, '{PROJECT}-b', '{PROJECT}')"
    ))
    .unwrap();
    let mut insert = conn
        .prepare(
            "INSERT INTO runs (id, app, function, generation, mode, state, accepted_at, ended_at, warning)
             VALUES (?1, ?2, 'predict', 'v4', 'sync', 'succeeded', ?3, ?3, ?4)",
        )
        .unwrap();
    for second in 0..count {
        let warning = (second % 10 == 0).then_some("Mind the Tenth");
        let values = params![id(second).into_bytes(), 1 + second % 2, i64::from(second) * 1_000, warning];
        insert.execute(values).unwrap();
    }
    drop(insert);
    conn
}

fn filter(text: &str, limit: usize) -> RunFilter {
    RunFilter {
        search: Search::new(Some(text), []).unwrap(),
        ..RunFilter::of(PROJECT.parse().unwrap(), limit)
    }
}

fn seconds(list: &RunList) -> Vec<i64> {
    list.runs.iter().map(|run| run.accepted_at.as_secs()).collect()
}

#[test]
fn a_search_looks_at_so_many_runs_and_goes_on_where_it_stopped() {
    let conn = runs(120);
    let first = page(&conn, &filter("tenth", 100)).unwrap();
    assert_eq!(seconds(&first), [110, 100, 90, 80, 70]);
    assert_eq!((first.next, first.looked), (Some(id(70)), 50), "of a hundred and twenty");
    let second = page(&conn, &RunFilter { before: first.next, ..filter("tenth", 100) }).unwrap();
    assert_eq!(seconds(&second), [60, 50, 40, 30, 20]);
    let third = page(&conn, &RunFilter { before: second.next, ..filter("tenth", 100) }).unwrap();
    assert_eq!((seconds(&third), third.next, third.looked), (vec![10, 0], None, 20));
}

#[test]
fn a_full_page_of_a_search_goes_on_behind_its_last_run() {
    let conn = runs(40);
    let first = page(&conn, &filter("tenth", 2)).unwrap();
    assert_eq!((seconds(&first), first.next, first.looked), (vec![30, 20], Some(id(20)), 20));
    let second = page(&conn, &RunFilter { before: first.next, ..filter("tenth", 2) }).unwrap();
    assert_eq!((seconds(&second), second.next), (vec![10, 0], None));
}

#[test]
fn a_search_obeys_the_other_filters() {
    let conn = runs(40);
    let at = |second: i64| Some(Timestamp::from_millis(second * 1_000));
    let none: [i64; 0] = [];
    let of = |filter: RunFilter| seconds(&page(&conn, &filter).unwrap());
    assert_eq!(of(RunFilter { since: at(10), until: at(30), ..filter("tenth", 9) }), [20, 10]);
    assert_eq!(of(RunFilter { until: at(30), before: Some(id(20)), ..filter("tenth", 9) }), [10, 0]);
    assert_eq!(
        of(RunFilter { app: Some(format!("{PROJECT}-b").parse().unwrap()), ..filter("tenth", 9) }),
        none
    );
    assert_eq!(of(RunFilter { async_only: true, ..filter("tenth", 9) }), none);
    assert_eq!(of(RunFilter { state: Some(RunState::Failed), ..filter("tenth", 9) }), none);
    assert_eq!(of(RunFilter { state: Some(RunState::Succeeded), ..filter("tenth", 9) }), [30, 20, 10, 0]);
}

/// A page is read from its place in an index on, and nothing is sorted; but for what is queued or running, of
/// which there are few when it is read like this.
#[test]
fn a_page_is_a_walk_of_an_index_within_its_time() {
    let conn = newest_schema();
    let at = |millis| Some(Timestamp::from_millis(millis));
    let plan = |text: &str| -> Vec<String> {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        steps.map(Result::unwrap).collect()
    };
    for (way, index) in [
        (Way::InOrder, "runs_by_app (app=? AND"),
        (Way::Failed, "runs_without_result (app=? AND state=? AND"),
        (Way::Cancelled, "runs_without_result (app=? AND state=? AND"),
        (Way::Expired, "runs_without_result (app=? AND state=? AND"),
    ] {
        let within = RunFilter { since: at(1), until: at(2), ..filter("x", 10) };
        let walk = format!("SEARCH r USING INDEX {index} id>? AND id<?)");
        let steps = plan(&listed(way, &bounds(&within)));
        assert_eq!(steps[0], walk);
        assert!(steps.iter().all(|step| !step.contains("TEMP B-TREE")), "{steps:?}");
        let steps = plan(&looked_at(way, &within, &bounds(&within)));
        assert_eq!(steps[0], walk);
        assert!(steps[1].starts_with("SEARCH s USING PRIMARY KEY (run=?)"), "{steps:?}");
        assert_eq!(steps.len(), 2, "{steps:?}");
    }
}

/// A million runs may have failed since the last that did not.
#[test]
fn a_state_that_no_index_tells_apart_is_looked_for_so_far_and_no_farther() {
    let conn = runs(120);
    conn.execute_batch("UPDATE runs SET state = 'failed' WHERE accepted_at >= 20000").unwrap();
    let succeeded = RunFilter { state: Some(RunState::Succeeded), ..filter("", 100) };
    let first = page(&conn, &succeeded).unwrap();
    assert_eq!((first.runs.len(), first.next), (0, Some(id(70))), "fifty were looked at");
    let third = RunFilter { before: Some(id(20)), ..succeeded };
    let third = page(&conn, &third).unwrap();
    assert_eq!((third.runs.len(), third.next), (20, None));
    let asked = page(&conn, &RunFilter { async_only: true, ..filter("", 100) }).unwrap();
    assert_eq!((asked.runs.len(), asked.next), (0, Some(id(70))));
}

#[test]
fn a_search_through_an_index_looks_at_half_as_many_since_each_look_costs_twice() {
    let conn = runs(120);
    conn.execute_batch("UPDATE runs SET state = 'failed'").unwrap();
    let failed = RunFilter { state: Some(RunState::Failed), ..filter("no such word", 100) };
    let first = page(&conn, &failed).unwrap();
    assert_eq!((first.runs.len(), first.next), (0, Some(id(95))), "twenty-five were looked at");
}
