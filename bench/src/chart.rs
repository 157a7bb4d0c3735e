//! Bars as an SVG that reads on a light and on a dark page: one panel per figure, one bar per system, with the span
//! between the least and the most round drawn over its end.

use std::fmt::Write as _;

use crate::report::{Report, Spread, number};

/// A panel: a title, and which rows it draws.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) piece: &'static str,
    pub(crate) figure: &'static str,
}

const WIDTH: f64 = 860.0;
/// Where the bars begin, after the names.
const LEFT: f64 = 260.0;
/// Room for the figure after a bar.
const RIGHT: f64 = 150.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const HEAD: f64 = 44.0;
/// Room for what stands below.
const FOOT: f64 = 28.0;
const OURS: &str = "postback";
const LEGEND: &str =
    "light: physical limits, measured in the same run · thin line: least to most of the rounds";

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}\
.bar{fill:#8c959f}.ours{fill:#0969da}.floor{fill:#d0d7de}.span{stroke:#1f2328;stroke-width:1.5;fill:none}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6e7681}.ours{fill:#4493f8}.floor{fill:#3d444d}\
.span{stroke:#e6edf3}}";

/// The picture; `None` when no panel has a row.
pub(crate) fn draw(report: &Report, panels: &[Panel], floors: &[&str]) -> Option<String> {
    let (mut body, mut top) = (String::new(), 0.0);
    for panel in panels {
        let mut rows: Vec<(&str, Spread)> = report
            .rows
            .iter()
            .filter(|row| row.piece == panel.piece && row.figure == panel.figure)
            .map(|row| (row.system.as_str(), row.spread()))
            .collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort_by(|(_, one), (_, other)| other.median.total_cmp(&one.median));
        let most = rows.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
        let _ = write!(
            body,
            "<text class=\"title\" x=\"12\" y=\"{:.0}\">{}</text>",
            top + 26.0,
            escaped(panel.title)
        );
        for (place, (system, spread)) in rows.iter().enumerate() {
            let y = top + HEAD + place as f64 * STEP;
            let at = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
            let class = if *system == OURS {
                "ours"
            } else if floors.contains(system) {
                "floor"
            } else {
                "bar"
            };
            let middle = y + BAR / 2.0;
            let text = middle + 4.5;
            let _ = write!(
                body,
                "<text x=\"{:.0}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
                 <path class=\"span\" d=\"M{:.1} {middle:.1}H{:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
                LEFT - 8.0,
                escaped(system),
                (at(spread.median) - LEFT).max(1.0),
                at(spread.least),
                at(spread.most),
                at(spread.most) + 8.0,
                number(spread.median),
            );
        }
        top += HEAD + rows.len() as f64 * STEP + 8.0;
    }
    if body.is_empty() {
        return None;
    }
    let _ = write!(body, "<text x=\"12\" y=\"{:.0}\">{LEGEND}</text>", top + 14.0);
    top += FOOT;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top:.0}\" width=\"{WIDTH}\" height=\"{top:.0}\" \
         role=\"img\"><style>{STYLE}</style>{body}</svg>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_medians_and_sorted() {
        let mut report = Report::default();
        for (system, value) in [("a < b", 100.0), (OURS, 400.0), ("floor", 200.0)] {
            report.add("sync-64", system, "calls", "per s", value);
        }
        let panels = [Panel { title: "Calls & answers", piece: "sync-64", figure: "calls" }];
        let svg = draw(&report, &panels, &["floor"]).unwrap();
        let whole = WIDTH - LEFT - RIGHT;
        for (class, part) in [("ours", 1.0), ("floor", 0.5), ("bar", 0.25)] {
            let bar =
                svg.split("<rect ").find(|part| part.starts_with(&format!("class=\"{class}\""))).unwrap();
            assert!(bar.contains(&format!("width=\"{:.1}\"", whole * part)), "{class}: {bar}");
        }
        assert!(
            svg.find("postback") < svg.find("floor<")
                && svg.contains("a &lt; b")
                && svg.contains("Calls &amp; answers")
        );
        assert!(draw(&report, &[Panel { piece: "none", ..panels[0] }], &[]).is_none());
    }
}
