//! Logs of apps and builds on pages of their own.

use serde_json::json as object;

use super::Visitor;
use crate::support::{Stage, json};

#[tokio::test]
async fn the_log_of_an_app_is_searched_and_a_build_has_its_own() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    for line in ["the first <script>alert(1)</script>", "the SECOND line", "something else"] {
        json(stage.call(&stage.v4("basic/speak"), object!({ "line": line }).to_string()).await).await;
    }
    let path = "/dashboard/apps/basic/log";
    let all = visitor.until(path, &["the first", "SECOND", "something else", "data-follow=\"2\""]).await;
    assert!(!all.contains("<script>alert"), "{all}");
    let found = visitor.page(&format!("{path}?search=second")).await;
    assert!(found.contains("the SECOND line") && !found.contains("something else"), "{found}");
    assert!(visitor.page(&format!("{path}?search=nowhere")).await.contains("No line says that"));
    assert!(!visitor.page(&format!("{path}?stream=stderr")).await.contains("the SECOND line"));

    let app = visitor.page("/dashboard/apps/basic").await;
    let build = app.split("href=\"/dashboard/apps/basic/builds/").nth(1).unwrap().split('"').next().unwrap();
    let page = visitor.page(&format!("/dashboard/apps/basic/builds/{build}")).await;
    assert!(page.contains(">live</span>") && page.contains("data-follow=\"0\""), "{page}");
    assert!(page.contains("class=\"log") && !page.contains("something else"), "{page}");
    assert_eq!(visitor.open("/dashboard/apps/basic/builds/b-0000000000000000").await.status(), 404);
}
