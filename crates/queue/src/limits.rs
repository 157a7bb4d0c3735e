//! Every bound of the product, in one table, from which `docs/reference/limits.md` is made.

use std::time::Duration;

/// Connections open at once; the next one waits.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Connections open at once from one address, or one /64 of IPv6.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1_024;
/// Time for the first request of a connection, and for each header once it has begun.
pub const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one request's header.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Header lines of one request.
pub const HEADERS_MAX: usize = 100;
/// Time without a byte between requests.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Time without a byte of a body that is expected, or of an answer that waits to be taken.
pub const BODY_STALL_LIMIT: Duration = Duration::from_secs(30);
/// Bytes a second of a body or an answer, on average.
pub const BODY_RATE_MIN: u32 = 1 << 10;
/// Largest request body of an inference call, in bytes.
pub const REQUEST_BODY_BYTES_MAX: usize = 100 << 20;
/// Largest form that calls a function from the dashboard, in bytes.
pub const TRIED_INPUT_BYTES_MAX: usize = 1 << 20;
/// Largest request body that is kept with its run after the end, in bytes.
pub const KEPT_INPUT_BYTES_MAX: usize = 64 << 10;
/// Largest result of a run, in bytes of JSON.
pub const RESULT_BYTES_MAX: usize = 100 << 20;
/// Results from this size on are kept as files beside the database.
pub const INLINE_RESULT_BYTES_MAX: usize = 256 << 10;
/// Largest JSON body of a control-plane request, in bytes.
pub const CONTROL_BODY_BYTES_MAX: usize = 2 << 20;
/// Largest uploaded archive of an app, in bytes.
pub const UPLOAD_BYTES_MAX: u64 = 2 << 30;
/// Deepest nesting of arrays and objects in a request body.
pub const JSON_DEPTH_MAX: usize = 128;
/// Digits of a number in a request body: Python reads them in quadratic time.
pub const JSON_DIGITS_MAX: usize = 100_000;
/// Longest webhook address, in bytes.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2_048;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Longest secret that a caller may bring for its deliveries, in bytes.
pub const CALLER_SECRET_BYTES_MAX: usize = 1_024;
/// Endpoints that one run tells.
pub const WEBHOOKS_PER_RUN_MAX: usize = 8;
/// Headers that deliveries of a run carry beside ours.
pub const WEBHOOK_HEADERS_MAX: usize = 16;
/// Names and values of these headers, in bytes.
pub const WEBHOOK_HEADERS_BYTES_MAX: usize = 4_096;
/// Steps of a schedule of its own that a run's deliveries may follow …
pub const WEBHOOK_SCHEDULE_STEPS_MAX: usize = 32;
/// … each at least as long as this …
pub const WEBHOOK_SCHEDULE_STEP_MIN: Duration = Duration::from_secs(1);
/// … and at most as long as this …
pub const WEBHOOK_SCHEDULE_STEP_MAX: Duration = Duration::from_secs(7 * 86_400);
/// … and all together no longer than this.
pub const WEBHOOK_SCHEDULE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Longest metadata of a call, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 4_096;
/// Runs that one search looks at, or half as many in a state that has an index; whoever wants more goes on where it
/// stopped.
pub const RUNS_SEARCHED_MAX: usize = 10_000;
/// How long `--wait` asks again when its server does not answer.
pub const SERVER_AWAY_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest text that runs are searched for, in bytes.
pub const SEARCH_TEXT_BYTES_MAX: usize = 256;
/// Conditions on the metadata in one search.
pub const SEARCH_METADATA_MAX: usize = 8;
/// Bytes of each text of a run, and of its result, that a search looks at.
pub const SEARCHED_BYTES_MAX: usize = 16 << 10;
/// Named keys of a project.
pub const KEYS_MAX: usize = 100;
/// Longest name of a key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 100;
/// Deliveries that are looked at, the newest ones, to tell how endpoints do …
pub const DELIVERIES_LOOKED_AT_MAX: usize = 5_000;
/// … of which so many are told …
pub const ENDPOINTS_SHOWN_MAX: usize = 100;
/// … each with as many of its last attempts, and of its next ones …
pub const ENDPOINT_ATTEMPTS_SHOWN_MAX: usize = 20;
/// … found among so many that wait for its receiver.
pub const PENDING_LOOKED_AT_MAX: usize = 1_000;
/// Between two events of a kind that a run tells on its way.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Lines or values in one such event, in bytes of JSON.
pub const PROGRESS_BODY_BYTES_MAX: usize = 64 << 10;
/// Events that one run tells on its way; after that only its outcome.
pub const PROGRESS_EVENTS_PER_RUN_MAX: u32 = 10_000;
/// Events of a run that wait for one endpoint; beyond it the endpoint is told less.
pub const PROGRESS_UNDELIVERED_MAX: u32 = 16;
/// Log kept for one run, in bytes: half from its head, half from its tail.
pub const RUN_LOG_BYTES_MAX: usize = 1 << 20;
/// What one attempt of a run may print, in bytes, kept or not.
pub const RUN_OUTPUT_BYTES_MAX: u64 = 1 << 30;
/// Longest log line; the rest of it is cut.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// Runs waiting in one app before new ones get 429.
pub const QUEUED_RUNS_PER_APP_MAX: u64 = 1_000_000;
/// Longest `max_queue_time`.
pub const QUEUE_TIME_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Attempts of a run that an app or a call may ask for after the first.
pub const RETRIES_MAX: u32 = 10;
/// Largest `max_attempts`: executions of a run that an app or a call may allow.
pub const MAX_ATTEMPTS_MAX: u32 = 100;
/// Wait after the first failure of a run that is executed again; doubles with each …
pub const RERUN_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
pub const RERUN_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Longest delay of a run.
pub const DELAY_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Priorities go from the negative of this to this.
pub const PRIORITY_MAX: i8 = 100;
/// Runs held in memory for one app, claimed and waiting for a replica.
pub const BUFFERED_RUNS_PER_APP_MAX: usize = 256;
/// Places among them for runs of a higher priority than others that wait there.
pub const URGENT_RUNS_PER_APP_MAX: usize = 16;
/// Bytes of bodies held in memory for one app by waiting runs.
pub const BUFFERED_BYTES_PER_APP_MAX: usize = 256 << 20;
/// Synchronous calls waiting in memory for one app before new ones get 429.
pub const WAITING_CALLS_PER_APP_MAX: usize = 4_096;
/// Limit of a synchronous call on v3 and legacy paths.
pub const LEGACY_CALL_LIMIT: Duration = Duration::from_secs(180);
/// `response_grace_period` when an app says nothing.
pub const RESPONSE_GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(900);
/// `response_grace_period` at most.
pub const RESPONSE_GRACE_PERIOD_MAX: Duration = Duration::from_secs(12 * 3600);
/// Time a replica has to come back after a cancelled call before its process tree is killed.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Time a build has to prepare its environment.
pub const BUILD_LIMIT: Duration = Duration::from_secs(3600);
/// Time a replica has to import `main.py`, when an app says nothing.
pub const START_LIMIT_DEFAULT: Duration = Duration::from_secs(600);
/// Time that a build's first replica waits for a GPU.
pub const GPU_WAIT_MAX: Duration = Duration::from_secs(3600);
/// What a caller may be behind a stream of values, in bytes.
pub const STREAM_BEHIND_BYTES_MAX: usize = 4 << 20;
/// Time without a byte in either direction after which a WebSocket of an app is closed.
pub const TUNNEL_IDLE_LIMIT: Duration = Duration::from_secs(300);
/// Between two looks at the health of an app's own web server, and time that one has.
pub const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// Looks in a row that fail before its replica is replaced.
pub const HEALTH_FAILURES_MAX: u32 = 3;
/// Kept of an answer of a web server with which a run failed, in bytes.
pub const FAILED_ANSWER_BYTES_MAX: usize = 2 << 10;
/// Longest `?wait=` of a run query.
pub const LONG_POLL_MAX: Duration = Duration::from_secs(60);
/// Deaths of its own replica that a run survives before it ends as `crash_loop`.
pub const CRASHES_MAX: u32 = 3;
/// Losses of the server that a run survives before it ends as `interrupted`.
pub const SERVER_LOSSES_MAX: u32 = 20;
/// Replicas of one app at most.
pub const REPLICAS_PER_APP_MAX: u32 = 200;
/// `evaluation_interval_seconds` at least …
pub const EVALUATION_INTERVAL_MIN: Duration = Duration::from_secs(6);
/// … and at most.
pub const EVALUATION_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// `roll_out_duration_seconds` at most.
pub const ROLL_OUT_MAX: Duration = Duration::from_secs(6 * 3600);
/// Largest `scaling_target`: requests a second of one replica.
pub const SCALING_TARGET_MAX: u32 = 1_000_000;
/// Calls one replica works on at once, at most.
pub const REPLICA_CONCURRENCY_MAX: u32 = 1_000;
/// Processes and threads of one replica at once, when an app says nothing.
pub const REPLICA_PROCESSES_DEFAULT: u32 = 4_096;
/// Processes and threads of one replica at once, whatever an app says.
pub const REPLICA_PROCESSES_MAX: u32 = 32_768;
/// What a replica may write to its folder and `/tmp`, in bytes, when an app says nothing.
pub const REPLICA_DISK_BYTES_DEFAULT: u64 = 50 << 30;
/// One webhook attempt: time to connect, TLS included.
pub const DELIVERY_CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// One webhook attempt in all: DNS, connect, TLS, headers and body.
pub const DELIVERY_LIMIT: Duration = Duration::from_secs(30);
/// Read of a receiver's answer, in bytes, before the connection is closed.
pub const DELIVERY_RESPONSE_READ_MAX: usize = 64 << 10;
/// Kept of a receiver's answer, in bytes.
pub const DELIVERY_RESPONSE_KEPT_MAX: usize = 8 << 10;
/// Deliveries under way at once, unless the server is told otherwise.
pub const DELIVERIES_IN_FLIGHT_DEFAULT: usize = 512;
/// Deliveries under way at once, whatever the server is told.
pub const DELIVERIES_IN_FLIGHT_MAX: usize = 4_096;
/// Deliveries under way at once to one receiver, to begin with.
pub const DELIVERIES_PER_RECEIVER_START: usize = 8;
/// Deliveries under way at once to one receiver that answers well, unless the server is told otherwise.
pub const DELIVERIES_PER_RECEIVER_DEFAULT: usize = 64;
/// Bytes of results in deliveries under way at once, counting those results that are kept as files. Half of
/// it holds any result.
pub const DELIVERY_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// Body that an inbox records, in bytes.
pub const INBOX_BODY_BYTES_MAX: usize = 100 << 20;
/// Requests an inbox keeps; the oldest make room.
pub const INBOX_REQUESTS_MAX: usize = 10_000;
/// Bytes of bodies an inbox keeps; the oldest make room.
pub const INBOX_BYTES_MAX: u64 = 1 << 30;
/// Inboxes of a project.
pub const INBOXES_PER_PROJECT_MAX: usize = 1_000;
/// Longest life of an inbox that ends by itself.
pub const INBOX_LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Longest name of an inbox, in characters.
pub const INBOX_NAME_CHARS_MAX: usize = 100;
/// Recorded requests that are sent once more at once.
pub const REPLAYS_AT_ONCE_MAX: usize = 4;
/// Longest that an inbox waits before it answers.
pub const INBOX_DELAY_MAX: Duration = Duration::from_secs(30);
/// How long an inbox holds a connection that it never answers.
pub const INBOX_SILENCE: Duration = Duration::from_secs(120);
/// Requests that inboxes let wait at once, all together.
pub const INBOX_WAITS_MAX: usize = 256;
/// Steps of an inbox's script.
pub const INBOX_SCRIPT_STEPS_MAX: usize = 32;
/// Headers of an inbox's reply.
pub const INBOX_REPLY_HEADERS_MAX: usize = 16;
/// Bytes of names and values of them all.
pub const INBOX_REPLY_HEADERS_BYTES_MAX: usize = 4 << 10;
/// Body of an inbox's reply, in bytes.
pub const INBOX_REPLY_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a replaced webhook secret signs beside the new one, unless told otherwise; and at most.
pub const ROTATION_OVERLAP: Duration = Duration::from_secs(86_400);
/// Webhook secrets of a project that sign at once, and Ed25519 keys likewise.
pub const WEBHOOK_SECRETS_MAX: usize = 5;
/// How long a link may show a run, or an inbox, to somebody without a key.
pub const SHARED_LINK_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How long results and finished runs are kept.
pub const RESULT_RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// Builds of each app that are remembered, live or not; those of a day are remembered in any case.
pub const BUILDS_PER_APP_MAX: usize = 100;
/// Events that are kept of each app; the oldest make room.
pub const APP_EVENTS_MAX: usize = 1_000;
/// Longest text of an event, in bytes.
pub const EVENT_TEXT_BYTES_MAX: usize = 2 << 10;
/// Secrets of a project, and of each of its apps.
pub const SECRETS_MAX: usize = 100;
/// Longest name of a secret, in bytes.
pub const SECRET_NAME_BYTES_MAX: usize = 253;
/// Longest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 32 << 10;
/// Smallest limit that an endpoint may have for bodies, in bytes: a thin body must fit.
pub const BODY_LIMIT_BYTES_MIN: u64 = 1_024;
/// Endpoints of one project for which something is set.
pub const ENDPOINT_SETTINGS_MAX: usize = 1_000;
/// How long a link to a result is good, from the end of the run; prolonged for attempts that are so late
/// that less than [`RESULT_RETENTION`] would be left.
pub const RESULT_LINK_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// How long the result of a run is kept whose webhook was never delivered, from the last attempt on.
pub const UNDELIVERED_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// How long before its removal a result that was never delivered is warned about.
pub const UNDELIVERED_WARNING: Duration = Duration::from_secs(86_400);
/// Lines that a page of a log looks at to find those that are searched for: the newest.
pub const SHOWN_LOG_LINES_SEARCHED_MAX: usize = 10_000;
/// Runs that a replica is shown with.
pub const REPLICA_RUNS_SHOWN: usize = 5;
/// Disk space that is kept for the ends of runs.
pub const RESERVE_BYTES: u64 = 16 << 20;
/// How long it is remembered that a run was removed, and when.
pub const REMOVED_RUNS_REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// One row of the table of limits.
pub struct Limit {
    /// What is bounded.
    pub what: &'static str,
    /// The bound, as people read it.
    pub value: &'static str,
    /// What happens beyond it.
    pub beyond: &'static str,
}

const fn limit(what: &'static str, value: &'static str, beyond: &'static str) -> Limit {
    Limit { what, value, beyond }
}

/// The bounds a user can meet, in the order of a run's path.
pub const TABLE: &[Limit] = &[
    limit("connections", "4,096 (`--max-connections`)", "the next one waits"),
    limit("connections from one address", "1,024 (`--max-connections-per-address`)", "429"),
    limit(
        "requests a second, of one address or key",
        "none, unless `--requests-per-second-…` says so",
        "429",
    ),
    limit("header of a request", "64 KiB, 100 lines", "431"),
    limit("time for a header", "10 s (`--header-timeout`)", "the connection is closed"),
    limit("idle connection", "60 s (`--idle-timeout`)", "the connection is closed"),
    limit(
        "pace of a body, and of taking an answer",
        "1 KiB/s on average after 30 s (`--body-timeout`)",
        "408, or the connection is closed",
    ),
    limit("request body", "100 MiB", "413"),
    limit(
        "input of a call from the dashboard",
        "1 MiB, as the browser encodes it",
        "413; send it by the API",
    ),
    limit("nesting of a request body", "128 levels", "400"),
    limit("digits of a number in a request body", "100,000", "400"),
    limit("webhook address", "2,048 bytes", "422"),
    limit("webhook endpoints of a run", "8", "422"),
    limit("`X-Webhook-Headers`, and `webhook_headers` of an app", "16 headers, 4 KiB", "422"),
    limit(
        "`X-Webhook-Schedule`, and `webhook_schedule` of an app",
        "32 steps of 1 s to 7 days, 30 days in all",
        "422",
    ),
    limit("metadata of a call", "4 KiB", "422"),
    limit(
        "one look for runs by text or metadata",
        "10,000 runs, 16 KiB of each text and result; a text of 256 bytes, 8 values",
        "`nextToken` goes on where it stopped, and a page of the dashboard by itself while it is empty; 400",
    ),
    limit(
        "`--wait` of a command while its server is away, such as for a restart",
        "5 min",
        "it ends with an error; the run goes on, and `postback runs get RUN --wait` waits for it anew",
    ),
    limit("`Idempotency-Key`", "255 bytes", "422"),
    limit(
        "`logs` and `output` events of a run",
        "one of each every 500 ms, 64 KiB each, 10,000 in all, 16 undelivered per endpoint",
        "the rest is counted as `dropped`, or not told; the outcome always is",
    ),
    limit("runs waiting per app", "1,000,000", "429 with Retry-After"),
    limit(
        "`max_queue_time` of a run",
        "7 days",
        "422; a run that waits longer than it says ends as `expired`",
    ),
    limit("delay of a run", "7 days", "422"),
    limit("priority of a run", "-100 to 100", "422"),
    limit("retries of a run", "10, after 1 s, 2 s, 4 s … 5 min", "422; the run ends with the last error"),
    limit("`max_attempts` of a run", "1 to 100", "422; the run ends with what its last attempt ended with"),
    limit("synchronous calls waiting per app", "4,096", "429 with Retry-After"),
    limit("synchronous call, v3 and legacy", "180 s", "504; the run ends as `timeout`"),
    limit(
        "any other run",
        "`response_grace_period`: 900 s by default, 12 h at most",
        "the run ends as `timeout`",
    ),
    limit("result", "100 MiB", "the run ends as `result_too_large`"),
    limit(
        "what a stream of values is ahead of its caller",
        "4 MiB",
        "the call is cancelled, and the stream ends with `event: error`",
    ),
    limit(
        "request to an app's own web server and its answer",
        "100 MiB up; down without a bound but `response_grace_period`",
        "413; 504, or the answer is cut",
    ),
    limit(
        "WebSocket of an app's own web server",
        "300 s without a byte in either direction, 12 h in all",
        "the connection is closed",
    ),
    limit(
        "failed health checks of an app's own web server",
        "3 in a row, 5 s apart, 5 s each",
        "its replica is replaced",
    ),
    limit("log of a run", "1 MiB", "head and tail are kept, the count of dropped bytes between them"),
    limit("search of a log on its page", "the newest 10,000 lines", "`postback logs --search` looks further"),
    limit("what a run prints, kept or not", "1 GiB", "the run ends as `output_limit`"),
    limit(
        "memory of a replica",
        "none, unless `memory` says so",
        "the replica is ended, and the attempt ends as `out_of_memory`",
    ),
    limit(
        "processes and threads of a replica",
        "`processes`: 4,096 by default, 32,768 at most",
        "the replica is ended, and the attempt ends as `worker_crashed`",
    ),
    limit(
        "what a replica writes to its folder and `/tmp`",
        "`disk`: 50 GB by default",
        "the replica is ended, and the attempt ends as `worker_crashed`; one file of that size gives `OSError`",
    ),
    limit("open files of a replica", "as the server's, 65,536 at most", "`OSError` in the app's code"),
    limit("deaths of its replica under a run", "3", "the run ends as `crash_loop`"),
    limit("losses of the server under a run", "20", "the run ends as `interrupted`"),
    limit(
        "webhooks under way at once",
        "512; `serve --deliveries-in-flight`, 4,096 at most",
        "the others wait their turn",
    ),
    limit(
        "webhooks under way at once to one receiver",
        "8, rising to 64 while it answers well; `serve --deliveries-per-receiver`",
        "the others wait their turn",
    ),
    limit(
        "results of 256 KiB and more in webhooks under way at once",
        "256 MiB together",
        "the others wait their turn; smaller ones do not wait for them",
    ),
    limit("one webhook attempt", "30 s, 5 s of them to connect", "the attempt fails as `timeout`"),
    limit("answer of a receiver", "64 KiB read, 8 KiB kept", "the connection is closed; the status counts"),
    limit("uploaded archive", "2 GiB", "413"),
    limit("build", "1 h", "the build fails"),
    limit("replicas of an app", "200", "422"),
    limit(
        "builds remembered of an app",
        "100, and those of the last day",
        "the oldest are forgotten; the files of the live one and of two before it are kept",
    ),
    limit("events kept of an app", "1,000", "the oldest make room"),
    limit("wait of a build's first replica for a GPU", "1 h", "the build fails"),
    limit("requests kept by an inbox", "10,000, with 1 GiB of bodies", "the oldest make room"),
    limit("body that an inbox records", "100 MiB", "413"),
    limit("inboxes of a project", "1,000", "422"),
    limit("life of an inbox", "until it is deleted; `expiresAt`, 366 days away at most", "422"),
    limit("reply of an inbox", "64 KiB, 16 headers of 4 KiB in all, 32 steps, 30 s of delay a step", "422"),
    limit(
        "requests that inboxes let wait",
        "256 at once, never answered ones 120 s each",
        "answered at once, or their connection is reset",
    ),
    limit(
        "recorded requests sent once more",
        "4 at once, 30 s each, 5 s of them to connect; 64 KiB of the answer read, 8 KiB shown",
        "429 with Retry-After; `timeout`",
    ),
    limit("endpoints of a project with a `bodyBytesMax`", "1,000", "422"),
    limit(
        "link to a result in a thin webhook body",
        "30 days after the end of the run",
        "410; prolonged for attempts that are later than that",
    ),
    limit(
        "results and finished runs",
        "7 days; 30 days after the last attempt when a delivery came to nothing or waits for its endpoint",
        "removed, never while a delivery is pending; asking for one gives 410 for 30 days",
    ),
    limit(
        "input of a run, after its end",
        "64 KiB, as long as the run is kept",
        "a larger one is removed when the run ends, and cannot be sent again",
    ),
    limit("webhook secrets of a project that sign at once", "5", "409 on a further rotation"),
    limit("runs that wait to be written to the disk", "16,384", "503 with Retry-After"),
    limit(
        "disk space kept for the ends of runs",
        "16 MiB",
        "with less left, 503 `storage_full` for whatever is new; ends are recorded in it",
    ),
    limit("secrets of a project, and of each of its apps", "100, 32 KiB each", "422"),
    limit("named keys of a project", "100, each with a name of 100 bytes at most", "409; 422"),
    limit("link that shows a run or an inbox", "7 days", "the link shows nothing any more"),
    limit("overlap of a replaced webhook secret", "24 h, also the default", "422"),
];

/// The table as the page `docs/reference/limits.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Limits\n\nEvery bound that a user can meet, in the order of a run's path. This page is made from \
         `crates/queue/src/limits.rs`.\n\n| what | limit | beyond it |\n|---|---|---|\n",
    );
    for Limit { what, value, beyond } in TABLE {
        page.extend(["| ", what, " | ", value, " | ", beyond, " |\n"]);
    }
    page
}
