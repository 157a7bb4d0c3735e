//! How it goes: what waits and runs now, what happened lately, what failed last and why.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use pages::inert::visible;
use queue::Timestamp;
use queue::run::{RunFilter, RunState, RunView};
use queue::text::cut;
use queue::traffic::{AtLeast, Count, Happened, Slice, Span, Standing};
use serde::Deserialize;

use crate::assets::Frame;
use crate::chart::{self, Bars};
use crate::error::{Shown, Trouble};
use crate::session::SignedIn;
use crate::{Shared, shape, words};

/// Failures on the page.
const LAST_FAILURES: usize = 5;
/// Of a failure's message so much is shown.
const MESSAGE_BYTES: usize = 160;

pub(crate) const RUNS: Bars = Bars {
    title: "Runs",
    good: &[Happened::Succeeded],
    good_word: "succeeded",
    bad: &[Happened::Failed, Happened::Cancelled, Happened::Expired],
    bad_word: "failed, cancelled or expired",
};
const DELIVERIES: Bars = Bars {
    title: "Delivery attempts",
    good: &[Happened::Delivered],
    good_word: "delivered",
    bad: &[Happened::NotDelivered],
    bad_word: "failed",
};

#[derive(Deserialize)]
pub(crate) struct Back {
    span: Option<String>,
}

/// A figure with its word.
struct Tile {
    what: &'static str,
    figure: String,
    note: String,
    /// It wants somebody's eyes.
    alarm: bool,
}

impl Tile {
    fn new(what: &'static str, figure: String, note: String) -> Self {
        Self { what, figure, note, alarm: false }
    }
}

/// Something that failed, in plain words.
struct Failure {
    run: String,
    app: String,
    ago: String,
    cause: &'static str,
    message: String,
}

impl Failure {
    fn of(run: &RunView, now: Timestamp) -> Option<Self> {
        let error = run.error.as_ref()?;
        Some(Self {
            run: run.id.to_string(),
            app: run.app.name().to_string(),
            ago: shape::relative(run.ended_at.unwrap_or(run.accepted_at), now),
            cause: words::cause(error),
            message: visible(cut(&error.message, MESSAGE_BYTES)).into_owned(),
        })
    }
}

/// A chart with its headline.
struct Panel {
    title: &'static str,
    svg: String,
    good: String,
    good_word: &'static str,
    bad: String,
    bad_word: &'static str,
}

impl Panel {
    fn of(bars: &Bars, slices: &[Slice], span: Span) -> Self {
        let all = |what: &[Happened]| what.iter().map(|what| total(slices, *what).times).sum();
        Self {
            title: bars.title,
            svg: chart::draw(bars, slices, span),
            good: chart::short(all(bars.good)),
            good_word: bars.good_word,
            bad: chart::short(all(bars.bad)),
            bad_word: bars.bad_word,
        }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    spans: Vec<(&'static str, bool)>,
    tiles: Vec<Tile>,
    panels: Vec<Panel>,
    failures: Vec<Failure>,
    /// Nobody has called anything yet.
    fresh: bool,
    begins: String,
}

fn total(slices: &[Slice], what: Happened) -> Count {
    slices.iter().fold(Count::default(), |sum, slice| sum.plus(slice.of(what)))
}

fn span(word: &str) -> Shown<Span> {
    if word.is_empty() {
        return Ok(Span::Hour);
    }
    let found = Span::ALL.into_iter().find(|span| span.as_str() == word);
    found.ok_or_else(|| Trouble::no_such("span of time here", word, &Span::ALL.map(Span::as_str)))
}

/// `/dashboard`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Query(back): Query<Back>,
) -> Shown<Response> {
    let span = span(back.span.as_deref().unwrap_or_default())?;
    let now = room.ports.clock.now();
    let slices = room.ports.traffic.traffic(&project, None, span, now).await?;
    let standing = room.ports.traffic.standing(&project).await?;
    let state = Some(RunState::Failed);
    let filter = RunFilter { state, ..RunFilter::of(project.clone(), LAST_FAILURES) };
    let failed = room.ports.runs.runs(filter).await?.runs;
    let page = OverviewPage {
        frame: Frame::new(Some(project.to_string())),
        spans: Span::ALL.into_iter().map(|one| (one.as_str(), one == span)).collect(),
        tiles: tiles(&standing, &slices, now),
        panels: vec![Panel::of(&RUNS, &slices, span), Panel::of(&DELIVERIES, &slices, span)],
        failures: failed.iter().filter_map(|run| Failure::of(run, now)).collect(),
        fresh: failed.is_empty()
            && standing == Standing::default()
            && slices.iter().all(|slice| slice.counts.iter().all(|count| count.times == 0)),
        begins: slices.first().map_or_else(String::new, |first| shape::moment(first.at)),
    };
    Ok(pages::html(StatusCode::OK, &page))
}

fn at_least(number: AtLeast) -> String {
    let more = if number.more { "+" } else { "" };
    format!("{}{more}", chart::short(number.count))
}

/// A share of all, in percent, with the digits that matter; nothing when there is nothing.
fn share(good: u64, all: u64) -> String {
    match good as f64 / all as f64 * 100.0 {
        _ if all == 0 => "–".to_owned(),
        percent if good == all => format!("{percent:.0} %"),
        // Never rounded up to all.
        percent if percent > 99.9 => "99.9 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

fn mean(count: Count) -> String {
    match count.millis.checked_div(count.times) {
        Some(millis) => format!("{} on average", shape::duration(Duration::from_millis(millis))),
        None => String::new(),
    }
}

fn tiles(standing: &Standing, slices: &[Slice], now: Timestamp) -> Vec<Tile> {
    let of = |what| total(slices, what);
    let (good, bad) = (of(Happened::Succeeded), of(Happened::Failed));
    let (told, missed) = (of(Happened::Delivered), of(Happened::NotDelivered));
    let oldest = standing.queued_since.map_or_else(
        || "nothing waits".to_owned(),
        |since| format!("the oldest for {}", shape::duration(now.since(since))),
    );
    let disabled = standing.disabled_endpoints;
    let endpoints = match disabled {
        0 => String::new(),
        1 => "1 endpoint is disabled".to_owned(),
        many => format!("{many} endpoints are disabled"),
    };
    vec![
        Tile::new("Queued", at_least(standing.queued), oldest),
        Tile::new("Running", chart::short(standing.running), "asynchronous runs".to_owned()),
        Tile::new("Succeeded", share(good.times, good.times + bad.times), mean(good)),
        Tile::new("Delivered", share(told.times, told.times + missed.times), mean(told)),
        Tile { alarm: disabled > 0, ..Tile::new("To be delivered", at_least(standing.pending), endpoints) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(share(0, 0), "–");
        assert_eq!(share(10, 10), "100 %");
        assert_eq!(share(99_999, 100_000), "99.9 %");
        assert_eq!(share(1, 3), "33.3 %");
    }

    #[test]
    fn tiles_say_what_waits_and_what_is_disabled() {
        let standing = Standing {
            queued: AtLeast { count: 10_000, more: true },
            queued_since: Some(Timestamp::from_millis(0)),
            disabled_endpoints: 1,
            ..Standing::default()
        };
        let tiles = tiles(&standing, &[], Timestamp::from_millis(90_000));
        assert_eq!((tiles[0].figure.as_str(), tiles[0].note.as_str()), ("10k+", "the oldest for 1 min 30 s"));
        let last = tiles.last().unwrap();
        assert!(last.alarm && last.note == "1 endpoint is disabled");
    }
}
