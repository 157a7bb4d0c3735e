//! The way of outcomes to their receivers.

use async_trait::async_trait;

use super::Stored;
use crate::clock::Timestamp;
use crate::delivery::{
    AttemptEnd, DeliveryFilter, DeliveryView, DueDelivery, Enabled, EndpointView, Endpoints, Redelivered,
};
use crate::figures::{EndpointFigures, ReceiverStanding};
use crate::id::{DeliveryId, EndpointId, ProjectId};
use crate::run::{EndpointUrl, Receiver};

/// How many deliveries may begin.
#[derive(Clone, Debug)]
pub struct Room {
    /// In all.
    pub total: usize,
    /// To a receiver not named in `receivers`.
    pub per_receiver: usize,
    /// To these receivers, which have attempts under way: places left.
    pub receivers: std::collections::HashMap<Receiver, usize>,
    /// Bytes of results that are kept as files; other results are not counted.
    pub bytes: usize,
}

impl Default for Room {
    /// No place, and no bound on bytes.
    fn default() -> Self {
        Self { total: 0, per_receiver: 0, receivers: std::collections::HashMap::new(), bytes: usize::MAX }
    }
}

/// Deliveries: begun when due, and ended.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// Records an attempt for deliveries due at `now`, oldest first per receiver, receivers in fair
    /// turn, as far as there is room, and returns them once the records are durable. A large result for
    /// which there are no bytes left comes before all other large ones in the next call, and smaller
    /// ones do not wait for it.
    async fn begin(&self, now: Timestamp, room: Room) -> Stored<Vec<DueDelivery>>;

    /// Completes an attempt's record and moves the delivery on. Rides in the next batch; nobody
    /// waits. A 410 also disables the endpoint.
    fn complete(&self, end: AttemptEnd);

    /// When the next pending delivery is due, among receivers that `room` has a place for.
    async fn next_due(&self, room: Room) -> Stored<Option<Timestamp>>;

    /// One delivery of a project, with all its attempts.
    async fn delivery(&self, project: &ProjectId, id: DeliveryId) -> Stored<Option<DeliveryView>>;

    /// Deliveries of a project, newest run first, each with its last attempt.
    async fn deliveries(&self, filter: DeliveryFilter) -> Stored<Vec<DeliveryView>>;

    /// Makes a delivery due now, whatever became of it: same id, same body, its schedule anew.
    async fn redeliver(&self, project: &ProjectId, id: DeliveryId) -> Stored<Redelivered>;

    /// The same for every delivery to `endpoints` whose last attempt failed at `since` or later, but
    /// for those that wait for a disabled endpoint. Returns how many.
    async fn redeliver_failed(
        &self,
        project: &ProjectId,
        endpoints: Endpoints,
        since: Timestamp,
    ) -> Stored<u64>;

    /// Sets the most bytes of a body that an endpoint takes: what is larger is told in the thin form. `false`
    /// when the project has set as much for other endpoints as it may.
    async fn set_body_limit(
        &self,
        project: &ProjectId,
        url: EndpointUrl,
        bytes_max: Option<u64>,
    ) -> Stored<bool>;

    /// A project's endpoints that were disabled once, or for which something was set, by address.
    async fn endpoints(&self, project: &ProjectId) -> Stored<Vec<EndpointView>>;

    /// How the endpoints do that the project's newest deliveries went to, the last used first: up to
    /// [`ENDPOINTS_SHOWN_MAX`](crate::limits::ENDPOINTS_SHOWN_MAX) of them.
    async fn endpoint_figures(&self, _project: &ProjectId) -> Stored<Vec<EndpointFigures>> {
        Ok(Vec::new())
    }

    /// Disables an endpoint: what is due there waits for the enabling. `false` when it is disabled already.
    async fn disable(&self, project: &ProjectId, url: EndpointUrl) -> Stored<bool>;

    /// Enables an endpoint and makes the deliveries due that wait for it.
    async fn enable(&self, project: &ProjectId, endpoint: &EndpointId) -> Stored<Enabled>;
}

/// The way from outcomes to deliveries.
pub trait Outbox: Send + Sync {
    /// A place for an attempt that is about to be recorded, with a result of so many bytes; `None` when
    /// the receiver has enough under way, or all have too much, and the delivery must wait its turn in the
    /// store.
    fn reserve(&self, url: &EndpointUrl, result_bytes: usize) -> Option<Box<dyn Departure>>;

    /// There are due deliveries in the store.
    fn wake(&self);

    /// How a receiver stands at the moment.
    fn standing(&self, _receiver: &Receiver) -> ReceiverStanding {
        ReceiverStanding::default()
    }
}

/// A reserved place for one attempt. Dropping it gives the place back.
pub trait Departure: Send {
    /// Makes the recorded attempt.
    fn send(self: Box<Self>, due: DueDelivery);
}
