//! The API's own page: what its forms send, what they are answered, and who may send them.

use reqwest::Method;
use serde_json::{Value, json as object};

use super::try_it::{answer, between, unescaped};
use super::{Visitor, location};
use crate::support::{Stage, json};

/// Where the form of an operation leads, from the page of all.
fn form<'p>(page: &'p str, method: &str, path: &str) -> &'p str {
    let id = format!("{method}{path}").to_lowercase().replace(['{', '}'], "").replace('/', "-");
    let place = page.find(&format!("action=\"/dashboard/api/{id}\""));
    between(&page[place.unwrap_or_else(|| panic!("{id} has no form: {page}"))..], "action=\"", "\"")
}

#[tokio::test]
async fn an_operation_is_sent_from_its_form_and_answers_as_the_api_does() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let all = visitor.page("/dashboard/api").await;
    assert!(!all.contains(&stage.keys.private_key) && all.contains("<option value=\"basic\">"), "{all}");

    let leads: Vec<_> =
        all.split("action=\"/dashboard/api/").skip(1).map(|rest| rest.split('"').next()).collect();
    let told_apart: std::collections::HashSet<_> = leads.iter().collect();
    assert!(leads.len() > 50 && told_apart.len() == leads.len(), "{leads:?}");

    // A call, with a header and what no script may make of its answer.
    let call = form(&all, "POST", "/v4/{project}/{app}/{function}");
    let hostile = "</pre><script>alert(1)</script>\u{202e}";
    let body = format!("{{\r\n  \"value\": {{\"n\": 12345678901234567890123, \"t\": \"{hostile}\"}}\r\n}}");
    let written = [
        ("path.app", "basic"),
        ("path.function", "echo"),
        ("query.async", ""),
        ("header.X-Metadata", "{\"order\": 17}"),
        ("body", body.as_str()),
    ];
    let page = visitor.press(call, &written).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(!page.contains("<script>alert") && !answer(&page).contains('\u{202e}'), "{page}");
    assert!(page.contains("200 OK") && answer(&page).contains("\"n\": 12345678901234567890123"), "{page}");
    assert!(page.contains("content-type: application/json"), "{page}");
    let run = between(&page, "<a href=\"/dashboard/runs/", "\"");
    let view =
        json(stage.request(Method::GET, &stage.control(&format!("runs/{run}"))).send().await.unwrap()).await;
    assert_eq!(view["metadata"]["order"], 17);
    // The line that is shown does the same.
    let curl = unescaped(between(&page, "tabindex=\"0\">curl", "</pre>"));
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &format!("curl{curl}")]).env("POSTBACK_API_KEY", &stage.keys.public_key);
    let output = shell.kill_on_drop(true).output().await.unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["result"]["value"]["t"], hostile, "{curl}");

    // What is read, what is missing, what is wrong: the very words that a program gets.
    let one = form(&all, "GET", "/v2/projects/{project}/runs/{run}");
    let shown = visitor.press(one, &[("path.run", run)]).await.text().await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&answer(&shown)).unwrap()["id"], run);
    let missing = visitor.press(one, &[("path.run", " ")]).await;
    assert_eq!(missing.status(), 422);
    let missing = missing.text().await.unwrap();
    assert!(missing.contains("The path needs it") && !missing.contains("aria-label=\"Answer\""), "{missing}");
    let list = form(&all, "GET", "/v2/projects/{project}/runs");
    let several = [("query.metadata", "order=17\r\nother=1"), ("query.limit", "5")];
    assert!(answer(&visitor.press(list, &several).await.text().await.unwrap()).contains("\"items\": []"));
    let wrong = visitor.press(list, &[("query.limit", "many")]).await.text().await.unwrap();
    assert!(
        wrong.contains("data-state=\"failed\">400 ") && answer(&wrong).contains("invalid_query"),
        "{wrong}"
    );

    let archive = "/dashboard/api/put-uploads-build";
    assert!(visitor.page(archive).await.contains("It takes a file"));
    assert_eq!(visitor.press(archive, &[]).await.status(), 409);
    assert_eq!(visitor.press("/dashboard/api/get-nothing", &[]).await.status(), 404);
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_asked_for_twice() {
    let stage = Stage::empty();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let all = visitor.page("/dashboard/api").await;
    let create = form(&all, "POST", "/v2/projects/{project}/inboxes");
    let mut made = Vec::new();
    for _ in 0..2 {
        let page = visitor.press(create, &[("body", "{\"name\": \"mine\"}")]).await.text().await.unwrap();
        let inbox: Value = serde_json::from_str(&answer(&page)).unwrap();
        made.push(inbox["id"].as_str().unwrap().to_owned());
    }
    let there = async |id: &str| {
        let path = stage.control(&format!("inboxes/{id}"));
        stage.request(Method::GET, &path).send().await.unwrap().status() == 200
    };
    let delete = form(&all, "DELETE", "/v2/projects/{project}/inboxes/{inbox}");
    let asked = visitor.press(delete, &[("path.inbox", &made[0])]).await;
    assert_eq!(asked.status(), 428);
    let asked = asked.text().await.unwrap();
    assert!(asked.contains("cannot be taken back") && there(&made[0]).await, "{asked}");
    let sure = between(&asked, "name=\"sure\" value=\"", "\"");
    // One agreement is not for another.
    for (id, sure) in [(&made[1], sure), (&made[0], ""), (&made[0], "true")] {
        let pressed = visitor.press(delete, &[("path.inbox", id), ("sure", sure)]).await;
        assert_eq!(pressed.status(), 428, "{sure}");
    }
    assert!(there(&made[0]).await && there(&made[1]).await);
    let done = visitor.press(delete, &[("path.inbox", &made[0]), ("sure", sure)]).await.text().await.unwrap();
    assert!(done.contains("200 OK") && !there(&made[0]).await && there(&made[1]).await, "{done}");
}

#[tokio::test]
async fn nobody_sends_but_who_is_signed_in_from_a_page_of_ours() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let create = "/dashboard/api/post-v2-projects-project-inboxes";
    for foreign in
        [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("x-nothing", "at all")]
    {
        let request = visitor.request(Method::POST, create).header(foreign.0, foreign.1);
        assert_eq!(request.send().await.unwrap().status(), 403, "{foreign:?}");
    }
    // Whoever looks at a run by a link has no session, and no key makes one up.
    let called = json(stage.call(&stage.v4("basic/echo"), object!({"value": 1}).to_string()).await).await;
    let run = called["run_id"].as_str().unwrap();
    let share = visitor.press(&format!("/dashboard/runs/{run}/share"), &[("hours", "1")]).await;
    let share = share.text().await.unwrap();
    let link = format!("/dashboard/shared/{}", between(&share, "/dashboard/shared/", "<"));
    let reader = Visitor::of(&stage);
    assert!(!reader.page(&link).await.contains("/dashboard/api"));
    let turned_away = reader.press(create, &[]).await;
    assert_eq!((turned_away.status().as_u16(), location(&turned_away)), (303, "/dashboard/sign-in"));
    let with_key = reader.request(Method::POST, create).header("origin", stage.home.url());
    let with_key = with_key.header("authorization", format!("Bearer {}", stage.keys.private_key));
    assert_eq!(with_key.send().await.unwrap().status(), 303);

    // What a page sends is of its session's project, whatever it says.
    let other = [("path.project", "p-00000000"), ("path.app", "basic")];
    let page =
        visitor.press("/dashboard/api/get-v2-projects-project-apps-app", &other).await.text().await.unwrap();
    assert!(page.contains("200 OK"), "{page}");

    let inboxes = json(stage.request(Method::GET, &stage.control("inboxes")).send().await.unwrap()).await;
    assert_eq!(inboxes["items"], object!([]), "somebody made one");
}
