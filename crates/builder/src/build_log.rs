//! The log of one build: what postback does, and what the commands it runs print.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use queue::limits::LOG_LINE_BYTES_MAX;
use queue::log::{LogLine, Stream};
use queue::port::Logs;
use queue::{AppId, BuildId, Clock};

/// Bytes of commands' output that a build's log keeps from its beginning.
const HEAD_BYTES_MAX: usize = 4 << 20;
/// Lines kept beyond that, from the end: where the reason of a failure stands.
const TAIL_LINES_MAX: usize = 200;

/// Where a build's lines go.
pub(crate) struct BuildLog {
    logs: Arc<dyn Logs>,
    clock: Arc<dyn Clock>,
    app: AppId,
    build: BuildId,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    dropped: usize,
    tail: VecDeque<(Stream, String)>,
}

impl BuildLog {
    pub(crate) fn new(logs: Arc<dyn Logs>, clock: Arc<dyn Clock>, app: AppId, build: BuildId) -> Self {
        Self { logs, clock, app, build, kept: Mutex::default() }
    }

    /// A step of ours.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let lines = text.as_ref().lines().map(|line| self.line(Stream::System, line)).collect();
        self.logs.append(lines);
    }

    /// A failure's text as it came, line by line.
    pub(crate) fn quote(&self, text: &str) {
        self.logs.append(text.lines().map(|line| self.line(Stream::Stderr, line)).collect());
    }

    /// A line that a command printed.
    pub(crate) fn printed(&self, stream: Stream, text: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes < HEAD_BYTES_MAX {
            kept.bytes += text.len() + 1;
            drop(kept);
            self.logs.append(vec![self.line(stream, text)]);
            return;
        }
        if kept.tail.len() == TAIL_LINES_MAX {
            kept.tail.pop_front();
            kept.dropped += 1;
        }
        kept.tail.push_back((stream, text.to_owned()));
    }

    /// Writes what was held back of a command's output. Called when the command has ended.
    pub(crate) fn end_of_output(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = std::mem::take(&mut kept.dropped);
        let tail = std::mem::take(&mut kept.tail);
        drop(kept);
        if dropped > 0 {
            self.say(format!("[{dropped} lines left out: the log of a build is bounded]"));
        }
        if !tail.is_empty() {
            self.logs.append(tail.iter().map(|(stream, text)| self.line(*stream, text)).collect());
        }
    }

    fn line(&self, stream: Stream, text: &str) -> LogLine {
        LogLine {
            at: self.clock.now(),
            app: self.app.clone(),
            build: Some(self.build.clone()),
            run: None,
            replica: None,
            stream,
            text: queue::text::cut(text, LOG_LINE_BYTES_MAX).to_owned(),
        }
    }
}
