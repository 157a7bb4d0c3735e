//! The log of an app, and of one of its builds: searched, and followed while it grows.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use queue::app::AppConfig;
use queue::limits::SHOWN_LOG_LINES_SEARCHED_MAX;
use queue::log::{LogQuery, LogScope, StoredLine, Stream};
use queue::registry::Build;
use queue::{AppId, BuildId, ProjectId};
use serde::Deserialize;

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::log::Line;
use crate::session::SignedIn;
use crate::shape;

/// Lines on a page: the newest that are wanted.
const PAGE_LINES: usize = 1_000;
const STREAMS: [Stream; 3] = [Stream::Stdout, Stream::Stderr, Stream::System];

/// Which lines are wanted.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Narrow {
    search: String,
    stream: String,
}

impl Narrow {
    fn is_asked(&self) -> bool {
        !self.search.trim().is_empty() || !self.stream.is_empty()
    }

    fn check(&self) -> Shown<()> {
        if self.stream.is_empty() || STREAMS.iter().any(|known| known.as_str() == self.stream) {
            return Ok(());
        }
        Err(Trouble::no_such("stream of a log", &self.stream, &STREAMS.map(Stream::as_str)))
    }

    fn wants(&self, StoredLine { line, .. }: &StoredLine) -> bool {
        (self.stream.is_empty() || self.stream == line.stream.as_str())
            && line.text.to_lowercase().contains(&self.search.trim().to_lowercase())
    }
}

/// A build, above its log.
struct BuildHead {
    id: String,
    status: &'static str,
    live: bool,
    made: String,
    facts: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    frame: Frame,
    app: String,
    build: Option<BuildHead>,
    search: String,
    streams: Vec<(&'static str, bool)>,
    is_narrowed: bool,
    lines: Vec<Line>,
    /// Of how many lines these are the newest, when not of all.
    looked_at: Option<usize>,
    /// Seconds after which the page looks for more by itself.
    follow_every: u8,
}

impl LogPage {
    fn of(project: &ProjectId, app: &AppId, narrow: Narrow, lines: &[StoredLine]) -> Self {
        let mut wanted: Vec<_> =
            lines.iter().rev().filter(|line| narrow.wants(line)).take(PAGE_LINES).collect();
        wanted.reverse();
        let cut = wanted.len() == PAGE_LINES || lines.len() == most(&narrow);
        Self {
            frame: Frame::new(Some(project.to_string())),
            app: app.name().to_string(),
            build: None,
            is_narrowed: narrow.is_asked(),
            streams: STREAMS.iter().map(|one| (one.as_str(), one.as_str() == narrow.stream)).collect(),
            search: narrow.search,
            lines: wanted.into_iter().map(Line::of).collect(),
            looked_at: cut.then_some(lines.len()),
            follow_every: 2,
        }
    }
}

/// Lines that are looked at.
fn most(narrow: &Narrow) -> usize {
    if narrow.is_asked() { SHOWN_LOG_LINES_SEARCHED_MAX } else { PAGE_LINES }
}

impl Shared {
    async fn newest_lines(&self, scope: LogScope, narrow: &Narrow) -> Shown<Vec<StoredLine>> {
        narrow.check()?;
        let query = LogQuery { scope, after: None, since: None, limit: most(narrow), newest: true };
        Ok(self.ports.logs.read(query).await?)
    }
}

/// `/dashboard/apps/{app}/log`
pub(crate) async fn of_app(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(narrow): Query<Narrow>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    let lines = room.newest_lines(LogScope::App(app.id.clone()), &narrow).await?;
    Ok(pages::html(StatusCode::OK, &LogPage::of(&project, &app.id, narrow, &lines)))
}

/// `/dashboard/apps/{app}/builds/{build}`
pub(crate) async fn of_build(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path((name, build)): Path<(String, String)>,
    Query(narrow): Query<Narrow>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    let Ok(id) = build.parse::<BuildId>() else { return Err(Trouble::Unknown("build")) };
    let build = room.ports.registry.build(&id).await?.filter(|build| build.app == app.id);
    let build = build.ok_or(Trouble::Unknown("build"))?;
    let lines = room.newest_lines(LogScope::Build(id), &narrow).await?;
    let mut page = LogPage::of(&project, &app.id, narrow, &lines);
    page.follow_every = if build.status.is_final() { 0 } else { 2 };
    page.build = Some(BuildHead {
        id: build.id.to_string(),
        status: build.status.as_str(),
        live: app.live.as_ref().is_some_and(|live| live.id == build.id),
        made: shape::relative(build.created_at, room.ports.clock.now()),
        facts: facts(&build),
    });
    Ok(pages::html(StatusCode::OK, &page))
}

/// What the build was made with, where it says so.
fn facts(build: &Build) -> Vec<(&'static str, String)> {
    let AppConfig { python_version, compute, pip, apt, conda, .. } = &build.config;
    let rows = [
        ("Python", python_version.clone().unwrap_or_default()),
        ("Hardware", compute.join(", ")),
        ("Python packages", pip.join(", ")),
        ("Debian packages", apt.join(", ")),
        ("Conda packages", conda.join(", ")),
    ];
    let said = rows.into_iter().filter(|(_, is)| !is.is_empty());
    said.map(|(what, is)| (what, pages::inert::visible(&is).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use queue::Timestamp;
    use queue::log::LogLine;

    use super::*;

    fn line(id: i64, stream: Stream, text: &str) -> StoredLine {
        let line = LogLine {
            at: Timestamp::from_millis(id),
            app: "p-11111111-demo".parse().unwrap(),
            build: None,
            run: None,
            replica: None,
            stream,
            text: text.into(),
        };
        StoredLine { id, line }
    }

    fn page(narrow: Narrow, lines: &[StoredLine]) -> LogPage {
        LogPage::of(&"p-11111111".parse().unwrap(), &"p-11111111-demo".parse().unwrap(), narrow, lines)
    }

    #[test]
    fn lines_are_found_whatever_their_case_and_shown_as_text() {
        let lines = [
            line(1, Stream::Stdout, "Loading <b>weights"),
            line(2, Stream::Stderr, "loading failed\u{1b}[31m"),
            line(3, Stream::Stdout, "ready"),
        ];
        let search = Narrow { search: " LOADING ".into(), ..Narrow::default() };
        let html = page(search, &lines).render().unwrap();
        assert!(
            html.contains("Loading &#60;b&#62;weights") && html.contains("loading failed␛[31m"),
            "{html}"
        );
        assert!(!html.contains("ready</span>") && html.contains("value=\" LOADING \""), "{html}");
        let errors = page(Narrow { stream: "stderr".into(), ..Narrow::default() }, &lines);
        assert_eq!(errors.lines.len(), 1);
        for stream in ["", "stdout", "stderr", "system"] {
            assert!(Narrow { stream: stream.into(), ..Narrow::default() }.check().is_ok(), "{stream}");
        }
        let unknown = Narrow { stream: "stdin".into(), ..Narrow::default() }.check();
        let Err(Trouble::Invalid(message)) = unknown else { panic!("it is taken") };
        assert_eq!(message, "`stdin` is no stream of a log; there are stdout, stderr, system.");
    }

    #[test]
    fn of_many_lines_the_newest_are_shown_and_it_says_so() {
        let many: Vec<_> = (0..PAGE_LINES as i64).map(|id| line(id, Stream::Stdout, "x")).collect();
        assert_eq!(page(Narrow::default(), &many[1..]).looked_at, None);
        assert_eq!(page(Narrow::default(), &many).looked_at, Some(PAGE_LINES));
    }
}
