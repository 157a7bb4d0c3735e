//! How long the dashboard's pages take beside very many runs.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use hyper::{Request, StatusCode};

use crate::Sizes;
use crate::load::Connection;
use crate::report::{Report, number};
use crate::scale::Grown;
use crate::stage::Stage;

const OURS: &str = "postback";
const PIECE: &str = "pages";

/// Each page over one connection, one after the other, as somebody looks at them who is signed in.
pub(crate) async fn measure(report: &mut Report, sizes: &Sizes, binary: &Path) -> anyhow::Result<()> {
    let finished = sizes.finished[1];
    let Some(home) = Grown::fill(report, PIECE, binary, finished).await? else { return Ok(()) };
    let stage = Stage::on_deployed(home);
    let address = stage.home.url().trim_start_matches("http://").to_owned();
    let cookie = sign_in(&stage, &address).await?;
    let mut connection = Connection::open(&address, &[(COOKIE, cookie.parse()?)]).await?;

    let list = text(&mut connection, "/dashboard/runs").await?;
    let run = between(&list, "href=\"/dashboard/runs/", "\"").context("the list shows no run")?;
    // From a page to the next, and from there to one in the middle of all runs.
    let older = between(&list, "href=\"/dashboard/runs?before=", "\"").context("the list has one page")?;
    let pages = [
        "/dashboard".to_owned(),
        "/dashboard?span=7d".to_owned(),
        "/dashboard/apps".to_owned(),
        "/dashboard/apps/bench".to_owned(),
        "/dashboard/runs".to_owned(),
        "/dashboard/runs?app=bench&state=succeeded".to_owned(),
        "/dashboard/runs?state=failed".to_owned(),
        format!("/dashboard/runs?before={older}"),
        format!("/dashboard/runs/{run}"),
        "/dashboard/deliveries".to_owned(),
        "/dashboard/deliveries?state=exhausted".to_owned(),
        "/dashboard/endpoints".to_owned(),
        "/dashboard/inboxes".to_owned(),
        "/dashboard/keys".to_owned(),
        "/dashboard/api".to_owned(),
    ];
    for page in &pages {
        let mut latencies = Vec::new();
        // The first one fills the caches of all that follow, and is told apart.
        let began = Instant::now();
        text(&mut connection, page).await?;
        let first = began.elapsed().as_secs_f64() * 1e3;
        for _ in 0..sizes.page_views {
            let began = Instant::now();
            text(&mut connection, page).await?;
            latencies.push(began.elapsed());
        }
        let name = page.replace(run, "{run}").replace(older, "{run}");
        let what = format!("{} finished: {name}", number(finished as f64));
        report.add(PIECE, OURS, &format!("{what} first"), "ms", first);
        report.add_latencies(PIECE, OURS, &what, &latencies);
    }
    Ok(())
}

/// The cookie of a session.
async fn sign_in(stage: &Stage, address: &str) -> anyhow::Result<String> {
    let mut connection = Connection::open(address, &[]).await?;
    let body = format!("key={}", stage.private_key());
    let mut request = Request::post("/dashboard/sign-in").body(Full::new(Bytes::from(body)))?;
    request.headers_mut().insert("sec-fetch-site", "same-origin".parse()?);
    request.headers_mut().insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse()?);
    let answer = connection.ask(request).await?;
    let cookie = answer.headers().get(SET_COOKIE).context("signing in brought no cookie")?.to_str()?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

async fn text(connection: &mut Connection, path: &str) -> anyhow::Result<String> {
    let answer = connection.ask(Request::get(path).body(Full::default())?).await?;
    ensure!(answer.status() == StatusCode::OK, "{path}: {}", answer.status());
    Ok(String::from_utf8(answer.into_body().to_vec())?)
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}
