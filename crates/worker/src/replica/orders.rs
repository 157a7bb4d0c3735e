//! What the pool and a replica tell each other.

use std::sync::Arc;

use queue::app::Function;
use queue::port::StartFailure;
use queue::registry::Build;
use queue::{ReplicaId, RunId};
use tokio::sync::mpsc;

use crate::Ports;
use crate::gpus::Given;
use crate::load::Load;
use crate::record::Recorder;
use crate::waiting::Waiting;

/// What the pool tells a replica.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Its build is live: take work.
    Serve,
    /// Take nothing new, finish what is under way, end.
    Leave,
    /// Let go of this run, if it is here.
    Cancel(RunId),
    /// Tell which runs are under way.
    Show(mpsc::UnboundedSender<UnderWayHere>),
    /// End now.
    Kill,
}

/// Runs that a replica works on.
pub(crate) type UnderWayHere = (ReplicaId, Vec<RunId>);

/// What a replica tells the pool when it can be called.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) id: ReplicaId,
    pub(crate) functions: Vec<Function>,
    /// There can be no second one of its build beside it.
    pub(crate) alone: bool,
}

/// How a replica ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: ReplicaId,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    /// As it was told.
    Left,
    /// By itself, or because a call could not be ended otherwise; how.
    Died(String),
    /// It never became ready.
    NotStarted(StartFailure),
    /// Nor this one, since somebody else, or a system without memory, ended it.
    Killed(StartFailure),
    /// The machine has nothing left to start it with.
    Hindered(StartFailure),
}

/// All that a replica is started with.
pub(crate) struct Plan {
    pub(crate) id: ReplicaId,
    pub(crate) build: Arc<Build>,
    /// It is the build's first: it prints to the build's log, and takes work only after
    /// [`Order::Serve`].
    pub(crate) first: bool,
    /// Its GPUs, until its process is gone.
    pub(crate) gpus: Given,
    pub(crate) load: Arc<Load>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) started: mpsc::UnboundedSender<Started>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) recorder: Recorder,
    pub(crate) ports: Arc<Ports>,
}
