//! Reads what callgrind wrote: the instructions of each function, by itself and with what it calls.
//!
//! The format is that of <https://valgrind.org/docs/manual/cl-format.html>, as callgrind writes it when it counts
//! instructions alone. Functions are told apart by their names.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;

/// Instructions of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// By itself.
    pub(crate) own: f64,
    /// With what it calls.
    pub(crate) inclusive: f64,
}

/// What one file says.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    pub(crate) total: f64,
    pub(crate) functions: HashMap<String, Cost>,
}

impl Profile {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{} is missing", file.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut profile = Self::default();
        let mut names: HashMap<&str, &str> = HashMap::new();
        let (mut current, mut callee, mut is_call) = ("", "", false);
        for line in text.lines() {
            let of_function = line.strip_prefix("fn=").map(|mention| (mention, false));
            let mention = of_function.or_else(|| line.strip_prefix("cfn=").map(|mention| (mention, true)));
            if let Some((mention, is_callee)) = mention {
                let close = mention.find(')').context("a function without a number")?;
                // The first mention of a number has the name beside it.
                let (number, text) = mention.split_at(close + 1);
                if !text.trim().is_empty() {
                    names.insert(number, text.trim());
                }
                let known = names.get(number).copied().context("a function that was never named")?;
                if is_callee { callee = known } else { current = known }
            } else if let Some(total) = line.strip_prefix("totals: ") {
                profile.total = total.trim().parse()?;
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                let cost: f64 = line.split(' ').nth(1).unwrap_or("0").parse()?;
                let entry = profile.functions.entry(current.to_owned()).or_default();
                if !is_call {
                    entry.own += cost;
                }
                // What a function calls of itself is counted already.
                if !is_call || callee != current {
                    entry.inclusive += cost;
                }
                is_call = false;
            }
        }
        anyhow::ensure!(profile.total > 0.0, "callgrind told no total");
        Ok(profile)
    }

    /// The functions that cost most.
    pub(crate) fn top(&self, by: fn(&Cost) -> f64, count: usize) -> Vec<(&str, Cost)> {
        let mut all: Vec<_> = self.functions.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        all.sort_by(|(_, one), (_, other)| by(other).total_cmp(&by(one)));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1\npositions: line\nevents: Ir\n\nob=(1) /bin/x\nfl=(1) a.c\nfn=(1) main\n16 400\n\
                        +3 100\ncfn=(2) work\ncalls=3 50\n16 800\n\nfn=(2)\n51 600\n* 100\ncfn=(2)\ncalls=1 51\n* 300\n\
                        fi=(2) b.h\n+2 100\ntotals: 1300\n";

    #[test]
    fn own_costs_add_up_and_calls_are_counted_with_the_caller() {
        let profile = Profile::parse(FILE).unwrap();
        assert_eq!(profile.functions["main"], Cost { own: 500.0, inclusive: 1300.0 });
        assert_eq!(profile.functions["work"], Cost { own: 800.0, inclusive: 800.0 });
        assert_eq!(profile.functions.values().map(|cost| cost.own).sum::<f64>(), profile.total);
        let top: Vec<_> = profile.top(|cost| cost.own, 1).into_iter().map(|(name, _)| name).collect();
        assert_eq!(top, ["work"]);
        assert!(Profile::parse("events: Ir\n").is_err());
    }
}
