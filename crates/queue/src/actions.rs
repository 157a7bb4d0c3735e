//! What people ask for, by the API or on a page: one verb each, whoever asks.
//!
//! Each is a write and what must follow it. Promise: what has begun ends, although whoever asked went away.

use std::sync::Arc;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::delivery::{Enabled, Endpoints, Redelivered};
use crate::id::{AppId, BuildId, DeliveryId, EndpointId, ProjectId, RunId};
use crate::outcome::Cancellation;
use crate::port::{
    Builds, Deliveries, Dispatch, Outbox, Registry, Replicas, RollbackError, Runs, StoreError, Stored,
};
use crate::registry::App;
use crate::run::EndpointUrl;
use crate::test_event;
use crate::unstoppable::Unstoppable;

/// The ports that actions go through.
#[expect(missing_docs, reason = "each field is the port of its type, described there")]
#[derive(Clone)]
pub struct Actions {
    pub runs: Arc<dyn Runs>,
    pub deliveries: Arc<dyn Deliveries>,
    pub registry: Arc<dyn Registry>,
    pub builds: Arc<dyn Builds>,
    pub replicas: Arc<dyn Replicas>,
    pub dispatch: Arc<dyn Dispatch>,
    pub outbox: Arc<dyn Outbox>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

impl Actions {
    /// Cancels a run, wherever it is. One that is executed is asked to let go, and ends later.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn cancel_run(&self, app: AppId, run: RunId) -> Stored<Cancellation> {
        let ports = self.clone();
        Unstoppable::new(async move {
            let cancellation = ports.runs.cancel(&app.project(), run).await?;
            match cancellation {
                Cancellation::Done => ports.outbox.wake(),
                Cancellation::Asked => ports.dispatch.cancel(&app, run),
                Cancellation::TooLate(_) | Cancellation::Unknown => {}
            }
            Ok(cancellation)
        })
        .await
    }

    /// Makes one delivery once more.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn redeliver(&self, project: ProjectId, delivery: DeliveryId) -> Stored<Redelivered> {
        let ports = self.clone();
        Unstoppable::new(async move {
            let redelivered = ports.deliveries.redeliver(&project, delivery).await?;
            if redelivered == Redelivered::Due {
                ports.outbox.wake();
            }
            Ok(redelivered)
        })
        .await
    }

    /// Makes everything once more that failed at some endpoints since a time. Returns how many deliveries that is.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn redeliver_failed(
        &self,
        project: ProjectId,
        endpoints: Endpoints,
        since: Timestamp,
    ) -> Stored<u64> {
        let ports = self.clone();
        Unstoppable::new(async move {
            let receiver = endpoints.receiver();
            let count = ports.deliveries.redeliver_failed(&project, endpoints, since).await?;
            if count > 0 {
                ports.outbox.wake();
            }
            tracing::info!(
                deliveries = count,
                receiver = receiver.as_str(),
                "failed deliveries are made once more"
            );
            Ok(count)
        })
        .await
    }

    /// Enables an endpoint, and delivers what waits for it.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn enable_endpoint(&self, project: ProjectId, endpoint: EndpointId) -> Stored<Enabled> {
        let ports = self.clone();
        Unstoppable::new(async move {
            let enabled = ports.deliveries.enable(&project, &endpoint).await?;
            ports.outbox.wake();
            Ok(enabled)
        })
        .await
    }

    /// Has an endpoint told a test event. Returns the run whose delivery it is.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn test_endpoint(&self, project: ProjectId, url: EndpointUrl) -> Stored<RunId> {
        let ports = self.clone();
        Unstoppable::new(async move {
            let (runs, outbox, now) = (&*ports.runs, &*ports.outbox, ports.clock.now());
            test_event::send(runs, outbox, &project, url, now, &*ports.entropy).await
        })
        .await
    }

    /// Makes a former build of an app live again, and returns once it is.
    ///
    /// # Errors
    /// When there is none, or it does not start.
    pub async fn roll_back(&self, app: AppId, build: Option<BuildId>) -> Result<BuildId, RollbackError> {
        let builds = Arc::clone(&self.builds);
        Unstoppable::new(async move { builds.roll_back(&app, build.as_ref()).await }).await
    }

    /// Deletes an app with its builds, stopping the one that is under way. Its queued runs end as `cancelled`.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn delete_app(&self, app: Arc<App>) -> Stored<()> {
        let ports = self.clone();
        Unstoppable::new(async move {
            if !app.latest_status.is_final() {
                ports.builds.cancel(&app.latest_build).await?;
            }
            ports.registry.delete_app(&app.id).await?;
            ports.replicas.retire(&app.id);
            // The runs that were cancelled with it have webhooks to tell.
            ports.outbox.wake();
            tracing::info!(app.id = %app.id, "an app was deleted");
            Ok::<_, StoreError>(())
        })
        .await
    }
}
