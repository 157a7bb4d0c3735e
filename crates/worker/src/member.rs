//! A replica as its pool sees it: where it stands, how busy it is, and the way to give it orders.

use std::sync::Arc;

use queue::RunId;
use queue::app::Function;
use queue::port::StartFailure;
use queue::registry::Build;
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::Instant;

use crate::load::Load;
use crate::replica::{Order, UnderWayHere};
use crate::usage::Usage;

/// To whoever waits for the first replica of a build.
pub(crate) type Reply = oneshot::Sender<Result<Vec<Function>, StartFailure>>;

/// Where a replica stands, as far as the pool knows.
#[derive(Debug)]
pub(crate) enum Standing {
    Starting,
    /// The first of a build that is not live; whoever waits for it, until it has started.
    First(Option<Reply>),
    Serving,
    Leaving,
}

#[derive(Debug)]
pub(crate) struct Member {
    /// The task that keeps it.
    pub(crate) task: task::Id,
    pub(crate) build: Arc<Build>,
    /// What its code offers, once it has started.
    pub(crate) functions: Vec<Function>,
    pub(crate) standing: Standing,
    pub(crate) begun: Instant,
    /// It goes when one that was started after it serves.
    pub(crate) outdated: bool,
    /// Another build is live, and it serves beside that one until then.
    pub(crate) leaves_at: Option<Instant>,
    /// What its processes use, where the app is scaled by it.
    pub(crate) usage: Usage,
    /// Those that are its own.
    pub(crate) gpus: Vec<String>,
    pub(crate) load: Arc<Load>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
}

impl Member {
    /// It serves, or will.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.standing, Standing::Starting | Standing::Serving)
    }

    /// It runs the live code, with as many calls at once as the live configuration says.
    fn fits(&self, live: &Build) -> bool {
        let asked = |build: &Build| build.config.concurrency(&self.functions);
        // A web server has no functions; how many requests it takes at once is known beforehand.
        let started = !self.functions.is_empty() || self.build.config.runtime.is_some();
        self.build.id == live.id && (!started || asked(&self.build) == asked(live))
    }

    /// Whether it can do all that the live build can, and no less is asked of it.
    pub(crate) fn can_stand_in_for(&self, live: &Build) -> bool {
        let offered = |functions: &[Function]| {
            let mut offered: Vec<_> = functions.iter().map(|f| (f.name.clone(), f.contract as u8)).collect();
            offered.sort_unstable();
            offered
        };
        matches!(self.standing, Standing::Serving)
            && !self.outdated
            && offered(&self.functions) == offered(&live.functions)
    }

    /// The live build or its configuration is another one: serve it, or leave. The first replica of
    /// a build that is still to come live waits on.
    pub(crate) fn follow(&mut self, live: &Build) {
        if let Standing::First(reply) = &mut self.standing {
            if self.build.id != live.id {
                return;
            }
            // Whoever still waits for the start hears nothing: the build is live without it.
            let starting = reply.take().is_some();
            self.standing = if starting { Standing::Starting } else { Standing::Serving };
            self.order(Order::Serve);
        }
        if self.build.id == live.id {
            self.leaves_at = None;
        }
        if self.counts() && self.leaves_at.is_none() && !self.fits(live) {
            self.leave();
        }
    }

    /// Finish what is under way, then end.
    pub(crate) fn leave(&mut self) {
        if !matches!(self.standing, Standing::Leaving) {
            self.standing = Standing::Leaving;
            self.order(Order::Leave);
        }
    }

    /// End at once.
    pub(crate) fn kill(&mut self) {
        self.standing = Standing::Leaving;
        self.order(Order::Kill);
    }

    /// Let go of a run.
    pub(crate) fn cancel(&self, run: RunId) {
        self.order(Order::Cancel(run));
    }

    /// Tell which runs are under way.
    pub(crate) fn show(&self, to: &mpsc::UnboundedSender<UnderWayHere>) {
        self.order(Order::Show(to.clone()));
    }

    fn order(&self, order: Order) {
        // One that has ended needs no orders.
        let _ = self.orders.send(order);
    }
}
