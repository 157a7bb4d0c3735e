//! The list of runs, narrowed as people like it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use queue::limits::SEARCH_TEXT_BYTES_MAX;
use queue::registry::App;
use queue::run::{RunFilter, RunList, RunState, RunView};
use queue::search::Search;
use queue::since::Since;
use queue::{AppId, ProjectId, RunId, Timestamp};
use serde::Deserialize;

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::session::SignedIn;
use crate::shape;

/// Runs on one page.
const PAGE_RUNS: usize = 100;
/// How far back one can look with a click.
const BACK: [(&str, &str); 4] =
    [("1h", "last hour"), ("24h", "last 24 hours"), ("7d", "last 7 days"), ("30d", "last 30 days")];

/// What the address of the page says.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Narrow {
    app: Option<String>,
    state: Option<String>,
    since: Option<String>,
    from: Option<String>,
    until: Option<String>,
    text: Option<String>,
    metadata: Option<String>,
    before: Option<String>,
    /// Runs that the pages before this one looked at in vain.
    looked: Option<usize>,
}

impl Narrow {
    /// What is said; a field that was left empty says nothing.
    fn said(&self) -> [(&'static str, &str); 7] {
        [
            ("app", trimmed(self.app.as_deref())),
            ("state", trimmed(self.state.as_deref())),
            ("since", trimmed(self.since.as_deref())),
            ("from", trimmed(self.from.as_deref())),
            ("until", trimmed(self.until.as_deref())),
            ("text", trimmed(self.text.as_deref())),
            ("metadata", trimmed(self.metadata.as_deref())),
        ]
    }

    /// The page with the same filters, from its newest runs on or from those before one.
    fn address(&self, before: Option<RunId>, in_vain: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.said().iter().filter(|(_, value)| !value.is_empty()));
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
        if in_vain > 0 {
            query.append_pair("looked", &in_vain.to_string());
        }
        format!("/dashboard/runs?{}", query.finish())
    }

    fn filter(&self, project: &ProjectId, now: Timestamp) -> Shown<RunFilter> {
        let [(_, app), (_, state), (_, since), (_, from), (_, until), (_, text), (_, metadata)] = self.said();
        // Runs outlive their app.
        let app = match app {
            "" => None,
            name => Some(AppId::new(project, &name.parse().map_err(|_| Trouble::Unknown("app"))?)),
        };
        let moment = |text: &str| match text {
            "" => Ok(None),
            text => Since::parse(text)
                .map(|since| Some(since.before(now)))
                .map_err(|wanted| Trouble::Invalid(format!("`{text}` is no time: {wanted}."))),
        };
        let search = Search::new(Some(text), [metadata])
            .map_err(|error| Trouble::Invalid(format!("Nothing was looked for: {error}.")))?;
        let state = match state {
            "" => None,
            word => {
                Some(RunState::ALL.into_iter().find(|known| known.as_str() == word).ok_or_else(|| {
                    Trouble::no_such("state of runs", word, &RunState::ALL.map(RunState::as_str))
                })?)
            }
        };
        let before = match trimmed(self.before.as_deref()) {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                Trouble::Invalid("`before` is no id of a run; begin with the newest runs again.".to_owned())
            })?),
        };
        Ok(RunFilter {
            app,
            state,
            since: moment(since)?.max(moment(from)?),
            until: moment(until)?,
            search,
            before,
            ..RunFilter::of(project.clone(), PAGE_RUNS)
        })
    }
}

/// A run in the list.
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) function: String,
    pub(crate) state: RunState,
    pub(crate) accepted: String,
    pub(crate) ago: String,
    pub(crate) took: String,
    /// Why it failed, in a word.
    pub(crate) error: String,
}

impl Row {
    pub(crate) fn of(run: &RunView, now: Timestamp) -> Self {
        let until = run.ended_at.unwrap_or(now);
        Self {
            id: run.id.to_string(),
            app: run.app.name().to_string(),
            function: run.function.clone(),
            state: run.state,
            accepted: shape::moment(run.accepted_at),
            ago: shape::relative(run.accepted_at, now),
            took: shape::duration(until.since(run.accepted_at)),
            error: run.error.as_ref().map_or_else(String::new, |error| error.code.as_str().to_owned()),
        }
    }
}

/// The names to choose from: those of the apps, and the one that is chosen though its app is gone.
fn names(apps: &[Arc<App>], chosen: &str) -> Vec<String> {
    let mut names: Vec<String> = apps.iter().map(|app| app.id.name().to_string()).collect();
    if !chosen.is_empty() && !names.iter().any(|name| name == chosen) {
        names.push(chosen.to_owned());
    }
    names
}

fn trimmed(field: Option<&str>) -> &str {
    field.map_or("", str::trim)
}

/// A choice of a list, and whether it is made.
type Choice = (&'static str, &'static str, bool);

#[derive(Template)]
#[template(path = "runs.html")]
struct RunsPage {
    frame: Frame,
    apps: Vec<String>,
    app: String,
    states: Vec<(RunState, bool)>,
    back: Vec<Choice>,
    from: String,
    until: String,
    text: String,
    text_max: usize,
    metadata: String,
    /// Whether the fields that are seldom needed are shown.
    more: bool,
    /// Whether anything was asked for, so that an empty list may be the filter's doing.
    narrowed: bool,
    rows: Vec<Row>,
    /// How many runs a search looked at that did not fill its page, and how far back.
    looked_to: Option<(String, String)>,
    /// The next page.
    older: Option<String>,
    newest: Option<String>,
}

impl RunsPage {
    fn of(project: &ProjectId, apps: &[Arc<App>], narrow: &Narrow, list: &RunList, now: Timestamp) -> Self {
        let [(_, app), (_, state), (_, since), (_, from), (_, until), (_, text), (_, metadata)] =
            narrow.said();
        let is_full = list.runs.len() >= PAGE_RUNS;
        let looked_to = list.next.filter(|_| !is_full);
        let looked = list.looked.saturating_add(narrow.looked.unwrap_or_default());
        let in_vain = if list.runs.is_empty() { looked } else { 0 };
        Self {
            frame: Frame::new(Some(project.to_string())),
            apps: names(apps, app),
            app: app.to_owned(),
            states: RunState::ALL.into_iter().map(|one| (one, one.as_str() == state)).collect(),
            back: BACK.iter().map(|(word, name)| (*word, *name, *word == since)).collect(),
            from: from.to_owned(),
            until: until.to_owned(),
            text: text.to_owned(),
            text_max: SEARCH_TEXT_BYTES_MAX,
            metadata: metadata.to_owned(),
            more: [from, until, metadata].iter().any(|field| !field.is_empty()),
            narrowed: narrow.said().iter().any(|(_, value)| !value.is_empty()),
            looked_to: looked_to.map(|run| (shape::thousands(looked), shape::moment(run.accepted_at()))),
            older: list.next.map(|last| narrow.address(Some(last), in_vain)),
            newest: narrow.before.is_some().then(|| narrow.address(None, 0)),
            rows: list.runs.iter().map(|run| Row::of(run, now)).collect(),
        }
    }
}

/// `/dashboard/runs`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Query(narrow): Query<Narrow>,
) -> Shown<Response> {
    let apps = room.ports.registry.apps(Some(&project)).await?;
    let now = room.ports.clock.now();
    let list = room.ports.runs.runs(narrow.filter(&project, now)?).await?;
    Ok(pages::html(StatusCode::OK, &RunsPage::of(&project, &apps, &narrow, &list, now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    const NOW: Timestamp = Timestamp::from_millis(1_769_860_800_000);

    fn project() -> ProjectId {
        "p-11111111".parse().unwrap()
    }

    fn narrow(query: &str) -> Narrow {
        let uri: http::Uri = format!("/dashboard/runs?{query}").parse().unwrap();
        Query::try_from_uri(&uri).unwrap().0
    }

    fn refused(query: &str) -> String {
        match narrow(query).filter(&project(), NOW) {
            Err(Trouble::Invalid(message)) => message,
            _ => panic!("{query} is taken"),
        }
    }

    #[test]
    fn an_address_says_which_runs_are_shown() {
        let query = "state=failed&since=1h&from=2026-01-31T11%3A30&until=2026-01-31T12%3A00%3A00Z&text=Kaput&metadata=order%3D17";
        let filter = narrow(query).filter(&project(), NOW).unwrap();
        assert_eq!(filter.state, Some(RunState::Failed));
        assert_eq!(filter.since, Timestamp::parse_rfc3339("2026-01-31T11:30:00Z"), "the later of the two");
        assert_eq!(filter.until, Some(NOW));
        assert_eq!(filter.search, Search::new(Some("kaput"), ["order=17"]).unwrap());
        assert_eq!(narrow(query).address(None, 0), format!("/dashboard/runs?{query}"));
        let empty = narrow("app=&state=&since=&from=&until=&text=+&metadata=");
        let filter = empty.filter(&project(), NOW).unwrap();
        assert!(filter.search.is_empty() && filter.since.is_none() && filter.until.is_none());
        assert_eq!(empty.address(None, 0), "/dashboard/runs?");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert_eq!(
            refused("state=done"),
            "`done` is no state of runs; there are queued, running, succeeded, failed, cancelled, expired."
        );
        assert!(refused("before=yesterday").contains("`before` is no id of a run"));
        assert!(refused("since=yesterday").contains("`yesterday` is no time: write `90m`"));
        assert!(refused("metadata=order").contains("`order=17`"));
        assert!(matches!(narrow("app=No%20body").filter(&project(), NOW), Err(Trouble::Unknown("app"))));
    }

    #[test]
    fn a_search_that_stopped_says_how_far_it_looked_and_goes_on() {
        let run = sample::failed();
        let next = Some(RunId::lowest(Timestamp::from_millis(1_000)));
        let list = RunList { runs: vec![run], next, looked: 1_240_000 };
        let narrow = narrow("text=%3Cscript%3Ealert(1)");
        let html = RunsPage::of(&project(), &[], &narrow, &list, NOW).render().unwrap();
        assert!(html.contains("Looked at 1,240,000 runs, back to 1970-01-01 00:00:01 UTC"), "{html}");
        assert!(html.contains("&#38;before=00000000-03e8-0000-0000-000000000000\""), "{html}");
        assert!(!html.contains("<script>alert") && !html.contains("http-equiv"), "{html}");
        let none = RunList { next, looked: 10_000, ..RunList::default() };
        let html = RunsPage::of(&project(), &[], &narrow, &none, NOW).render().unwrap();
        assert!(html.contains("None of the 10,000 runs that were looked at"), "{html}");
        let on = "before=00000000-03e8-0000-0000-000000000000&#38;looked=10000\"";
        assert!(html.contains("<meta http-equiv=\"refresh\" content=\"0; url=/dashboard/runs?"), "{html}");
        assert_eq!(html.matches(on).count(), 2, "it goes on by itself, and by a link: {html}");
        let narrow = Narrow { looked: Some(1_990_000), ..narrow };
        let html = RunsPage::of(&project(), &[], &narrow, &none, NOW).render().unwrap();
        assert!(html.contains("None of the 2,000,000 runs"), "those of the pages before count: {html}");
        let html = RunsPage::of(&project(), &[], &narrow, &RunList::default(), NOW).render().unwrap();
        assert!(html.contains("No run fits"), "{html}");
    }
}
