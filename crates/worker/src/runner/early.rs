//! Calls that end before their function does: they print without end, or nobody takes what they yield.

use bytes::Bytes;
use queue::outcome::{Code, RunError};
use queue::port::{Call, Heard};
use queue::{RunId, limits};

use super::{Fate, Replica, not_under_way};
use crate::waiting::{WaitingCall, Work};

impl Replica {
    /// The run prints without end.
    pub(super) fn silence(&mut self, run: RunId) {
        let most = self.ports.options.output_max;
        self.end_call(run, || {
            let message = format!(
                "the run printed more than {most} bytes, of which its log keeps the head and the tail; print \
                 less, or write it to a file"
            );
            RunError::new(Code::OutputLimit, message)
        });
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
            Heard::Gone => self.end_call(run, || RunError::new(Code::Cancelled, "the caller went away")),
            Heard::Behind => self.end_call(run, || {
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
