//! Figures of several rounds, side by side: median, least and most.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

/// One figure of one system in one piece.
pub(crate) struct Row {
    pub(crate) piece: String,
    pub(crate) system: String,
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    values: Vec<f64>,
}

/// Median, least and most of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Row {
    /// Of its rounds.
    pub(crate) fn spread(&self) -> Spread {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        Spread { median: at(sorted.len() / 2), least: at(0), most: at(sorted.len().saturating_sub(1)) }
    }
}

/// Collects figures, in the order of their first appearance.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// What was left out, and why.
    skipped: Vec<String>,
}

impl Report {
    /// One round's figure.
    pub(crate) fn add(&mut self, piece: &str, system: &str, figure: &str, unit: &'static str, value: f64) {
        let same = |row: &&mut Row| row.piece == piece && row.system == system && row.figure == figure;
        match self.rows.iter_mut().find(same) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row {
                piece: piece.to_owned(),
                system: system.to_owned(),
                figure: figure.to_owned(),
                unit,
                values: vec![value],
            }),
        }
    }

    /// One round's p50 and p99.
    pub(crate) fn add_latencies(&mut self, piece: &str, system: &str, what: &str, latencies: &[Duration]) {
        let mut sorted = latencies.to_vec();
        sorted.sort_unstable();
        for (label, part) in [("p50", 50), ("p99", 99)] {
            let index = (sorted.len() * part / 100).min(sorted.len().saturating_sub(1));
            if let Some(latency) = sorted.get(index) {
                self.add(piece, system, format!("{what} {label}").trim(), "ms", latency.as_secs_f64() * 1e3);
            }
        }
    }

    /// Something that could not be measured. Said at once, and again below the table.
    #[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
    pub(crate) fn skip(&mut self, piece: &str, system: &str, why: &str) {
        let line = format!("SKIP: {piece}, {system}: {why}");
        if !self.skipped.contains(&line) {
            println!("{line}");
            self.skipped.push(line);
        }
    }

    /// Whether something of this system could not be measured.
    pub(crate) fn skipped_of(&self, system: &str) -> bool {
        self.skipped.iter().any(|line| line.contains(&format!(", {system}: ")))
    }

    /// The table, as Markdown that reads well in a terminal too: figures of a piece together, systems below one another.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let width = |of: fn(&Row) -> &str| {
            self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0).max(6)
        };
        let (piece, figure, system) =
            (width(|row| &row.piece), width(|row| &row.figure), width(|row| &row.system));
        let _ = writeln!(
            text,
            "| {:<piece$} | {:<figure$} | {:<system$} | {:>10} | {:>10} | {:>10} | unit |",
            "piece", "figure", "system", "median", "min", "max"
        );
        let _ = writeln!(text, "|{}|", ["---", "---", "---", "--:", "--:", "--:", "---"].join("|"));
        for row in self.ordered() {
            let Spread { median, least, most } = row.spread();
            let _ = writeln!(
                text,
                "| {:<piece$} | {:<figure$} | {:<system$} | {:>10} | {:>10} | {:>10} | {} |",
                row.piece,
                row.figure,
                row.system,
                number(median),
                number(least),
                number(most),
                row.unit
            );
        }
        for line in &self.skipped {
            let _ = writeln!(text, "\n{line}");
        }
        text
    }

    /// The same for programs, with the values of all rounds.
    pub(crate) fn json(&self) -> serde_json::Value {
        let rows = self.ordered().into_iter().map(|row| {
            json!({"piece": row.piece, "figure": row.figure, "system": row.system, "unit": row.unit, "rounds": row.values})
        });
        json!({"figures": rows.collect::<Vec<_>>(), "skipped": self.skipped})
    }

    /// Rows by piece and figure, each in the order of its first appearance.
    fn ordered(&self) -> Vec<&Row> {
        let mut keys: Vec<(&str, &str)> = Vec::new();
        let mut pieces: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !pieces.contains(&row.piece.as_str()) {
                pieces.push(&row.piece);
            }
            if !keys.contains(&(&row.piece, &row.figure)) {
                keys.push((&row.piece, &row.figure));
            }
        }
        let place = |row: &Row| {
            let piece = pieces.iter().position(|piece| *piece == row.piece);
            (piece, keys.iter().position(|key| *key == (&row.piece, &row.figure)))
        };
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| place(row));
        rows
    }
}

/// Three figures of it, more for a large one: `0.123`, `4.56`, `78.9`, `12,345`.
pub(crate) fn number(value: f64) -> String {
    let text = match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    if value.abs() < 1_000.0 {
        return text;
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let groups: Vec<_> =
        digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    format!("{sign}{}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_piece_stand_together_with_median_and_extremes() {
        let mut report = Report::default();
        for value in [3.0, 1_234_567.0, 20.0] {
            report.add("sync-64", "postback", "calls", "per s", value);
            report.add("ack-64", "postback", "acks", "per s", 1.0);
            report.add("sync-64", "other", "calls", "per s", value);
        }
        let systems: Vec<_> =
            report.ordered().iter().map(|row| (row.piece.clone(), row.system.clone())).collect();
        let pair = |piece: &str, system: &str| (piece.to_owned(), system.to_owned());
        assert_eq!(
            systems,
            [pair("sync-64", "postback"), pair("sync-64", "other"), pair("ack-64", "postback")]
        );
        assert_eq!(report.rows[0].spread(), Spread { median: 20.0, least: 3.0, most: 1_234_567.0 });
        assert!(report.table().contains("1,234,567"), "{}", report.table());
        assert_eq!(
            (number(0.1234), number(999.6), number(-1_000.0)),
            ("0.123".into(), "1000".into(), "-1,000".into())
        );
    }
}
