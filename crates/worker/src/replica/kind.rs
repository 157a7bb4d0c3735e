//! What differs between replicas: what is behind one, and how it is spoken to.

use std::collections::BTreeMap;
use std::time::Duration;

use queue::registry::Prepared;
use queue::{RunId, Timestamp};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{End, Fate, Grants, Order, Replica};
use crate::process::{Exit, Printed, Process};
use crate::waiting::Work;

/// A started process.
pub(crate) struct Begun<W> {
    pub(crate) process: Process,
    pub(crate) printed: mpsc::Receiver<Printed>,
    /// The ways to it.
    pub(crate) ways: W,
}

pub(crate) type Orders = mpsc::UnboundedReceiver<Order>;

/// What is behind a replica, and how it is spoken to.
pub(crate) trait Kind: Sized + Send + 'static {
    /// The ways to a process, beside what it prints.
    type Ways: Send;

    /// Starts the process.
    fn start(
        replica: &mut Replica<Self>,
        prepared: &Prepared,
        grants: &Grants,
        secrets: BTreeMap<String, String>,
    ) -> impl Future<Output = Result<Begun<Self::Ways>, End>> + Send;

    /// Gives it work until something ends that.
    fn work(
        replica: &mut Replica<Self>,
        process: &mut Process,
        ways: &mut Self::Ways,
        printed: &mut mpsc::Receiver<Printed>,
        orders: &mut Orders,
    ) -> impl Future<Output = Fate> + Send;

    /// Work that it may be given now.
    fn places(replica: &Replica<Self>) -> usize;

    /// Sends work on its way.
    fn begin(replica: &mut Replica<Self>, work: Work, now: Instant, started_at: Timestamp);

    /// Has the process let go of a call, whose end is recorded.
    fn stop(replica: &mut Replica<Self>, call: u32);

    /// Asks the process to end: there is nothing left to do.
    fn ask_to_end(replica: &mut Replica<Self>, process: &Process);

    /// Lines that the process printed.
    fn print(replica: &mut Replica<Self>, printed: Printed);

    /// A moment has come for which the kind had itself woken.
    fn on_time(replica: &mut Replica<Self>, now: Instant);

    /// A run that is not begun is to be cancelled.
    fn cancel_aside(_: &mut Replica<Self>, _: RunId) {}

    /// Gives work back that is taken and not begun: others may have it.
    fn hand_back(_: &mut Replica<Self>) {}

    /// What the process said before it ended may be an answer, or explain the end.
    fn hear_the_rest(
        replica: &mut Replica<Self>,
        ways: &mut Self::Ways,
        fate: &mut Fate,
    ) -> impl Future<Output = ()> + Send;

    /// Nothing comes back of the calls that are under way.
    fn let_go(_: &mut Replica<Self>) {}

    /// How it reads when the process cannot be started.
    fn cannot_start(replica: &Replica<Self>, prepared: &Prepared) -> String;

    /// How it reads when the process was not ready within its limit.
    fn too_slow(replica: &Replica<Self>, limit: Duration) -> String;

    /// How it reads when the process ended before it was ready.
    fn ended_early(replica: &Replica<Self>, exit: Exit) -> String;

    /// Whether a process that was asked to ends in this way.
    fn is_in_order(exit: Exit) -> bool;

    /// The status of a call that went down with the process, where it is another than that of its error.
    const STATUS_OF_DEATH: Option<u16> = None;
}
