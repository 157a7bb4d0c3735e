//! What the room counts and measures, by the names that `/metrics` shows.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use queue::AppId;
use queue::outcome::{Code, Ending, Outcome};

/// A run or call ended.
pub(crate) fn run_ended(outcome: &Outcome) {
    // What happens with nearly every run has its handles made once, when the recorder is there.
    static SUCCEEDED: LazyLock<Counter> =
        LazyLock::new(|| counter!("postback_runs_ended_total", "ending" => "succeeded"));
    static SECONDS: LazyLock<Histogram> = LazyLock::new(|| histogram!("postback_run_seconds"));
    match &outcome.error {
        None => SUCCEEDED.increment(1),
        Some(error) => {
            counter!("postback_runs_ended_total", "ending" => error.code.as_str()).increment(1);
        }
    }
    if outcome.ending == Ending::Succeeded {
        SECONDS.record(outcome.run_time_ms / 1e3);
    }
}

/// A run ended in the store: it had used up its chances, or was cancelled or too late on its way.
pub(crate) fn ended_in_store(code: Code) {
    counter!("postback_runs_ended_total", "ending" => code.as_str()).increment(1);
}

/// A replica got a run or call that had waited since its acceptance.
pub(crate) fn waited(wait: Duration) {
    static WAIT: LazyLock<Histogram> = LazyLock::new(|| histogram!("postback_queue_wait_seconds"));
    WAIT.record(wait);
}

/// A write came with a lease that was no longer current.
pub(crate) fn stale() {
    metrics::counter!("postback_stale_results_total").increment(1);
}

/// An app has so many replicas.
pub(crate) fn replicas(app: &AppId, count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "at most a few hundred")]
    metrics::gauge!("postback_replicas", "app" => app.as_str().to_owned()).set(count as f64);
}

/// A replica was started.
pub(crate) fn replica_started() {
    metrics::counter!("postback_replica_starts_total").increment(1);
}

/// A replica ended without having been asked to.
pub(crate) fn replica_died(how: &'static str) {
    metrics::counter!("postback_replica_deaths_total", "how" => how).increment(1);
}
