//! What a server does beside its work: removes what is past its keeping, folds its histograms.

use std::time::Duration;

use queue::Clock as _;
use tokio_util::sync::CancellationToken;

use crate::system::SystemClock;

const PRUNE_EVERY: Duration = Duration::from_secs(600);
const FOLD_EVERY: Duration = Duration::from_secs(5);

/// What upkeep needs of the rooms.
pub(super) struct Upkeep {
    pub(super) store: store::Store,
    pub(super) builder: builder::Builder,
    pub(super) metrics: metrics_exporter_prometheus::PrometheusHandle,
}

/// Works until `shutdown`.
pub(super) async fn run(upkeep: Upkeep, shutdown: CancellationToken) {
    let mut prune = tokio::time::interval(PRUNE_EVERY);
    let mut fold = tokio::time::interval(FOLD_EVERY);
    for interval in [&mut prune, &mut fold] {
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = fold.tick() => upkeep.metrics.run_upkeep(),
            _ = prune.tick() => {
                if let Err(error) = upkeep.store.prune(SystemClock.now()).await {
                    tracing::warn!(%error, "failed to remove runs past their keeping; trying again later");
                }
                upkeep.builder.collect().await;
            }
        }
    }
}
