//! What people see: data on standard output, everything else on standard error.
//!
//! Text that users or models made is cleaned of control and direction characters before it reaches a
//! terminal. Colour marks what the words say already.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pages::inert::acts;

/// An error whose message needs a next step beside it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct WithHint {
    message: String,
    hint: String,
}

impl WithHint {
    /// What happened, and what to do next.
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// Prints an error with its causes, and its hint if it has one. The exit status is 1.
pub(crate) fn fatal(error: &anyhow::Error) -> ExitCode {
    let printer = Printer::new(false, false);
    printer.say(&format!("{} {}", printer.paint(Colour::Red, "error:"), clean(&error.to_string())));
    for cause in error.chain().skip(1) {
        printer.say(&format!("  caused by: {}", clean(&cause.to_string())));
    }
    if let Some(hint) = hint_of(error) {
        printer.hint(hint);
    }
    ExitCode::FAILURE
}

/// The next step that stands beside an error, at whatever depth.
fn hint_of(error: &anyhow::Error) -> Option<&str> {
    // The first look finds hints that were given as context, the second those below another context.
    let with_hint = error.downcast_ref::<WithHint>();
    let with_hint = with_hint.or_else(|| error.chain().find_map(|cause| cause.downcast_ref()));
    with_hint.map(|with_hint| with_hint.hint.as_str())
}

/// How a word may be marked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

/// Decides once what a command's words look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
    colour: bool,
}

impl Printer {
    /// Colours appear on a terminal only, and never with `NO_COLOR`.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, quiet, colour }
    }

    /// Whether the command's data is asked for as JSON.
    pub(crate) fn wants_json(self) -> bool {
        self.json
    }

    /// A line of data.
    pub(crate) fn data(self, line: &str) {
        let mut out = std::io::stdout().lock();
        // A reader that has seen enough (`| head`) is no error.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Data as JSON, indented on a terminal.
    pub(crate) fn json(self, value: &serde_json::Value) {
        let text = if std::io::stdout().is_terminal() {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        self.data(&text.unwrap_or_default());
    }

    /// JSON that came from a server: to the byte when JSON was asked for, else laid out for reading.
    pub(crate) fn raw_json(self, text: &str) {
        let laid_out = || pages::pretty(text, usize::MAX).unwrap_or_else(|| text.to_owned());
        self.data(&if self.json { text.to_owned() } else { clean(&laid_out()) });
    }

    /// Something to know; silent with `--quiet`.
    pub(crate) fn note(self, line: &str) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// Something that went well.
    pub(crate) fn done(self, line: &str) {
        self.note(&format!("{} {line}", self.paint(Colour::Green, "✓")));
    }

    /// Something to look at.
    pub(crate) fn warning(self, line: &str) {
        self.say(&format!("{} {line}", self.paint(Colour::Yellow, "warning:")));
    }

    /// What to do next.
    pub(crate) fn hint(self, line: &str) {
        self.say(&format!("{} {line}", self.paint(Colour::Cyan, "hint:")));
    }

    /// A line on standard error.
    pub(crate) fn say(self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// Marks a word.
    pub(crate) fn paint(self, colour: Colour, word: &str) -> String {
        if self.colour { format!("\u{1b}[{}m{word}\u{1b}[0m", colour as u8) } else { word.to_owned() }
    }

    /// Rows under headings, as data.
    pub(crate) fn table(self, headings: &[&str], rows: &[Vec<String>]) {
        let headings = headings.iter().map(|&heading| heading.to_owned()).collect();
        self.rows(&[vec![headings], rows.to_vec()].concat());
    }

    /// Rows whose columns stand below one another, as data.
    pub(crate) fn rows(self, rows: &[Vec<String>]) {
        let cleaned: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
        let columns = cleaned.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            cleaned
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &cleaned {
            let padded: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            self.data(padded.join("  ").trim_end());
        }
    }

    /// A bar for work of known size, in bytes; hidden off a terminal.
    pub(crate) fn bytes_bar(self, what: &'static str, bytes: u64) -> ProgressBar {
        self.bar(ProgressBar::new(bytes), "{msg:12} {wide_bar} {bytes}/{total_bytes}", what)
    }

    /// A spinner with the time so far for work of unknown size; hidden off a terminal.
    pub(crate) fn spinner(self, what: impl Into<std::borrow::Cow<'static, str>>) -> ProgressBar {
        let spinner = self.bar(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}", what);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    fn bar(
        self,
        bar: ProgressBar,
        template: &str,
        what: impl Into<std::borrow::Cow<'static, str>>,
    ) -> ProgressBar {
        let hidden = self.quiet || self.json || !std::io::stderr().is_terminal();
        bar.set_draw_target(if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(what);
        bar
    }
}

/// `text` without what could move a cursor, change a colour, turn the reading direction or hide.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if acts(c) { '\u{fffd}' } else { c }).collect()
}

/// Where lines of the log go: as they are, but for what would turn the reading direction or hide. Escapes stay: those
/// that are left are colours of the log's own.
pub(crate) struct LogLines<W>(pub(crate) W);

impl<W: std::io::Write> std::io::Write for LogLines<W> {
    /// Takes whole lines.
    fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
        let hostile = |c: char| acts(c) && c != '\u{1b}';
        match std::str::from_utf8(lines) {
            Ok(text) if text.contains(hostile) => {
                self.0.write_all(text.replace(hostile, "\u{fffd}").as_bytes())?;
            }
            _ => self.0.write_all(lines)?,
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_found_wherever_it_was_given() {
        let cause = || anyhow::anyhow!("cause");
        assert_eq!(hint_of(&WithHint::new("m", "alone").into()), Some("alone"));
        assert_eq!(hint_of(&cause().context(WithHint::new("m", "context"))), Some("context"));
        let below = anyhow::Error::from(WithHint::new("m", "below")).context("above");
        assert_eq!(hint_of(&below), Some("below"));
        assert_eq!(hint_of(&cause()), None);
    }

    #[test]
    fn text_of_strangers_cannot_move_the_cursor() {
        assert_eq!(
            clean("a\u{1b}[2Jb\r\u{202e}c\n\td\u{61c}"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\n\td\u{fffd}"
        );
        assert_eq!(clean("a\u{61c}\u{200b}\u{2028}\u{e0041}b"), "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}b");
    }

    #[test]
    fn a_line_of_the_log_hides_and_turns_nothing_and_keeps_its_own_colours() {
        let mut lines = LogLines(Vec::new());
        for line in ["\u{1b}[33mWARN\u{1b}[0m reason=\u{202e}a\u{9b}\u{200b}é\n", "plain é\n"] {
            assert_eq!(lines.write(line.as_bytes()).unwrap(), line.len());
        }
        lines.write_all(b"\xff\n").unwrap();
        let wanted = "\u{1b}[33mWARN\u{1b}[0m reason=\u{fffd}a\u{fffd}\u{fffd}é\nplain é\n";
        assert_eq!(lines.0, [wanted.as_bytes(), b"\xff\n"].concat());
    }
}
