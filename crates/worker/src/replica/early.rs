//! Calls that end before their function does: somebody cancelled them, they print without end, or nobody
//! takes what they yield.

use bytes::Bytes;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::{Call, Heard};
use queue::{RunId, limits};
use tokio::time::Instant;

use super::{Fate, Replica, not_under_way};
use crate::waiting::{WaitingCall, Work};

impl Replica {
    pub(super) fn cancel(&mut self, run: RunId) {
        self.end_early(run, || RunError::new(Code::Cancelled, "the run was cancelled while it was executed"));
    }

    /// The run prints without end.
    pub(super) fn silence(&mut self, run: RunId) {
        let most = self.ports.options.output_max;
        self.end_early(run, || {
            let message = format!(
                "the run printed more than {most} bytes, of which its log keeps the head and the tail; print \
                 less, or write it to a file"
            );
            RunError::new(Code::OutputLimit, message)
        });
    }

    /// Ends a run before its function does. The runner is told; when it does not let go, its process ends.
    fn end_early(&mut self, run: RunId, error: impl FnOnce() -> RunError) {
        let Some((call, work, started_at)) = self.calls.cancel(run, Instant::now()) else { return };
        let telling = self.calls.get_mut(call).and_then(|call| call.telling.take());
        self.tell_the_rest(telling);
        self.outgoing.cancel(call);
        let now = self.ports.clock.now();
        let outcome = Outcome::failed(error(), now.since(started_at).as_secs_f64() * 1e3, now);
        self.settle(work, outcome, Some(started_at));
    }

    /// A value on its way to a caller that listens.
    pub(super) fn on_chunk(&mut self, call: u32, text: Bytes) -> Result<(), Fate> {
        let Some(under_way) = self.calls.get_mut(call) else { return Err(not_under_way(call)) };
        let run = under_way.run;
        let heard = match &under_way.work {
            Some(Work::Call(WaitingCall { call: Call { listener: Some(listener), .. }, .. })) => {
                listener.tell(text)
            }
            // It ended before its function did; the runner may not know yet.
            None => return Ok(()),
            Some(_) => {
                return Err(Fate::Broken(format!("it sent a chunk of call {call}, to which nobody listens")));
            }
        };
        match heard {
            Heard::Yes => {}
            Heard::Gone => self.end_early(run, || RunError::new(Code::Cancelled, "the caller went away")),
            Heard::Behind => self.end_early(run, || {
                let message = format!(
                    "the caller was more than {} bytes behind what the function yielded; yield less at a time, \
                     or take it faster",
                    limits::STREAM_BEHIND_BYTES_MAX
                );
                RunError::new(Code::Cancelled, message)
            }),
        }
        Ok(())
    }
}
