//! A request in every form, searched, compared, and as a picture: all of it without a script.

use axum::Router;
use http::StatusCode;
use http_body_util::BodyExt as _;

use crate::fake::{self, ID, Memory, TOKEN};
use crate::{get, page, post, record, send, text};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";

fn room() -> Router {
    fake::room(&Memory::new(), "https://postback.example").router()
}

async fn shown(router: &Router, path: &str) -> String {
    let response = send(router, get(path)).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    text(response).await
}

fn with(path: &str, more: &str) -> String {
    format!("{}&{more}", page(path))
}

#[tokio::test]
async fn a_request_has_a_page_with_four_forms() {
    let router = room();
    record(&router, r#"{"list":[1, 2],"text":"é"}"#).await;
    let pretty = shown(&router, &page("/requests/1")).await;
    assert!(pretty.contains("{\n  &#34;list&#34;: [1, 2],\n"), "{pretty}");
    assert!(shown(&router, &with("/requests/1", "view=raw")).await.contains("{&#34;list&#34;:[1, 2],"));
    let hex = shown(&router, &with("/requests/1", "view=hex")).await;
    assert!(hex.contains("0000  7b 22 6c 69 73 74") && hex.contains("bytes 0 to 26 of 27"), "{hex}");
    let headers = shown(&router, &with("/requests/1", "view=headers")).await;
    assert!(headers.contains("<dt>content-type</dt><dd>application/json</dd>"));
    // An unknown form is the first one.
    assert_eq!(shown(&router, &with("/requests/1", "view=x")).await, pretty);
    for form in ["Pretty", "Raw", "Headers", "Hex"] {
        assert_eq!(pretty.matches(&format!(">{form}</a>")).count(), 1, "{form}");
    }
    for nothing in [page("/requests/2"), format!("/inboxes/{ID}/requests/1?token=wrong")] {
        assert_eq!(send(&router, get(&nothing)).await.status(), StatusCode::NOT_FOUND, "{nothing}");
    }
}

#[tokio::test]
async fn large_bodies_are_read_as_bytes_page_by_page() {
    let router = room();
    record(&router, vec![0xff; 10_000]).await;
    let first = shown(&router, &with("/requests/1", "view=hex")).await;
    assert!(first.contains("bytes 0 to 4095 of 10000") && first.contains("&#38;from=4096"), "{first}");
    let last = shown(&router, &with("/requests/1", "view=hex&from=8192")).await;
    assert!(last.contains("bytes 8192 to 9999 of 10000") && !last.contains("later bytes"), "{last}");
    let beyond = shown(&router, &with("/requests/1", "view=hex&from=99999999")).await;
    assert!(beyond.contains("bytes 8192 to 9999 of 10000"));
}

#[tokio::test]
async fn a_picture_is_shown_by_its_bytes_and_nothing_else_is() {
    let router = room();
    let mut lying = post(PNG);
    lying.headers_mut().insert("content-type", "text/html".parse().unwrap());
    send(&router, lying).await;
    let response = send(&router, get(&page("/requests/1/image"))).await;
    let headers = response.headers();
    assert_eq!(headers["content-type"], "image/png");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), PNG);
    let link = format!("src=\"/inboxes/{ID}/requests/1/image?token={TOKEN}\"");
    assert!(shown(&router, &page("")).await.contains(&link));
    assert!(shown(&router, &page("/requests/1")).await.contains(&link));

    let mut drawing = post("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>");
    drawing.headers_mut().insert("content-type", "image/svg+xml".parse().unwrap());
    send(&router, drawing).await;
    assert_eq!(send(&router, get(&page("/requests/2/image"))).await.status(), StatusCode::NOT_FOUND);
    assert!(!shown(&router, &page("/requests/2")).await.contains("/requests/2/image"));
    let wrong = format!("/inboxes/{ID}/requests/1/image?token=x");
    assert_eq!(send(&router, get(&wrong)).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn requests_are_searched_in_path_headers_and_body() {
    let router = room();
    for body in ["alpha <i>", "beta", "gamma"] {
        record(&router, body).await;
    }
    let mut marked = post("delta");
    marked.headers_mut().insert("x-mark", "Needle".parse().unwrap());
    *marked.uri_mut() = format!("/inbox/{ID}/some/path").parse().unwrap();
    send(&router, marked).await;
    for (q, expected) in [
        ("ALPHA", vec![1]),
        ("x-mark:+needle", vec![4]),
        ("some/path", vec![4]),
        ("a", vec![4, 3, 2, 1]),
        ("nowhere", vec![]),
        ("%3Ci%3E", vec![1]),
    ] {
        let found = shown(&router, &with("", &format!("q={q}"))).await;
        let sequences: Vec<i64> = found
            .split("data-sequence=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .filter(|sequence| *sequence > 0)
            .collect();
        assert_eq!(sequences, expected, "{q}");
        assert!(!found.contains("data-events"), "a search does not change under its reader");
        assert!(!found.contains("<i>"), "{q}");
    }
    assert!(shown(&router, &with("", "q=nowhere")).await.contains("No request holds this text."));
}

#[tokio::test]
async fn a_search_goes_on_where_its_page_ended() {
    let router = room();
    for number in 0..250 {
        record(&router, format!("needle {number}")).await;
    }
    let first = shown(&router, &with("", "q=needle")).await;
    assert!(first.contains("&#38;q=needle&#38;before=151"), "100 a page, and the rest a link away");
    let last = shown(&router, &with("", "q=needle&before=51")).await;
    assert!(last.contains("needle 49") && !last.contains("Older requests"));
}

#[tokio::test]
async fn two_requests_stand_beside_each_other() {
    let router = room();
    record(&router, r#"{"a": 1, "b": "<script>"}"#).await;
    record(&router, r#"{"a": 2, "b": "<script>"}"#).await;
    record(&router, r#"{ "a": 2, "b": "<script>" }"#).await;
    // The older one stands first, however they are named.
    let (there, back) = (
        shown(&router, &with("/compare", "old=1&new=2")).await,
        shown(&router, &with("/compare", "old=2&new=1")).await,
    );
    assert_eq!(there, back);
    assert!(there.contains("data-side=\"old\">−   &#34;a&#34;: 1,"), "{there}");
    assert!(there.contains("data-side=\"new\">+   &#34;a&#34;: 2,"), "{there}");
    assert!(!there.contains("<script>"));
    assert!(shown(&router, &with("/compare", "old=2&new=3")).await.contains("The same JSON, written"));
    assert!(shown(&router, &with("/compare", "old=2&new=2")).await.contains("The same, to the byte."));
    for nothing in ["old=1", "old=1&new=9"] {
        let response = send(&router, get(&with("/compare", nothing))).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{nothing}");
    }
}
