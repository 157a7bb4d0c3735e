//! How much work statements are: what a start and the path of a run cost must not grow with the number
//! of runs that have ended, nor with how many wait.
//!
//! Counted in steps of SQLite's virtual machine, so that the answer is the same on every machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use queue::delivery::{
    AttemptEnd, AttemptReport, DeliveryFilter, DeliveryState, DueDelivery, Endpoints, Verdict,
};
use queue::lease::{Lease, Release};
use queue::outcome::{Ending, Finish, Finished, Outcome};
use queue::port::{Accepted, Claim, Deliveries as _, Room, Runs as _};
use queue::run::{
    CallRecord, EndpointUrl, Generation, Idempotency, Mode, NewRun, RunFilter, RunOptions, RunState,
};
use queue::search::Search;
use queue::{AppId, Clock, DeliveryId, Entropy, LeaseToken, ProjectId, RunId, Timestamp};
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};

use crate::{Options, Store};

/// The most steps that one execution of a statement took, by database and statement.
static STEPS: Mutex<BTreeMap<PathBuf, BTreeMap<String, i32>>> = Mutex::new(BTreeMap::new());

/// How often statements were prepared again because of what was bound to them, by database.
static PREPARED_AGAIN: Mutex<BTreeMap<PathBuf, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// The connection, with its statements counted from now on.
pub(crate) fn watched(mut conn: Connection) -> Connection {
    let path = conn.path().map(PathBuf::from).unwrap_or_default();
    let mut counted: HashMap<String, i32> = HashMap::new();
    let count = move |event: TraceEvent<'_>| {
        let TraceEvent::Profile(statement, _) = event else { return };
        let (text, total) = (statement.sql().into_owned(), statement.get_status(StatementStatus::VmStep));
        let before = counted.insert(text.clone(), total).filter(|before| *before <= total).unwrap_or(0);
        let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
        let most = steps.entry(path.clone()).or_default().entry(text).or_default();
        *most = (total - before).max(*most);
        drop(steps);
        if statement.get_status(StatementStatus::RePrepare) > 0 {
            let mut again = PREPARED_AGAIN.lock().unwrap_or_else(PoisonError::into_inner);
            again.entry(path.clone()).or_default().insert(statement.sql().into_owned());
        }
    };
    conn.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(count)).unwrap();
    conn
}

/// What was counted below `dir`, which begins anew.
fn take(dir: &Path) -> BTreeMap<String, i32> {
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    steps.remove(&dir.join("postback.db")).unwrap_or_default()
}

struct Fixed;

const NOW: Timestamp = Timestamp::from_millis(1_769_860_800_000);
const HOOK: &str = "https://a.example/hook";

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// A sequence that does not repeat.
struct Sequence(Mutex<u64>);

impl Entropy for Sequence {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (*state >> 56) as u8;
        }
    }
}

struct Scene {
    dir: tempfile::TempDir,
    entropy: Arc<Sequence>,
}

fn project() -> ProjectId {
    "p-1".parse().unwrap()
}

fn app() -> AppId {
    AppId::new(&project(), &"a".parse().unwrap())
}

fn room() -> Room {
    Room { total: 8, per_receiver: 8, ..Room::default() }
}

impl Scene {
    fn open(&self) -> Store {
        Store::open(Options::new(self.dir.path()), Arc::new(Fixed), Arc::clone(&self.entropy) as _).unwrap()
    }

    fn new_run(&self) -> NewRun {
        NewRun {
            id: RunId::generate(NOW, self.entropy.as_ref()),
            app: app(),
            function: "predict".into(),
            generation: Generation::V3,
            mode: Mode::Async,
            input: Bytes::from_static(b"{}"),
            webhooks: vec![EndpointUrl::checked(HOOK)],
            limit: Duration::from_secs(900),
            accepted_at: NOW,
            warning: None,
            options: RunOptions::default(),
        }
    }

    fn call_record(&self) -> CallRecord {
        CallRecord {
            id: RunId::generate(NOW, self.entropy.as_ref()),
            app: app(),
            function: "predict".into(),
            generation: Generation::V4,
            accepted_at: NOW,
            started_at: Some(NOW),
            ended_at: NOW,
            ending: Ending::Succeeded,
            status_code: 200,
            run_time_ms: 1.0,
            build: None,
            error: None,
            metadata: None,
        }
    }

    async fn leased(&self, store: &Store) -> Lease {
        let token = LeaseToken::generate(self.entropy.as_ref());
        match store.accept(self.new_run(), Claim::Now(token)).await.unwrap() {
            Accepted::Leased(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    /// What a start and the path of a run cost, with so many runs that ended and so many that wait.
    async fn cost(finished: usize, queued: usize) -> BTreeMap<String, i32> {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let scene = Self { dir: dir.unwrap(), entropy: Arc::new(Sequence(Mutex::new(1))) };
        let store = scene.open();
        for _ in 0..finished {
            let due = finish(&store, scene.leased(&store).await).await;
            end(&store, &due[0], Verdict::Delivered);
        }
        for _ in 0..queued {
            store.accept(scene.new_run(), Claim::Later).await.unwrap();
        }
        store.close().await;
        take(scene.dir.path());
        let store = scene.open();
        scene.all_verbs(&store).await;
        store.close().await;
        take(scene.dir.path())
    }

    /// What the rooms ask at a start, and what they ask about each run.
    async fn all_verbs(&self, store: &Store) {
        store.backlog().await.unwrap();
        store.next_due(room()).await.unwrap();
        store.expire(NOW).await.unwrap();
        store.ready(NOW).await.unwrap();
        store.prune(NOW).await.unwrap();
        for attempt in 0..3 {
            let mut run = self.new_run();
            let key = format!("key-{attempt}").into();
            run.options.idempotency = Some(Idempotency { key, fingerprint: [1; 32] });
            run.options.start_by = Some(NOW);
            store.accept(run, Claim::Later).await.unwrap();
            let claimed = store.claim(&app(), 2, usize::MAX).await.unwrap();
            store.started(claimed.iter().map(|run| run.lease).collect());
            store.release(claimed[0].lease, Release::Drained).await.unwrap();
            let due = finish(store, claimed[1].lease).await;
            end(store, &due[0], Verdict::Retry(NOW));
            store.next_due(room()).await.unwrap();
            let again = store.begin(NOW, room()).await.unwrap();
            let verdicts = [Verdict::Exhausted, Verdict::Delivered, Verdict::Disabled];
            again.iter().for_each(|due| end(store, due, verdicts[attempt]));
            let queued = self.new_run();
            let id = queued.id;
            store.accept(queued, Claim::Later).await.unwrap();
            store.cancel(&project(), id).await.unwrap();
            store.expire(NOW).await.unwrap();
            self.views(store, due[0].id).await;
        }
    }

    async fn views(&self, store: &Store, delivery: DeliveryId) {
        // What was noted is seen from here on.
        store.backlog().await.unwrap();
        for state in [
            DeliveryState::Pending,
            DeliveryState::Sending,
            DeliveryState::Exhausted,
            DeliveryState::Disabled,
        ] {
            let (project, state) = (project(), Some(state));
            let filter = DeliveryFilter { project, endpoints: None, state, after: None, limit: 20 };
            store.deliveries(filter).await.unwrap();
        }
        for state in [
            None,
            Some(RunState::Queued),
            Some(RunState::Running),
            Some(RunState::Failed),
            Some(RunState::Cancelled),
            Some(RunState::Expired),
        ] {
            let project = project();
            let filter = RunFilter { state, ..RunFilter::of(project, 20) };
            store.runs(filter.clone()).await.unwrap();
            let search = Search::new(Some("nobody says this"), ["order=17"]).unwrap();
            store.runs(RunFilter { search, ..filter }).await.unwrap();
        }
        store.run(&project(), delivery.run).await.unwrap();
        store.wait_for_end(delivery.run, Duration::ZERO).await;
        let filter =
            DeliveryFilter { project: project(), endpoints: None, state: None, after: None, limit: 20 };
        store.deliveries(filter).await.unwrap();
        store.delivery(&project(), delivery).await.unwrap();
        let endpoints = Endpoints::One(EndpointUrl::checked(HOOK));
        store.redeliver_failed(&project(), endpoints, NOW).await.unwrap();
        for endpoint in store.endpoints(&project()).await.unwrap() {
            store.enable(&project(), &endpoint.id).await.unwrap();
        }
    }
}

async fn finish(store: &Store, lease: Lease) -> Vec<DueDelivery> {
    let outcome = Outcome::succeeded(Bytes::from_static(b"1"), 200, 1.0, NOW);
    match store.finish(Finish { lease, outcome, first_attempts: vec![true] }).await.unwrap() {
        Finished::Recorded(due) => due,
        Finished::Stale => panic!("the lease is current"),
    }
}

fn end(store: &Store, due: &DueDelivery, verdict: Verdict) {
    let reason = (verdict != Verdict::Delivered).then(|| "http_status".to_owned());
    let report = AttemptReport { reason, ..AttemptReport::default() };
    let (id, url, attempt) = (due.id, due.url.clone(), due.attempt);
    store.complete(AttemptEnd { id, project: Some(project()), url, attempt, ended_at: NOW, verdict, report });
}

/// Statements that are more work where there is more.
fn grown(small: &BTreeMap<String, i32>, large: &BTreeMap<String, i32>) -> Vec<String> {
    let more = |(text, steps): (&String, &i32)| {
        let before = small.get(text).copied().unwrap_or(0);
        (*steps > before + before / 4 + 60).then(|| format!("{before} -> {steps}: {text}"))
    };
    large.iter().filter_map(more).collect()
}

#[tokio::test]
async fn runs_that_have_ended_cost_a_start_and_other_runs_nothing() {
    let (small, large) = (Scene::cost(100, 10).await, Scene::cost(600, 10).await);
    assert!(small.len() > 40, "the statements are counted: {small:?}");
    assert_eq!(grown(&small, &large), Vec::<String>::new());
}

#[tokio::test]
async fn runs_that_wait_cost_a_start_one_count_and_other_runs_nothing() {
    let (small, large) = (Scene::cost(10, 100).await, Scene::cost(10, 600).await);
    let grown = grown(&small, &large);
    let count = |text: &String| text.contains("count(*)") && text.contains("state = 'queued'");
    // The list of those that wait goes through their index as long as there are no more than so many.
    let list = |text: &String| text.contains("INDEXED BY runs_queued") && crate::runs::FEW > 600;
    let grown: Vec<_> = grown.into_iter().filter(|text| !list(text)).collect();
    let (counts, others): (Vec<_>, Vec<_>) = grown.into_iter().partition(count);
    assert_eq!(others, Vec::<String>::new());
    assert_eq!(counts.len(), 2, "the writer's books and the worker's first look: {counts:?}");
}

/// Ended runs of another project, newer than all others, of which the oldest have a webhook that waits.
fn fill_with_others(path: &Path, waiting: usize, delivered: usize) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch("BEGIN; INSERT INTO app_numbers (number, app, project) VALUES (77, 'p-2-a', 'p-2')")
        .unwrap();
    for (table, key) in [("runs", "id"), ("deliveries", "run")] {
        let mut columns = conn.prepare(&format!("SELECT name FROM pragma_table_info('{table}')")).unwrap();
        let columns: Vec<String> =
            columns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let value = |column: &String| match column.as_str() {
            name if name == key => "cast(X'7FFFFFFFFFFF' || printf('%010d', x) AS BLOB)".to_owned(),
            "app" => "77".to_owned(),
            "state" if table == "deliveries" => format!("iif(x <= {waiting}, 'pending', 'delivered')"),
            "next_at" => format!("iif(x <= {waiting}, 1, NULL)"),
            name => name.to_owned(),
        };
        let values: Vec<_> = columns.iter().map(value).collect();
        let rows = waiting + delivered;
        let fill = format!(
            "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {rows})
             INSERT INTO {table} ({}) SELECT {} FROM n, (SELECT * FROM {table} LIMIT 1)",
            columns.join(", "),
            values.join(", ")
        );
        assert_eq!(conn.execute(&fill, []).unwrap(), rows);
    }
    conn.execute_batch("COMMIT").unwrap();
}

#[tokio::test]
async fn what_waits_is_found_although_another_project_has_a_long_queue() {
    let few = usize::try_from(crate::runs::FEW).unwrap();
    let scene = Scene { dir: tempfile::tempdir().unwrap(), entropy: Arc::new(Sequence(Mutex::new(1))) };
    let store = scene.open();
    let due = finish(&store, scene.leased(&store).await).await;
    end(&store, &due[0], Verdict::Retry(NOW));
    store.close().await;
    fill_with_others(&scene.dir.path().join("postback.db"), few + 1, 20 * few);
    let store = scene.open();
    take(scene.dir.path());
    let list = async |limit| {
        let (project, state) = (project(), Some(DeliveryState::Pending));
        let filter = DeliveryFilter { project, endpoints: None, state, after: None, limit };
        let found = store.deliveries(filter).await.unwrap();
        found.iter().map(|view| view.run_id).collect::<Vec<_>>()
    };
    assert_eq!(list(20).await, [due[0].id.run]);
    let statements = take(scene.dir.path());
    store.close().await;
    // About as many rows are looked at as wait, and not all that there ever were.
    let most = statements.values().max().copied().unwrap_or(0);
    assert!((1..50 * crate::runs::FEW).contains(&i64::from(most)), "{statements:?}");
}

#[tokio::test]
async fn no_statement_is_prepared_again_because_of_what_is_bound_to_it() {
    let scene = Scene { dir: tempfile::tempdir().unwrap(), entropy: Arc::new(Sequence(Mutex::new(1))) };
    let store = scene.open();
    for _ in 0..10 {
        store.accept(scene.new_run(), Claim::Later).await.unwrap();
    }
    scene.all_verbs(&store).await;
    store.close().await;
    assert!(!take(scene.dir.path()).is_empty());
    let mut again = PREPARED_AGAIN.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(again.remove(&scene.dir.path().join("postback.db")), None);
}

#[tokio::test]
async fn the_path_of_a_run_makes_no_temporary_trees() {
    let scene = Scene { dir: tempfile::tempdir().unwrap(), entropy: Arc::new(Sequence(Mutex::new(1))) };
    let store = scene.open();
    let hot = async || {
        let due = finish(&store, scene.leased(&store).await).await;
        end(&store, &due[0], Verdict::Delivered);
        store.record_call(scene.call_record());
        store.backlog().await.unwrap();
    };
    // The first one of an app is more than the path of a run.
    hot().await;
    take(scene.dir.path());
    hot().await;
    let statements = take(scene.dir.path());
    store.close().await;
    let conn = Connection::open(scene.dir.path().join("postback.db")).unwrap();
    let hot = |text: &&String| ["INSERT", "UPDATE", "DELETE"].iter().any(|verb| text.starts_with(verb));
    let written: Vec<_> = statements.keys().filter(hot).collect();
    assert!(written.len() > 5, "{statements:?}");
    for text in written {
        let mut statement = conn.prepare(&format!("EXPLAIN {text}")).unwrap();
        let codes = statement.raw_query().mapped(|row| row.get::<_, String>("opcode"));
        let codes: Vec<_> = codes.map(Result::unwrap).collect();
        assert!(codes.iter().all(|code| code != "OpenEphemeral"), "{text}: {codes:?}");
    }
}
