//! Every page, by day, by night and on a phone: no serious fault for people who see, hear or move otherwise, nothing wider than
//! a phone, nothing heavier than it may be, no complaint of the browser.
//!
//! `cargo xtask screenshots` runs it to keep a picture of each.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::driver::{Browser, Look};
use super::routes;
use super::sample::{Scene, Visitor};

/// A page with all that it loads.
const PAGE_BYTES_MAX: u64 = 150_000;
/// Where the pictures go, when they are asked for.
const PICTURES: &str = "POSTBACK_SCREENSHOTS";

const WEIGHT: &str = r#"
const sizes = ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind)).map((entry) => entry.decodedBodySize);
return sizes.reduce((sum, size) => sum + size, 0);
"#;

/// The findings that keep somebody out.
const SERIOUS: &str = r#"
axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => {
  const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  done(grave.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`)}`));
}, (error) => done([`axe: ${error}`]));
"#;

/// axe-core, which judges pages for people who see, hear or move otherwise.
fn axe() -> Option<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/test-node/node_modules/axe-core/axe.min.js");
    let source = std::fs::read_to_string(file).ok();
    if source.is_none() {
        assert!(std::env::var_os("CI").is_none(), "axe-core is missing; `script/test` installs it");
        println!("SKIP: axe-core is missing; `script/test` installs it where it can");
    }
    source
}

/// The pages of a scene: a name and a path each.
async fn pages(scene: &Scene) -> Vec<(String, String)> {
    let visitor = Visitor::sign_in(&scene.stage).await;
    let mut pages = vec![("not-here".to_owned(), "/dashboard/runs/nothing".to_owned())];
    for route in routes::of_pages().iter().filter(|route| route.takes("GET")) {
        let missing = |name: &str| panic!("sample.rs has nothing for {{{name}}} of {}", route.path);
        let path = route.at(|name| {
            if name == "name" { Some("none".into()) } else { scene.value(name).or_else(|| missing(name)) }
        });
        let path = scene.opened(path.unwrap());
        if visitor.is_page(&path).await {
            let words = route
                .path
                .split('/')
                .filter(|part| !part.is_empty())
                .map(|part| part.trim_matches(['{', '}']));
            pages.push((words.collect::<Vec<_>>().join("-"), path));
        }
    }
    assert!(pages.len() >= 11, "{pages:?}");
    pages
}

#[tokio::test]
async fn every_page_can_be_used_by_everybody_and_loads_at_once() {
    let Some(axe) = axe() else { return };
    let scene = Scene::set().await;
    let Some(browser) = Browser::open(&scene.stage.home.url()).await else { return };
    let folder = std::env::var_os(PICTURES).map(PathBuf::from);
    if let Some(folder) = &folder {
        std::fs::create_dir_all(folder).unwrap();
    }
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": axe})).await;
    browser.sign_in(&scene.stage.keys.private_key).await;
    browser.until_at("/dashboard").await;

    let mut findings = Vec::new();
    let pages = pages(&scene).await;
    for (name, path) in &pages {
        for look in Look::ALL {
            browser.look(look).await;
            browser.goto(path).await;
            browser.until("document.readyState === 'complete'").await;
            let which = format!("{name}, {}", look.as_str());
            let serious = browser.run_async(SERIOUS).await;
            findings.extend(serious.as_array().unwrap().iter().map(|found| format!("{which}: {found}")));
            let weight = browser.run(WEIGHT).await.as_u64().unwrap();
            println!("{which}: {weight} bytes");
            if weight > PAGE_BYTES_MAX {
                findings.push(format!("{which}: it weighs {weight} bytes"));
            }
            // A phone would shrink the whole page, so its own measure says nothing.
            let wide = browser.run("return document.documentElement.scrollWidth").await.as_u64().unwrap();
            if wide > look.width() {
                findings.push(format!("{which}: it is {wide} pixels wide, the screen {}", look.width()));
            }
            findings.extend(browser.complaints().await.into_iter().map(|said| format!("{which}: {said}")));
            if let Some(folder) = &folder {
                let picture = STANDARD.decode(browser.picture().await).unwrap();
                std::fs::write(folder.join(format!("{name}-{}.png", look.as_str())), picture).unwrap();
            }
        }
    }
    assert!(
        findings.is_empty(),
        "{} findings on {} pages:\n{}",
        findings.len(),
        pages.len(),
        findings.join("\n")
    );
    assert_ne!(browser.run("return typeof axe").await, Value::from("undefined"));
}
