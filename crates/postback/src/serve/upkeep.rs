//! What a server does beside its work: removes what is past its keeping, folds its
//! histograms, writes its figures down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use queue::Clock as _;
use queue::port::Outbox;
use tokio_util::sync::CancellationToken;

use super::drift::{Change, Drift};
use crate::system::SystemClock;

const PRUNE_EVERY: Duration = Duration::from_secs(600);
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// A clock that is wrong for less than this may go unnoticed until the next pruning, which looks at schedules too.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What upkeep needs of the rooms.
pub(super) struct Upkeep {
    pub(super) store: store::Store,
    pub(super) builder: builder::Builder,
    pub(super) metrics: metrics_exporter_prometheus::PrometheusHandle,
    pub(super) outbox: Arc<dyn Outbox>,
}

/// Works until `shutdown`.
pub(super) async fn run(upkeep: Upkeep, shutdown: CancellationToken) {
    let mut prune = tokio::time::interval(PRUNE_EVERY);
    let mut fold = tokio::time::interval(FOLD_EVERY);
    let mut watch = tokio::time::interval(WATCH_EVERY);
    for interval in [&mut prune, &mut fold, &mut watch] {
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    let mut drift = Drift::new(SystemClock.now(), Instant::now());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = fold.tick() => {
                upkeep.metrics.run_upkeep();
                upkeep.store.write_traffic();
            }
            _ = watch.tick() => watch_clock(&upkeep, &mut drift).await,
            _ = prune.tick() => {
                watch_clock(&upkeep, &mut drift).await;
                match upkeep.store.bring_forward().await {
                    Ok(0) => {}
                    Ok(count) => {
                        tracing::warn!(
                            schedules.brought_forward = count,
                            "brought forward what a wrong clock had scheduled too late"
                        );
                        upkeep.outbox.wake();
                    }
                    Err(error) => tracing::warn!(%error, "failed to look for what is scheduled too late"),
                }
                if !drift.is_settled(Instant::now()) {
                    continue;
                }
                match upkeep.store.prune(SystemClock.now()).await {
                    Ok(pruned) if pruned.going_undelivered > 0 => tracing::warn!(
                        deliveries = pruned.going_undelivered,
                        "results that were never delivered will be removed within a day; `postback deliveries list \
                         --state exhausted` shows them, `postback deliveries redeliver` sends them once more"
                    ),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "failed to remove runs past their keeping; trying again later");
                    }
                }
                upkeep.builder.collect().await;
            }
        }
    }
}

/// Says when the machine's clock was set, and takes back what was scheduled while it ran ahead.
async fn watch_clock(upkeep: &Upkeep, drift: &mut Drift) {
    match drift.look(SystemClock.now(), Instant::now()) {
        Change::None => {}
        Change::Forward(by) => tracing::warn!(
            clock.change_seconds = by.as_secs(),
            "the clock was set forward, or the machine slept; nothing is removed by its age for an hour"
        ),
        Change::Back(by) => match upkeep.store.bring_forward().await {
            Ok(count) => {
                tracing::warn!(
                    clock.change_seconds = by.as_secs(),
                    schedules.brought_forward = count,
                    "the clock was set back; nothing is removed by its age for an hour"
                );
                upkeep.outbox.wake();
            }
            Err(error) => tracing::warn!(
                %error,
                "the clock was set back, and what it had scheduled too late could not be brought forward; the next \
                 start does it"
            ),
        },
    }
}
