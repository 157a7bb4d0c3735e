//! What a runner prints beside its frames.

use super::{Replica, note_line};
use crate::process::Printed;

impl Replica {
    pub(super) fn print(&mut self, Printed { stream, bytes, lines }: Printed) {
        let at = self.ports.clock.now();
        if let Some(call) = self.calls.only()
            && call.log.exceeds(bytes, self.ports.options.output_max)
        {
            let run = call.run;
            self.silence(run);
        }
        for line in lines {
            match self.calls.only() {
                Some(call) => {
                    let due = note_line(call, &line);
                    self.printer.inside(&mut call.log, call.run, at, stream, line);
                    if let Some(due) = due {
                        self.calls.wake_by(due);
                    }
                }
                None => self.printer.outside(at, stream, line),
            }
        }
    }
}
