//! What people meet.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use queue::signature::SigningKey;

use crate::fake::{self, ID, Memory, NOON, SECRET, TOKEN};
use crate::{get, page, post, record, send, text};

fn room() -> Router {
    fake::room(&Memory::new(), "https://postback.example").router()
}

/// Compares a page with its snapshot; the hashes of assets change with their content.
fn assert_page(name: &str, page: &str) {
    insta::with_settings!({ filters => vec![(r"-[0-9a-f]{16}\.(css|js|svg)", "-[hash].$1")] }, {
        insta::assert_snapshot!(name, page);
    });
}

#[tokio::test]
async fn an_empty_inbox_says_what_to_send() {
    assert_page("an_empty_inbox_says_what_to_send", &text(send(&room(), get(&page(""))).await).await);
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_that_of_no_inbox() {
    let router = room();
    for path in [
        page("/requests/abc"),
        page("/requests/1/body").replace("/1/", "/one/"),
        format!("{}&before=x", page("")),
        "/inboxes/%ff".into(),
    ] {
        let shown = send(&router, get(&path)).await;
        assert_eq!(shown.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(text(shown).await.contains("<h1>No inbox here</h1>"), "{path}");
    }
}

#[tokio::test]
async fn a_signed_webhook_is_shown_with_all_its_parts() {
    let router = room();
    let body = r#"{"run_id":"1","result":{"big":123456789012345678901234567890,"list":[1, 2]}}"#;
    let mut request = post(body);
    let signature = SigningKey::parse(SECRET).unwrap().sign("msg_1", NOON, body.as_bytes());
    request.headers_mut().insert("webhook-id", "msg_1".parse().unwrap());
    request.headers_mut().insert("webhook-timestamp", NOON.as_secs().into());
    request.headers_mut().insert("webhook-signature", signature.parse().unwrap());
    send(&router, request).await;
    assert_page(
        "a_signed_webhook_is_shown_with_all_its_parts",
        &text(send(&router, get(&page(""))).await).await,
    );
}

#[tokio::test]
async fn nothing_here_looks_the_same_for_every_reason() {
    let router = room();
    let unknown = format!("/inboxes/ffffffffffffffffffffffffffffffff?token={TOKEN}");
    let mut answers = Vec::new();
    for path in [
        unknown,
        format!("/inboxes/{ID}"),
        format!("/inboxes/{ID}?token="),
        format!("/inboxes/{ID}?token={TOKEN}x"),
        format!("/inboxes/no-inbox?token={TOKEN}"),
        format!("/inboxes/{ID}/events?token=wrong"),
        format!("/inboxes/{ID}/requests/1/body?token=wrong"),
    ] {
        let response = send(&router, get(&path)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        answers.push(text(response).await);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_page("nothing_here_looks_the_same_for_every_reason", &answers[0]);
}

#[tokio::test]
async fn a_deleted_inbox_shows_the_page_for_nothing_here() {
    let memory = Memory::new();
    let router = fake::room(&memory, "https://postback.example").router();
    assert_eq!(send(&router, get(&page(""))).await.status(), StatusCode::OK);
    memory.inboxes.lock().unwrap().clear();
    assert_eq!(send(&router, get(&page(""))).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn hostile_payloads_are_text_and_nothing_else() {
    let router = room();
    let hostile = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\u{1b}[31m\u{202e}\u{0}";
    let mut request = post(hostile);
    request.headers_mut().insert("x-hostile", "\"><svg onload=alert(3)>".parse().unwrap());
    request.headers_mut().insert("x-huge", "A".repeat(60_000).parse().unwrap());
    assert_eq!(send(&router, request).await.status(), StatusCode::OK);
    record(&router, "{\"</script><b>\":\"\u{202e}<i>\"}").await;

    let shown = text(send(&router, get(&page(""))).await).await;
    for active in
        ["<script>alert", "<img src=x", "<svg", "</pre><script", "<b>", "<i>", "\u{1b}", "\u{202e}", "\0"]
    {
        assert!(!shown.contains(active), "{active:?} reached the page");
    }
    assert!(shown.contains("&#60;script&#62;alert(1)") && shown.contains("␛[31m⟨U+202E⟩␀"));
}

#[tokio::test]
async fn a_page_says_how_its_inbox_answers_and_when_it_ends() {
    let memory = Memory::new();
    let router = fake::room(&memory, "https://postback.example").router();
    assert!(text(send(&router, get(&page(""))).await).await.contains("Answers 200."));
    let reply = queue::inbox::Reply::new("500,200".parse().unwrap(), vec![], None).unwrap();
    let ends = NOON.plus(std::time::Duration::from_secs(60));
    if let Some(inbox) = memory.inboxes.lock().unwrap().get_mut(ID) {
        inbox.name = Some("<b>mine</b>".into());
        inbox.reply = Some(std::sync::Arc::new(reply));
        inbox.expires_at = Some(ends);
    }
    let shown = text(send(&router, get(&page(""))).await).await;
    assert!(
        shown.contains("Answers <code>500,200</code>") && shown.contains("2026-01-31T12:01:00"),
        "{shown}"
    );
    assert!(shown.contains("&#60;b&#62;mine") && !shown.contains("<b>"));
}

#[tokio::test]
async fn the_policy_lets_no_foreign_script_run() {
    let router = room();
    let response = send(&router, get(&page(""))).await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.split("; ").any(|given| given == rule), "{rule} is missing: {policy}");
    }
    assert!(!policy.contains("unsafe"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    // The policy forbids these, so the page would look broken with them.
    let shown = text(response).await;
    for inline in ["<style", " style=", "<script>", " onclick"] {
        assert!(!shown.contains(inline), "{inline}");
    }
}

#[tokio::test]
async fn the_script_knows_no_way_to_parse_markup() {
    let script = include_str!("../../assets/inbox.js");
    for sink in
        ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "DOMParser", "eval", "Function("]
    {
        assert!(!script.contains(sink), "{sink}");
    }
}

#[tokio::test]
async fn pages_are_shown_under_our_own_names_only() {
    let router = room();
    let under =
        |host: &str| Request::get(page("")).header("host", host).body(Body::empty()).expect("a request");
    for host in
        ["postback.example", "POSTBACK.example:8443", "localhost:4100", "127.0.0.1", "[::1]:4100", "10.0.0.7"]
    {
        assert_eq!(send(&router, under(host)).await.status(), StatusCode::OK, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "["] {
        assert_eq!(send(&router, under(host)).await.status(), StatusCode::FORBIDDEN, "{host}");
    }
    let nameless = Request::get(page("")).body(Body::empty()).unwrap();
    assert_eq!(send(&router, nameless).await.status(), StatusCode::FORBIDDEN);
    // Senders come under whatever name their way here has.
    let mut sent = post("{}");
    sent.headers_mut().insert("host", "tunnel.example".parse().unwrap());
    assert_eq!(send(&router, sent).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_is_downloaded_as_it_came_and_never_shown() {
    let router = room();
    let bytes = b"\0\xff<script>".to_vec();
    record(&router, bytes.clone()).await;
    let response = send(&router, get(&page("/requests/1/body"))).await;
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["content-disposition"], "attachment; filename=\"request-1.bin\"");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), bytes);
    assert_eq!(send(&router, get(&page("/requests/2/body"))).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_newest_hundred_are_shown_and_the_rest_is_a_link_away() {
    let router = room();
    for number in 1..=250 {
        record(&router, format!("[\"number {number}\"]")).await;
    }
    let newest = text(send(&router, get(&page(""))).await).await;
    assert_eq!(sequences(&newest), (151..=250).rev().collect::<Vec<_>>());
    assert!(newest.contains("&#38;before=151") && newest.contains("data-events"));

    let older = text(send(&router, get(&format!("{}&before=151", page("")))).await).await;
    assert_eq!(sequences(&older), (51..=150).rev().collect::<Vec<_>>());
    assert!(older.contains("Newest requests") && !older.contains("data-events"));

    let oldest = text(send(&router, get(&format!("{}&before=51", page("")))).await).await;
    assert_eq!(sequences(&oldest), (1..=50).rev().collect::<Vec<_>>());
    assert!(!oldest.contains("Older requests"));
}

/// The sequence numbers of the requests on a page, without the script's blank one.
fn sequences(page: &str) -> Vec<i64> {
    page.split("data-sequence=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next()?.parse().ok())
        .filter(|sequence| *sequence > 0)
        .collect()
}

#[tokio::test]
async fn style_and_script_come_with_the_binary_and_are_kept_for_ever() {
    let router = room();
    let shown = text(send(&router, get(&page(""))).await).await;
    let links: Vec<_> =
        shown.split('"').filter(|word| word.starts_with("/inboxes/assets/")).map(str::to_owned).collect();
    assert!(links.len() >= 3, "{links:?}");
    for link in links {
        let response = send(&router, get(&link)).await;
        assert_eq!(response.status(), StatusCode::OK, "{link}");
        assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    assert_eq!(send(&router, get("/inboxes/assets/inbox-0.css")).await.status(), StatusCode::NOT_FOUND);
}
