//! What user code prints: split into lines, bounded per line and per run, and handed to the logs in
//! batches.

use std::collections::VecDeque;
use std::sync::Arc;

use queue::limits::{LOG_LINE_BYTES_MAX, RUN_LOG_BYTES_MAX};
use queue::log::{LogLine, Stream};
use queue::port::Logs;
use queue::{AppId, BuildId, ReplicaId, RunId, Timestamp};

/// Makes lines of bytes; what exceeds [`LOG_LINE_BYTES_MAX`] in a line is cut off.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    /// Adds the lines that end in `bytes`.
    pub(crate) fn split(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let unfinished = parts.next_back().unwrap_or_default();
        for part in parts {
            self.extend(part);
            lines.push(self.take());
        }
        self.extend(unfinished);
    }

    /// The line that no line feed ended.
    pub(crate) fn rest(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.take())
    }

    fn extend(&mut self, part: &[u8]) {
        let room = LOG_LINE_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn take(&mut self) -> String {
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        text
    }
}

/// Keeps what is printed within [`RUN_LOG_BYTES_MAX`]: the head is written through, of the rest the
/// tail is kept until the end.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    head: usize,
    tail: VecDeque<LogLine>,
    tail_bytes: usize,
    dropped: usize,
    /// Bytes that came, before long lines were cut.
    printed: u64,
}

impl Budget {
    const HALF: usize = RUN_LOG_BYTES_MAX / 2;
    /// A line costs memory even when it is empty.
    const TAIL_LINES_MAX: usize = 16_384;

    /// Counts what was printed. Whether it is more than `most`.
    pub(crate) fn exceeds(&mut self, bytes: usize, most: u64) -> bool {
        self.printed = self.printed.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.printed > most
    }

    fn push(&mut self, line: LogLine, out: &mut Vec<LogLine>) {
        let cost = line.text.len() + 1;
        if self.tail.is_empty() && self.dropped == 0 && self.head + cost <= Self::HALF {
            self.head += cost;
            out.push(line);
            return;
        }
        self.tail_bytes += cost;
        self.tail.push_back(line);
        while self.tail_bytes > Self::HALF || self.tail.len() > Self::TAIL_LINES_MAX {
            let Some(line) = self.tail.pop_front() else { break };
            self.tail_bytes -= line.text.len() + 1;
            self.dropped += line.text.len() + 1;
        }
    }

    fn close(self, out: &mut Vec<LogLine>) {
        if let (1.., Some(first)) = (self.dropped, self.tail.front()) {
            let text = format!("{} bytes dropped", self.dropped);
            out.push(LogLine { stream: Stream::System, text, ..first.clone() });
        }
        out.extend(self.tail);
    }
}

/// One replica's way to the logs.
pub(crate) struct Printer {
    logs: Arc<dyn Logs>,
    app: AppId,
    replica: ReplicaId,
    /// Set while the replica starts as a build's first: what it prints belongs to the build's log.
    build: Option<BuildId>,
    batch: Vec<LogLine>,
    /// Lines outside of runs have a budget for each minute.
    outside: Budget,
    outside_since: Timestamp,
    /// The newest lines of a start: all there is to say when it fails without a word.
    newest: Option<VecDeque<String>>,
}

impl Printer {
    const BATCH_LINES_MAX: usize = 256;
    const NEWEST_MAX: usize = 20;
    const WINDOW: std::time::Duration = std::time::Duration::from_secs(60);

    pub(crate) fn new(logs: Arc<dyn Logs>, app: AppId, replica: ReplicaId, build: Option<BuildId>) -> Self {
        Self {
            logs,
            app,
            replica,
            build,
            batch: Vec::new(),
            outside: Budget::default(),
            outside_since: Timestamp::default(),
            newest: Some(VecDeque::new()),
        }
    }

    /// The build is live: from now on its lines belong to the app.
    pub(crate) fn leave_build(&mut self) {
        self.close_outside();
        self.build = None;
    }

    /// A line printed inside a run.
    pub(crate) fn inside(
        &mut self,
        budget: &mut Budget,
        run: RunId,
        at: Timestamp,
        stream: Stream,
        text: String,
    ) {
        let line = self.line(at, Some(run), stream, text);
        budget.push(line, &mut self.batch);
        self.flush_if_full();
    }

    /// The run ended: its tail is due.
    pub(crate) fn close(&mut self, budget: Budget) {
        budget.close(&mut self.batch);
    }

    /// A line printed outside of any run.
    pub(crate) fn outside(&mut self, at: Timestamp, stream: Stream, text: String) {
        if let Some(newest) = &mut self.newest {
            if newest.len() == Self::NEWEST_MAX {
                newest.pop_front();
            }
            newest.push_back(text.clone());
        }
        if at.since(self.outside_since) >= Self::WINDOW {
            self.close_outside();
            self.outside_since = at;
        }
        let line = self.line(at, None, stream, text);
        self.outside.push(line, &mut self.batch);
        self.flush_if_full();
    }

    /// The newest lines of the start.
    pub(crate) fn newest(&self) -> Option<String> {
        let lines: Vec<_> = self.newest.iter().flatten().map(String::as_str).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The start succeeded.
    pub(crate) fn forget_newest(&mut self) {
        self.newest = None;
    }

    /// Everything that was printed goes to the logs.
    pub(crate) fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.logs.append(std::mem::take(&mut self.batch));
        }
    }

    /// The replica ended.
    pub(crate) fn finish(&mut self) {
        self.close_outside();
        self.flush();
    }

    fn close_outside(&mut self) {
        std::mem::take(&mut self.outside).close(&mut self.batch);
    }

    fn flush_if_full(&mut self) {
        if self.batch.len() >= Self::BATCH_LINES_MAX {
            self.flush();
        }
    }

    fn line(&self, at: Timestamp, run: Option<RunId>, stream: Stream, text: String) -> LogLine {
        let build = if run.is_none() { self.build.clone() } else { None };
        LogLine { at, app: self.app.clone(), build, run, replica: Some(self.replica.clone()), stream, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: String) -> LogLine {
        let app = "p-1234abcd-a".parse().unwrap();
        let at = Timestamp::from_millis(0);
        LogLine { at, app, build: None, run: None, replica: None, stream: Stream::Stdout, text }
    }

    #[test]
    fn lines_come_out_however_their_bytes_arrive() {
        for step in 1..8 {
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            for part in b"one\r\n\ntwo \xff\nrest".chunks(step) {
                splitter.split(part, &mut lines);
            }
            lines.extend(splitter.rest());
            assert_eq!(lines, ["one", "", "two \u{fffd}", "rest"]);
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for _ in 0..100 {
            splitter.split(&[b'x'; 1 << 10], &mut lines);
        }
        splitter.split(b"\nnext\n", &mut lines);
        assert_eq!(lines[0].len(), LOG_LINE_BYTES_MAX);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_flood_of_empty_lines_is_no_way_to_fill_the_memory() {
        let mut budget = Budget::default();
        let mut out = Vec::new();
        for _ in 0..2 * RUN_LOG_BYTES_MAX {
            budget.push(line(String::new()), &mut out);
        }
        assert_eq!(out.len(), Budget::HALF);
        assert_eq!(budget.tail.len(), Budget::TAIL_LINES_MAX);
        assert_eq!(budget.dropped, 2 * RUN_LOG_BYTES_MAX - Budget::HALF - Budget::TAIL_LINES_MAX);
    }

    #[test]
    fn a_flood_keeps_its_head_and_its_tail_and_says_what_is_missing() {
        let mut budget = Budget::default();
        let mut out = Vec::new();
        let total = 40_000;
        for number in 0..total {
            budget.push(line(format!("{number:099}")), &mut out);
        }
        let head = out.len();
        budget.close(&mut out);
        let kept = out.iter().filter(|line| line.stream == Stream::Stdout).count();
        assert!(kept * 100 <= RUN_LOG_BYTES_MAX && kept * 100 > RUN_LOG_BYTES_MAX - 300);
        assert_eq!(out[head].text, format!("{} bytes dropped", (total - kept) * 100));
        assert!(out[0].text.ends_with("00"));
        assert!(out.last().unwrap().text.ends_with("39999"));
    }
}
