//! Small charts, drawn as SVG on the server: bars over time, with what went wrong on top.
//!
//! Good and bad differ in lightness and pattern, not in hue alone; every bar says its figures when it is pointed at,
//! and the whole chart has them as a sentence for those who do not see it.

use std::fmt::Write as _;

use queue::traffic::{Happened, Slice, Span};

use crate::shape;

/// The drawing's own units; it is scaled to its place.
const WIDTH: usize = 720;
const HEIGHT: usize = 120;
/// Between two bars.
const GAP: f64 = 0.18;
/// Quarters of an hour that a bar of a line in a table stands for, and the height of such a line.
const SPARK_SLICES: usize = 4;
const SPARK_HEIGHT: u64 = 24;

/// What a chart shows of a slice.
pub(crate) struct Bars {
    pub(crate) title: &'static str,
    /// What went well, and the word for it.
    pub(crate) good: &'static [Happened],
    pub(crate) good_word: &'static str,
    /// What did not.
    pub(crate) bad: &'static [Happened],
    pub(crate) bad_word: &'static str,
}

fn sum(slice: &Slice, what: &[Happened]) -> u64 {
    what.iter().map(|what| slice.of(*what).times).sum()
}

/// A number with at most three digits that say something: `0`, `950`, `1.2k`, `34k`, `5.6M`.
pub(crate) fn short(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..10_000 => format!("{:.1}k", number as f64 / 1e3),
        10_000..1_000_000 => format!("{}k", number / 1_000),
        1_000_000..10_000_000 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{}M", number / 1_000_000),
    }
}

/// The chart as SVG. All that stands in it are our own words and numbers.
pub(crate) fn draw(bars: &Bars, slices: &[Slice], span: Span) -> String {
    let Bars { title, good, good_word, bad, bad_word } = bars;
    let most = slices.iter().map(|slice| sum(slice, good) + sum(slice, bad)).max().unwrap_or(0);
    let (all_good, all_bad): (u64, u64) =
        slices.iter().fold((0, 0), |(well, ill), slice| (well + sum(slice, good), ill + sum(slice, bad)));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{title} over {}: {all_good} {good_word}, {all_bad} {bad_word}, at most {most} in {}\">\
         <rect class=\"floor\" x=\"0\" y=\"{}\" width=\"{WIDTH}\" height=\"1\"/>",
        span.as_str(),
        shape::duration(span.step()),
        HEIGHT - 1,
    );
    let scale = if most == 0 { 0.0 } else { (HEIGHT - 4) as f64 / most as f64 };
    let pitch = WIDTH as f64 / slices.len().max(1) as f64;
    for (index, slice) in slices.iter().enumerate() {
        let (well, ill) = (sum(slice, good), sum(slice, bad));
        if well + ill == 0 {
            continue;
        }
        let x = (index as f64 + GAP / 2.0) * pitch;
        let width = pitch * (1.0 - GAP);
        // What happened at all is seen.
        let height = |count: u64| if count == 0 { 0.0 } else { (count as f64 * scale).max(2.0) };
        let (low, high) = (height(well), height(ill));
        let base = (HEIGHT - 1) as f64;
        let _ = write!(
            svg,
            "<g><title>{}: {well} {good_word}, {ill} {bad_word}</title>\
             <rect class=\"good\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{low:.1}\"/>\
             <rect class=\"bad\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{high:.1}\"/></g>",
            shape::moment(slice.at),
            base - low,
            base - low - high,
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The same in a line of a table: a day by the hour, without figures but for the sentence.
pub(crate) fn spark(bars: &Bars, slices: &[Slice]) -> String {
    let Bars { good, good_word, bad, bad_word, .. } = bars;
    let per_hour = slices.chunks(SPARK_SLICES).map(|hour| {
        hour.iter().fold((0, 0), |(well, ill), slice| (well + sum(slice, good), ill + sum(slice, bad)))
    });
    let hours: Vec<(u64, u64)> = per_hour.collect();
    let most = hours.iter().map(|(well, ill)| well + ill).max().unwrap_or(0).max(1);
    let (all_good, all_bad) =
        hours.iter().fold((0, 0), |(all_good, all_bad), (well, ill)| (all_good + well, all_bad + ill));
    let (mut well_path, mut ill_path) = (String::new(), String::new());
    for (hour, (well, ill)) in hours.iter().enumerate() {
        // What happened at all is seen.
        let height = |count: u64| (count * SPARK_HEIGHT).div_ceil(most);
        let (low, high) = (height(*well), height(*ill));
        let bar = |path: &mut String, base: u64, height: u64| {
            if height > 0 {
                let _ = write!(path, "M{} {base}h8v-{height}h-8z", hour * 10 + 1);
            }
        };
        // Both together are as high as the drawing, and one unit higher at most.
        bar(&mut well_path, SPARK_HEIGHT + 1, low);
        bar(&mut ill_path, SPARK_HEIGHT + 1 - low, high);
    }
    format!(
        "<svg viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"In the last day {all_good} {good_word}, {all_bad} {bad_word}\">\
         <path class=\"good\" d=\"{well_path}\"/><path class=\"bad\" d=\"{ill_path}\"/></svg>",
        hours.len() * 10,
        SPARK_HEIGHT + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::Timestamp;
    use queue::traffic::Count;

    const RUNS: Bars = Bars {
        title: "Runs",
        good: &[Happened::Succeeded],
        good_word: "succeeded",
        bad: &[Happened::Failed, Happened::Expired],
        bad_word: "did not",
    };

    fn slice(minute: i64, well: u64, ill: u64) -> Slice {
        let mut counts = [Count::default(); Happened::ALL.len()];
        counts[Happened::Succeeded.place()].times = well;
        counts[Happened::Expired.place()].times = ill;
        Slice { at: Timestamp::from_millis(minute * 60_000), counts }
    }

    #[test]
    fn a_chart_says_its_figures_and_draws_only_what_happened() {
        let drawn = draw(&RUNS, &[slice(0, 0, 0), slice(1, 100, 1), slice(2, 50, 0)], Span::Hour);
        assert!(drawn.contains("Runs over 1h: 150 succeeded, 1 did not, at most 101 in 1 min"), "{drawn}");
        assert_eq!(drawn.matches("<title>").count(), 2);
        assert!(drawn.contains("<title>1970-01-01 00:01:00: 100 succeeded, 1 did not</title>"));
        // One failure among a hundred is seen.
        assert!(drawn.contains("height=\"2.0\""), "{drawn}");
        assert!(!draw(&RUNS, &[slice(0, 0, 0)], Span::Hour).contains("<title>"));
    }

    #[test]
    fn a_line_of_a_table_draws_hours_and_says_their_sums() {
        let quiet = (0..4).map(|minute| slice(minute, 0, 0));
        let busy = (4..8).map(|minute| slice(minute, 10, u64::from(minute == 5)));
        let drawn = spark(&RUNS, &quiet.chain(busy).collect::<Vec<_>>());
        assert!(drawn.contains("In the last day 40 succeeded, 1 did not"), "{drawn}");
        assert!(drawn.contains(r#"viewBox="0 0 20 25""#), "{drawn}");
        // The second hour alone; one failure among forty is seen, on top.
        assert!(drawn.contains(r#"class="good" d="M11 25h8v-24h-8z""#), "{drawn}");
        assert!(drawn.contains(r#"class="bad" d="M11 1h8v-1h-8z""#), "{drawn}");
        assert!(spark(&RUNS, &[]).contains("0 succeeded"));
    }

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_234, "1.2k"),
            (56_789, "56k"),
            (1_500_000, "1.5M"),
            (23_000_000, "23M"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
