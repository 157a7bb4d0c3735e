//! A run and an inbox that are shown by a link: to whoever has it, without a key, until it ends.

use reqwest::Method;
use serde_json::json as object;
use testkit::recorder::Recorder;

use super::Visitor;
use crate::support::{PATIENCE, Stage, json};

#[tokio::test]
async fn a_run_is_shown_by_a_link_without_buttons_until_the_key_is_replaced() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let mut owner = Visitor::of(&stage);
    owner.sign_in(&stage.keys.private_key.clone()).await;
    let request =
        object!({"value": "shown", "webhook_endpoint": recorder.url("hush?token=hush")}).to_string();
    let answer = json(stage.call(&stage.v4("basic/echo"), request).await).await;
    let run = answer["run_id"].as_str().unwrap();
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 1).await);
    let path = format!("/dashboard/runs/{run}");
    owner.until(&path, &["webhook delivered with 200"]).await;

    let share = format!("{path}/share");
    // What no handler can read is answered by a page as well.
    for (answer, status, title) in [
        (owner.press(&share, &[("hours", "many")]).await, 422, "The form cannot be read"),
        (owner.open("/dashboard/runs?since=1h&since=2h").await, 400, "This address cannot be read"),
    ] {
        assert_eq!(answer.status(), status);
        let page = answer.text().await.unwrap();
        assert!(page.contains(&format!("<h1>{title}</h1>")) && page.contains("Nothing was done"), "{page}");
    }
    for hours in ["0", "169", "99999999999"] {
        assert_eq!(owner.press(&share, &[("hours", hours)]).await.status(), 422, "{hours}");
    }
    let page = owner.press(&share, &[("hours", "168")]).await.text().await.unwrap();
    let link = page.split("/dashboard/shared/").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
    let link = format!("/dashboard/shared/{link}");

    // Somebody without a key.
    let stranger = Visitor::of(&stage);
    let shown = stranger.page(&link).await;
    for said in [run, "accepted", "webhook delivered with 200", "shown", "until 2"] {
        assert!(shown.contains(said), "`{said}` is missing: {shown}");
    }
    for hidden in ["<form", "<button", "hush", &stage.keys.project_id, "/dashboard/runs"] {
        assert!(!shown.contains(hidden), "`{hidden}` is shown: {shown}");
    }
    // It opens nothing else, and nothing else opens it.
    assert_eq!(stranger.open(&path).await.status(), 303);
    assert_eq!(stranger.press(&share, &[("hours", "1")]).await.status(), 303);
    let last = if link.ends_with('A') { "B" } else { "A" };
    for wrong in
        [format!("{}{last}", &link[..link.len() - 1]), format!("{link}A"), "/dashboard/shared/AAAA".into()]
    {
        assert_eq!(stranger.open(&wrong).await.status(), 404, "{wrong}");
    }

    let rotated = stage.home.command().args(["keys", "rotate", "--only", "private-key"]).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let ended = stranger.open(&link).await;
    assert_eq!(ended.status(), 404);
    assert!(ended.text().await.unwrap().contains("Ask whoever sent it"));
}

#[tokio::test]
async fn an_inbox_is_shown_by_a_link_that_ends_until_its_address_is_replaced() {
    let stage = Stage::empty();
    let made =
        stage.request(Method::POST, &stage.control("inboxes")).json(&object!({})).send().await.unwrap();
    let made = json(made).await;
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        stage.bare(Method::POST, &format!("/inbox/{id}")).body("shown").send().await.unwrap().status(),
        200
    );
    let mut owner = Visitor::of(&stage);
    owner.sign_in(&stage.keys.private_key.clone()).await;
    let settings = format!("/dashboard/inboxes/{id}");
    let links = format!("{settings}/links");
    assert!(owner.page(&settings).await.contains(&format!("action=\"{links}\"")));
    for hours in ["0", "169", "99999999999"] {
        assert_eq!(owner.press(&links, &[("hours", hours)]).await.status(), 422, "{hours}");
    }
    let page = owner.press(&links, &[("hours", "168")]).await.text().await.unwrap();
    assert!(page.contains(" UTC") && !page.contains(made["pageUrl"].as_str().unwrap()), "{page}");
    let link = page.split(&format!("/inboxes/{id}?token=")).nth(1).and_then(|rest| rest.split('<').next());
    let link = format!("/inboxes/{id}?token={}", link.unwrap());

    let stranger = Visitor::of(&stage);
    let shown = stranger.page(&link).await;
    assert!(shown.contains("shown") && shown.contains("Shown to you by a link until"), "{shown}");
    let (_, own) = made["pageUrl"].as_str().unwrap().split_once("token=").unwrap();
    for hidden in [own, &stage.keys.project_id, "/dashboard"] {
        assert!(!shown.contains(hidden), "`{hidden}` is shown: {shown}");
    }
    assert_eq!(stranger.press(&links, &[("hours", "1")]).await.status(), 303);
    assert_eq!(stranger.open(&format!("{link}A")).await.status(), 404);

    // A link ends no later than its inbox, and the page says when to the second.
    let ending = owner.press(&settings, &[("name", ""), ("ends", "1")]).await;
    assert_eq!(ending.status(), 303);
    let shown = owner.page(&settings).await;
    let at = shown.split(", at ").nth(1).and_then(|rest| rest.split(" UTC").next()).unwrap().to_owned();
    let page = owner.press(&links, &[("hours", "168")]).await.text().await.unwrap();
    assert!(page.contains(&format!("until {at} UTC, when the inbox ends")), "{at}: {page}");

    assert_eq!(owner.press(&format!("{settings}/share"), &[]).await.status(), 303);
    assert_eq!(stranger.open(&link).await.status(), 404);
}
