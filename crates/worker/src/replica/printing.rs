//! What a replica's process prints beside its frames, and what the server says of the replica.

use queue::log::Stream;
use tokio::sync::mpsc;

use super::{EXIT_GRACE, Replica, note_line};
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

    pub(super) fn say(&mut self, text: String) {
        self.printer.outside(self.ports.clock.now(), Stream::System, text);
    }

    /// What the process had printed before it ended.
    pub(super) async fn print_the_rest(&mut self, printed: &mut mpsc::Receiver<Printed>) {
        let rest = async {
            while let Some(lines) = printed.recv().await {
                self.print(lines);
            }
        };
        // A process outside of the tree may hold the pipe open.
        let _ = tokio::time::timeout(EXIT_GRACE, rest).await;
    }
}
