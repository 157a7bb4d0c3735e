//! A recorded request is sent once more from its page: by whoever is signed in, to where webhooks may go.

use reqwest::Method;
use reqwest::header::LOCATION;
use serde_json::json as object;
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;

use super::Visitor;
use crate::support::{PATIENCE, Stage, json};

/// An inbox with one request in it: its id, and the page of that request.
async fn recorded(stage: &Stage) -> (String, String) {
    let made =
        stage.request(Method::POST, &stage.control("inboxes")).json(&object!({})).send().await.unwrap();
    let made = json(made).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let sent = stage.bare(Method::PUT, &format!("/inbox/{id}/a?b=1")).header("x-mine", "sent along");
    assert_eq!(sent.header("connection", "close").body("hello").send().await.unwrap().status(), 200);
    let (_, token) = made["pageUrl"].as_str().unwrap().split_once('?').unwrap();
    let page = format!("/inboxes/{id}/requests/1?{token}");
    (id, page)
}

#[tokio::test]
async fn a_recorded_request_is_sent_from_its_page_and_the_answer_is_shown() {
    let stage = Stage::empty();
    let (id, page) = recorded(&stage).await;
    let mut owner = Visitor::of(&stage);
    owner.sign_in(&stage.keys.private_key.clone()).await;
    let form = format!("/dashboard/inboxes/{id}/requests/1/replay");
    assert!(owner.page(&page).await.contains(&format!("action=\"{form}\"")));
    let shown = owner.page(&form).await;
    for said in ["PUT /a?b=1", "x-mine", "Content-Length", "left behind"] {
        assert!(shown.contains(said), "`{said}` is missing: {shown}");
    }

    let well = Recorder::start().await.unwrap();
    let came = owner.press(&form, &[("url", &format!(" {} ", well.url("hook?c=2")))]).await;
    assert_eq!(came.status(), 200);
    let came = came.text().await.unwrap();
    for said in ["200 OK", "Connect", "First byte", "content-length", &well.url("hook?c=2")] {
        assert!(came.contains(said), "`{said}` is missing: {came}");
    }
    let arrivals = well.arrivals();
    assert_eq!(arrivals.len(), 1);
    assert_eq!((arrivals[0].path.as_str(), &arrivals[0].body[..]), ("/hook?c=2", &b"hello"[..]));
    assert_eq!(arrivals[0].header("x-mine"), "sent along");

    let hostile =
        b"HTTP/1.1 500 No\r\nx-bad: <b>\r\nconnection: close\r\n\r\n<script>alert(1)</script>".to_vec();
    let unwell = Evil::start(Fault::Say(hostile)).await.unwrap();
    let came = owner.press(&form, &[("url", &unwell.url("x"))]).await.text().await.unwrap();
    assert!(came.contains("500 Internal Server Error") && came.contains("&#60;script&#62;"), "{came}");
    assert!(came.contains("x-bad") && !came.contains("<b>") && !came.contains("<script>alert"), "{came}");

    // A port that is taken, and where nobody listens.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = format!("http://{}/x", taken.local_addr().unwrap());
    let came = owner.press(&form, &[("url", &nobody)]).await.text().await.unwrap();
    assert!(came.contains("refused") && came.contains("nobody listens"), "{came}");

    // Back into an inbox of ours.
    let own = format!("{}/inbox/{id}", stage.home.url());
    assert!(owner.press(&form, &[("url", &own)]).await.text().await.unwrap().contains("200 OK"));
    let list = stage.request(Method::GET, &stage.control(&format!("inboxes/{id}/requests")));
    let list = json(list.send().await.unwrap()).await;
    assert_eq!(
        (&list["items"][1]["method"], &list["items"][1]["body"]),
        (&object!("PUT"), &object!("hello"))
    );
}

#[tokio::test]
async fn nothing_is_sent_for_who_is_not_signed_in_nor_to_where_no_webhook_may_go() {
    let stage = Stage::empty();
    let (id, page) = recorded(&stage).await;
    let form = format!("/dashboard/inboxes/{id}/requests/1/replay");
    let receiver = Recorder::start().await.unwrap();
    let to = [("url", &*receiver.url("x"))];

    // Whoever has the address of the page looks at it, and that is all.
    let stranger = Visitor::of(&stage);
    assert!(stranger.page(&page).await.contains("sent along"));
    let asked = stranger.open(&form).await;
    assert_eq!(asked.status(), 303);
    assert!(asked.headers()[LOCATION].to_str().unwrap().starts_with("/dashboard/sign-in?next="));
    assert_eq!(stranger.press(&form, &to).await.status(), 303);

    let mut owner = Visitor::of(&stage);
    owner.sign_in(&stage.keys.private_key.clone()).await;
    let foreign = owner.request(Method::POST, &form).header("origin", "http://evil.example");
    assert_eq!(foreign.body(format!("url={}", receiver.url("x"))).send().await.unwrap().status(), 403);

    let metadata = "http://169.254.169.254/latest/meta-data/";
    for (url, said) in [
        ("https://10.0.0.1/", "a private address"),
        ("https://[::ffff:192.168.0.1]/", "a private address"),
        (metadata, "is never called"),
        (&stage.home.url(), "the server itself"),
        ("ftp://example.com/", "addresses cannot be called"),
        ("nonsense", "not a complete address"),
    ] {
        let refused = owner.press(&form, &[("url", url)]).await;
        assert_eq!(refused.status(), 422, "{url}");
        let refused = refused.text().await.unwrap();
        assert!(refused.contains("Nothing was sent") && refused.contains(said), "{url}: {refused}");
        assert!(!refused.contains("What came back"), "{url}");
    }
    for nothing in [format!("/dashboard/inboxes/{id}/requests/2/replay"), form.replace(&id, &"0".repeat(32))]
    {
        assert_eq!(owner.press(&nothing, &to).await.status(), 404, "{nothing}");
        assert_eq!(owner.open(&nothing).await.status(), 404, "{nothing}");
    }
    let without = owner.press(&form, &[]).await;
    assert_eq!(without.status(), 422);
    assert!(!receiver.wait_until(std::time::Duration::ZERO, |arrivals| !arrivals.is_empty()).await);

    // The same by the API, with the private key alone.
    let path = stage.control(&format!("inboxes/{id}/requests/1/replay"));
    let asked = stage.bare(Method::POST, &path).header("authorization", &stage.keys.public_key);
    let asked = asked.json(&object!({"url": receiver.url("x")})).send().await.unwrap();
    assert_eq!(asked.status(), 403);
    let ask = async |url: &str| {
        let answer = stage.request(Method::POST, &path).json(&object!({"url": url})).send().await.unwrap();
        (answer.status().as_u16(), json(answer).await)
    };
    assert_eq!(ask(metadata).await.1["code"], "address_not_allowed");
    let (status, answer) = ask(&receiver.url("by-api")).await;
    assert_eq!((status, &answer["statusCode"], &answer["reason"]), (200, &object!(200), &object!(null)));
    assert!(receiver.wait_until(PATIENCE, |arrivals| arrivals.len() == 1).await);
    assert_eq!(receiver.arrivals()[0].path, "/by-api");
}
