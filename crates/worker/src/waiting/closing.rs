//! The end of an app's queue: nothing comes in any more, and what is left is taken out.

use queue::run::LeasedRun;

use super::{Waiting, WaitingCall, Work};

/// Why no more work comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The server stops.
    Stopping,
    /// The app is gone.
    Retired,
}

impl Waiting {
    /// No more work comes in.
    pub(crate) fn close(&self, why: Closed) {
        self.lock().closed = Some(why);
    }

    /// Whether no more work comes in.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.ready.is_empty() && inner.alone.is_empty()
    }

    /// Takes out every run.
    pub(crate) fn take_runs(&self) -> Vec<LeasedRun> {
        let mut inner = self.lock();
        let work = inner.alone.drain(..).collect::<Vec<_>>();
        let (runs, calls): (Vec<_>, Vec<_>) = work
            .into_iter()
            .chain(std::mem::take(&mut inner.ready))
            .partition(|work| matches!(work, Work::Run(_)));
        inner.ready = calls.into();
        inner.alone_since = None;
        for run in &runs {
            inner.left(run);
        }
        runs.into_iter().filter_map(|work| if let Work::Run(run) = work { Some(run) } else { None }).collect()
    }

    /// Takes out every call.
    pub(crate) fn take_calls(&self) -> Vec<WaitingCall> {
        let mut inner = self.lock();
        let (calls, runs): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.ready).into_iter().partition(|work| matches!(work, Work::Call(_)));
        inner.ready = runs.into();
        inner.calls = 0;
        inner.calls_bytes = 0;
        calls
            .into_iter()
            .filter_map(|work| if let Work::Call(call) = work { Some(call) } else { None })
            .collect()
    }
}
