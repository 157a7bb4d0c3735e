//! How long the dashboard's pages take beside very many runs, and its list of runs when it is narrowed.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full as Whole;
use hyper::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use hyper::{Request, StatusCode};
use queue::Timestamp;
use testkit::server::Home;

use crate::Sizes;
use crate::fill::{DAY_MS, Full, RARE, filled};
use crate::load::Connection;
use crate::report::{Report, number};
use crate::stage::Stage;

const OURS: &str = "postback";
const PIECE: &str = "pages";

/// Data directories with runs of all kinds, filled once and looked at in every round.
#[derive(Default)]
pub(crate) struct Listed {
    homes: Vec<(usize, Home)>,
}

impl Listed {
    /// Each page over one connection, one after the other, as somebody looks at them who is signed in.
    pub(crate) async fn measure(
        &mut self,
        report: &mut Report,
        sizes: &Sizes,
        binary: &Path,
    ) -> anyhow::Result<()> {
        for finished in sizes.listed {
            let home = match self.homes.iter().position(|(size, _)| *size == finished) {
                Some(place) => self.homes.remove(place).1,
                None => {
                    let full = Full { finished, queued: finished / 50, of_all_kinds: true };
                    match filled(report, PIECE, binary, &full).await? {
                        Some(home) => home,
                        None => continue,
                    }
                }
            };
            let stage = Stage::on_deployed(home);
            look(report, sizes, &stage, finished).await?;
            let Stage { home, server, .. } = stage;
            server.kill();
            self.homes.push((finished, home));
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
async fn look(report: &mut Report, sizes: &Sizes, stage: &Stage, finished: usize) -> anyhow::Result<()> {
    let address = stage.home.url().trim_start_matches("http://").to_owned();
    let cookie = sign_in(stage, &address).await?;
    let mut connection = Connection::open(&address, &[(COOKIE, cookie.parse()?)]).await?;
    let mut pages = narrowed(finished);
    if finished == sizes.listed[1] {
        pages.extend(others(&mut connection).await?);
    }
    for (name, path) in &pages {
        let mut latencies = Vec::new();
        // The first one fills the caches of all that follow, and is told apart.
        let began = Instant::now();
        text(&mut connection, path).await?;
        let first = began.elapsed().as_secs_f64() * 1e3;
        for _ in 0..sizes.page_views {
            let began = Instant::now();
            text(&mut connection, path).await?;
            latencies.push(began.elapsed());
        }
        let what = format!("{} finished: {name}", number(finished as f64));
        latencies.sort_unstable();
        let at = |part: usize| latencies[latencies.len() * part / 100].as_secs_f64() * 1e3;
        println!("{what}: first {first:.1} ms, p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
        report.add(PIECE, OURS, &format!("{what} first"), "ms", first);
        report.add_latencies(PIECE, OURS, &what, &latencies);
    }
    Ok(())
}

/// The list of runs narrowed in every way: what is asked for, and the path.
fn narrowed(finished: usize) -> Vec<(String, String)> {
    let now = testkit::wall_clock().as_millis();
    let ago = |days: i64| Timestamp::from_millis(now - days * DAY_MS).to_rfc3339();
    let (three, two) = (ago(3), ago(2));
    let queries = [
        String::new(),
        "app=bench".into(),
        format!("app={RARE}"),
        "state=succeeded".into(),
        "state=failed".into(),
        "state=queued".into(),
        "state=running".into(),
        "state=cancelled".into(),
        format!("app={RARE}&state=failed"),
        "since=1h".into(),
        "since=24h&state=failed".into(),
        format!("from={three}&until={two}"),
        // Every five hundredth run of those that have any, one of all, none.
        "metadata=customer%3Dc-5".into(),
        format!("metadata=order%3D{}", finished / 2 / 5 * 5),
        "metadata=nothing%3D1".into(),
        // Every run, every twentieth, one of all, none.
        "text=trivial".into(),
        "text=no+image".into(),
        format!("text=example%2F{}.jpg", finished / 2 / 20 * 20 + 7),
        "text=no-such-word".into(),
        "state=failed&text=no-such-word".into(),
        format!("app=bench&state=failed&from={three}&until={two}&text=no+image"),
    ];
    let name = |query: &str| match query {
        "" => "runs".to_owned(),
        query => {
            format!("runs?{}", query.replace(&three, "{three days ago}").replace(&two, "{two days ago}"))
        }
    };
    queries.iter().map(|query| (name(query), format!("/dashboard/runs?{query}"))).collect()
}

/// All other pages.
async fn others(connection: &mut Connection) -> anyhow::Result<Vec<(String, String)>> {
    let list = text(connection, "/dashboard/runs?app=bench").await?;
    let run = between(&list, "href=\"/dashboard/runs/", "\"").context("the list shows no run")?;
    // From a page to the next.
    let older = between(&list, "before=", "\"").context("the list has one page")?;
    let endpoints = text(connection, "/dashboard/endpoints").await?;
    let endpoint =
        between(&endpoints, "href=\"/dashboard/endpoints/", "\"").context("no endpoint is listed")?;
    let pages = [
        "/dashboard".to_owned(),
        "/dashboard?span=24h".to_owned(),
        "/dashboard?span=7d".to_owned(),
        "/dashboard/apps".to_owned(),
        "/dashboard/apps/bench".to_owned(),
        "/dashboard/apps/bench/scaling".to_owned(),
        "/dashboard/apps/bench/log".to_owned(),
        "/dashboard/apps/bench/try/trivial".to_owned(),
        format!("/dashboard/runs?before={older}"),
        format!("/dashboard/runs/{run}"),
        "/dashboard/deliveries".to_owned(),
        "/dashboard/deliveries?state=delivered".to_owned(),
        "/dashboard/deliveries?state=exhausted".to_owned(),
        "/dashboard/deliveries?state=pending".to_owned(),
        "/dashboard/deliveries?receiver=http%3A%2F%2F127.0.0.1%3A9".to_owned(),
        "/dashboard/endpoints".to_owned(),
        format!("/dashboard/endpoints/{endpoint}"),
        "/dashboard/inboxes".to_owned(),
        "/dashboard/keys".to_owned(),
        "/dashboard/settings".to_owned(),
        "/dashboard/api".to_owned(),
        "/dashboard/api/get-v2-projects-project-runs".to_owned(),
    ];
    let name = |page: &String| {
        let page = page.replace(run, "{run}").replace(older, "{run}").replace(endpoint, "{endpoint}");
        page.trim_start_matches("/dashboard").trim_start_matches('/').to_owned()
    };
    let named = pages.iter().map(|page| {
        let name = name(page);
        let name = if name.is_empty() || name.starts_with('?') { format!("overview{name}") } else { name };
        (name, page.clone())
    });
    Ok(named.collect())
}

/// The cookie of a session.
async fn sign_in(stage: &Stage, address: &str) -> anyhow::Result<String> {
    let mut connection = Connection::open(address, &[]).await?;
    let body = format!("key={}", stage.private_key());
    let mut request = Request::post("/dashboard/sign-in").body(Whole::new(Bytes::from(body)))?;
    request.headers_mut().insert("sec-fetch-site", "same-origin".parse()?);
    request.headers_mut().insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse()?);
    let answer = connection.ask(request).await?;
    let cookie = answer.headers().get(SET_COOKIE).context("signing in brought no cookie")?.to_str()?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

async fn text(connection: &mut Connection, path: &str) -> anyhow::Result<String> {
    let answer = connection.ask(Request::get(path).body(Whole::default())?).await?;
    ensure!(answer.status() == StatusCode::OK, "{path}: {}", answer.status());
    Ok(String::from_utf8(answer.into_body().to_vec())?)
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}
