//! Figures of several rounds: median, least and most.

use std::time::Duration;

use crate::load::Seen;

/// Collects figures by name, in the order of their first appearance.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<(String, &'static str, Vec<f64>)>,
}

impl Report {
    /// One round's figure.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        match self.figures.iter_mut().find(|(known, ..)| known == name) {
            Some((.., values)) => values.push(value),
            None => self.figures.push((name.to_owned(), unit, vec![value])),
        }
    }

    /// One round's rate and percentiles.
    pub(crate) fn add_latencies(&mut self, name: &str, seen: &Seen) {
        self.add(name, "per s", seen.rate);
        self.add_percentiles(name, &mut seen.latencies.clone());
    }

    /// One round's p50 and p99.
    pub(crate) fn add_percentiles(&mut self, name: &str, latencies: &mut [Duration]) {
        latencies.sort_unstable();
        for (label, part) in [("p50", 50), ("p99", 99)] {
            let index = (latencies.len() * part / 100).min(latencies.len().saturating_sub(1));
            if let Some(latency) = latencies.get(index) {
                self.add(&format!("{name} {label}"), "ms", latency.as_secs_f64() * 1e3);
            }
        }
    }

    /// The table.
    #[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
    pub(crate) fn print(&self) {
        println!("{:<34} {:>10} {:>10} {:>10}", "", "median", "min", "max");
        for (name, unit, values) in &self.figures {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2];
            let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
            println!("{name:<34} {median:>10.2} {least:>10.2} {most:>10.2} {unit}");
        }
    }
}
