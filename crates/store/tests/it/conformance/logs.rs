//! What user code and builds print.

use std::time::Duration;

use queue::RunId;
use queue::log::{LogLine, LogQuery, LogScope, Stream};

use crate::world::{Engine, World, app};

fn line(world: &World<impl Engine>, run: Option<RunId>, text: &str) -> LogLine {
    world.pass(Duration::from_millis(1));
    LogLine {
        at: world.now(),
        app: app("a"),
        build: None,
        run,
        replica: Some("r-01234567".parse().unwrap()),
        stream: Stream::Stderr,
        text: text.to_owned(),
    }
}

fn all(scope: LogScope) -> LogQuery {
    LogQuery { scope, after: None, since: None, limit: 1000, newest: false }
}

async fn texts(world: &World<impl Engine>, query: LogQuery) -> Vec<String> {
    world.store.read(query).await.unwrap().into_iter().map(|stored| stored.line.text).collect()
}

pub(crate) async fn what_was_appended_is_read(world: World<impl Engine>) {
    let run = world.run_id();
    for number in 0..50 {
        let lines = vec![line(&world, Some(run), &format!("{number}")), line(&world, Some(run), "ü\u{0}\n")];
        world.store.append(lines.clone());
        let read = world.store.read(all(LogScope::Run(run))).await.unwrap();
        assert_eq!(read.len(), 2 * (number + 1));
        assert_eq!(read[2 * number + 1].line, lines[1]);
    }
}

pub(crate) async fn lines_are_found_by_run_build_and_app(world: World<impl Engine>) {
    let (run, other) = (world.run_id(), world.run_id());
    let build = "b-0123456789abcdef".parse().unwrap();
    world.store.append(vec![
        line(&world, Some(run), "mine"),
        line(&world, Some(other), "theirs"),
        line(&world, None, "between runs"),
        LogLine { build: Some(build), replica: None, ..line(&world, None, "building") },
        LogLine { app: app("b"), ..line(&world, None, "elsewhere") },
    ]);
    assert_eq!(texts(&world, all(LogScope::Run(run))).await, ["mine"]);
    assert_eq!(
        texts(&world, all(LogScope::Build("b-0123456789abcdef".parse().unwrap()))).await,
        ["building"]
    );
    assert_eq!(texts(&world, all(LogScope::App(app("a")))).await, ["mine", "theirs", "between runs"]);
}

pub(crate) async fn lines_are_read_page_by_page(world: World<impl Engine>) {
    let lines: Vec<_> = ["1", "2", "3", "4"].into_iter().map(|text| line(&world, None, text)).collect();
    let since = Some(lines[1].at);
    world.store.append(lines);
    let query = || all(LogScope::App(app("a")));
    let first = world.store.read(LogQuery { limit: 3, ..query() }).await.unwrap();
    let after = Some(first[2].id);
    assert_eq!(texts(&world, LogQuery { after, ..query() }).await, ["4"]);
    assert_eq!(texts(&world, LogQuery { since, ..query() }).await, ["3", "4"]);
}

pub(crate) async fn the_newest_lines_can_be_asked_for(world: World<impl Engine>) {
    world.store.append(["1", "2", "3", "4"].into_iter().map(|text| line(&world, None, text)).collect());
    let newest = LogQuery { limit: 2, newest: true, ..all(LogScope::App(app("a"))) };
    assert_eq!(texts(&world, newest).await, ["3", "4"]);
}
