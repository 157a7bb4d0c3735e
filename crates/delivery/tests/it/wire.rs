//! One attempt on the wire: what is sent, and what comes of the answers that receivers give.

use std::time::{Duration, Instant};

use queue::clock::Timestamp;
use queue::delivery::{Timings, Verdict};
use queue::id::DeliveryId;
use queue::port::Outbox as _;
use queue::retry::SCHEDULE;
use queue::signature::CallerSecret;
use queue::webhook::WebhookHeaders;
use testkit::receiver::{Evil, Fault};
use testkit::recorder::{Arrival, Recorder};

use crate::fakes::{PATIENCE, SECRET, World};

async fn evil(fault: Fault) -> Evil {
    Evil::start(fault).await.unwrap()
}

fn reason(world: &World, id: DeliveryId) -> Option<String> {
    world.shelf.ends_of(id)[0].report.reason.clone()
}

fn verify(arrival: &Arrival) {
    let oracle = standardwebhooks::Webhook::new(SECRET).unwrap();
    oracle.verify(&arrival.body, &arrival.headers).expect("the public library verifies it");
}

#[tokio::test]
async fn a_delivery_carries_the_headers_of_standard_webhooks_and_verifies() {
    let world = World::new();
    let receiver = Recorder::start().await.unwrap();
    let id = world.deliver(&receiver.url("hook?a=1&b=%20"));
    assert!(receiver.wait_until(PATIENCE, |arrivals| !arrivals.is_empty()).await);
    let arrival = receiver.arrivals().remove(0);
    verify(&arrival);
    assert_eq!(arrival.path, "/hook?a=1&b=%20");
    assert_eq!(arrival.header("content-type"), "application/json");
    assert_eq!(arrival.header("user-agent"), concat!("postback/", env!("CARGO_PKG_VERSION")));
    assert_eq!(arrival.header("host"), receiver.url("").trim_start_matches("http://").trim_end_matches('/'));
    assert_eq!(arrival.header("webhook-id"), id.webhook_id());
    for unwanted in ["accept-encoding", "cookie", "authorization", "referer"] {
        assert!(!arrival.headers.contains_key(unwanted), "{unwanted}");
    }
    for single in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert_eq!(arrival.headers.get_all(single).iter().count(), 1, "{single}");
    }
    let end = world.shelf.first_end(id).await;
    assert_eq!((end.verdict, end.report.status_code), (Verdict::Delivered, Some(200)));
    assert_eq!((end.report.reason, end.report.response), (None, None));
}

#[tokio::test]
async fn a_callers_secret_signs_beside_the_projects() {
    let world = World::new();
    let receiver = Recorder::start().await.unwrap();
    let secret = CallerSecret::new(b"mine");
    let mut due = world.shelf.put_begun(&receiver.url("x"));
    due.caller_secret = Some(secret.clone());
    world.handle.reserve(&due.url, 0).unwrap().send(due.clone());
    world.shelf.first_end(due.id).await;
    let arrival = receiver.arrivals().remove(0);
    verify(&arrival);
    assert_eq!(arrival.header("x-request-id"), due.id.run.to_string());
    let at = arrival.header("x-cerebrium-webhook-timestamp");
    assert_eq!(at, arrival.header("webhook-timestamp"));
    let at = Timestamp::from_millis(at.parse::<i64>().unwrap() * 1_000);
    let expected = secret.sign(due.id.run, at, &arrival.body);
    assert_eq!(arrival.header("x-cerebrium-webhook-signature"), expected);

    let plain = world.deliver(&receiver.url("plain"));
    world.shelf.first_end(plain).await;
    let arrival = receiver.arrivals().remove(1);
    assert!(!arrival.headers.keys().any(|name| name.as_str().starts_with("x-")), "{:?}", arrival.headers);
}

#[tokio::test]
async fn the_callers_headers_stand_beside_ours() {
    let world = World::new();
    let receiver = Recorder::start().await.unwrap();
    let mut due = world.shelf.put_begun(&receiver.url("x"));
    due.headers = Some(WebhookHeaders::parse(r#"{"X-Api-Key":"s3cret","User-Agent":"mine/1"}"#).unwrap());
    world.handle.reserve(&due.url, 0).unwrap().send(due.clone());
    world.shelf.first_end(due.id).await;
    let arrival = receiver.arrivals().remove(0);
    verify(&arrival);
    assert_eq!((arrival.header("x-api-key"), arrival.header("user-agent")), ("s3cret", "mine/1"));
    assert_eq!(arrival.headers.get_all("user-agent").iter().count(), 1);
}

#[tokio::test]
async fn every_attempt_has_the_same_id_and_bytes_and_a_signature_of_its_own() {
    let world = World::new();
    let receiver = Recorder::start().await.unwrap();
    let mut due = world.shelf.put_begun(&receiver.url("x"));
    world.handle.reserve(&due.url, 0).unwrap().send(due.clone());
    world.shelf.first_end(due.id).await;
    // As after a crash that lost the answer: the store hands the delivery out again.
    world.clock.advance(Duration::from_secs(5));
    due.attempt = 2;
    world.shelf.put_back(due.id, due.attempt);
    world.handle.reserve(&due.url, 0).unwrap().send(due);
    assert!(receiver.wait_until(PATIENCE, |arrivals| arrivals.len() == 2).await);
    let arrivals = receiver.arrivals();
    let (first, second) = (&arrivals[0], &arrivals[1]);
    verify(first);
    verify(second);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"), "one id for every attempt");
    assert_eq!(first.body, second.body, "one body for every attempt");
    assert_ne!(first.header("webhook-timestamp"), second.header("webhook-timestamp"));
    assert_ne!(first.header("webhook-signature"), second.header("webhook-signature"));
}

#[tokio::test]
async fn bad_answers_are_named_and_retried_by_the_schedule() {
    let world = World::new();
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec();
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(100_000)).into_bytes();
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec();
    let mut cases = Vec::new();
    for (fault, reason, status) in [
        (Fault::Reset, "reset", None),
        (Fault::Say(Vec::new()), "reset", None),
        (Fault::Say(b"HTTP/1.1 200".to_vec()), "reset", None),
        (Fault::Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "bad_response", None),
        (Fault::Say(b"HTTP/1.1 2000 OK\r\n\r\n".to_vec()), "bad_response", None),
        (Fault::Say(many_headers), "bad_response", None),
        (Fault::Say(chunked), "bad_response", Some(200)),
        (Fault::Say(half), "reset", Some(200)),
        (Fault::status("500 Internal Server Error", &[]), "http_status", Some(500)),
        (Fault::status("404 Not Found", &[]), "http_status", Some(404)),
        (Fault::status("304 Not Modified", &[]), "redirect", Some(304)),
    ] {
        let receiver = evil(fault.clone()).await;
        cases.push((world.deliver(&receiver.url("x")), fault, reason, status, receiver));
    }
    for (id, fault, reason, status, receiver) in cases {
        let end = world.shelf.first_end(id).await;
        let fault = format!("{fault:.60?}");
        assert_eq!(end.report.reason.as_deref(), Some(reason), "{fault}");
        assert_eq!(end.report.status_code, status, "{fault}");
        assert_eq!(end.verdict, Verdict::Retry(end.ended_at.plus(SCHEDULE[1])), "{fault}");
        assert_eq!(receiver.accepted(), 1, "{fault}: no hidden second request");
    }
}

#[tokio::test]
async fn nobody_there_and_no_such_name() {
    let world = World::new();
    let gone = Evil::honeypot().await.unwrap().url("x");
    let id = world.deliver(&gone);
    world.shelf.first_end(id).await;
    assert_eq!(reason(&world, id).as_deref(), Some("refused"));
    let id = world.deliver("https://gone.example.com/");
    world.shelf.first_end(id).await;
    assert_eq!(reason(&world, id).as_deref(), Some("dns"));
}

#[tokio::test]
async fn a_receiver_that_dawdles_is_cut_off_at_the_deadline_in_every_phase() {
    let limit = Duration::from_millis(500);
    let world = World::with(|options| options.attempt_limit = limit);
    world.names.say_nothing("silent.example.com", crate::fakes::Answer::Silence);
    let pause = Duration::from_millis(20);
    let body = b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n".to_vec();
    let mut cases = Vec::new();
    for (fault, reason) in [
        (Fault::Hang, "timeout:headers"),
        (Fault::Silent, "timeout:headers"),
        (Fault::Drip(b"HTTP/1.1 200 OK\r\nx-slow: ".to_vec(), pause), "timeout:headers"),
        (Fault::Drip(body, pause), "timeout:body"),
    ] {
        let receiver = evil(fault).await;
        cases.push((world.deliver(&receiver.url("x")), reason, Some(receiver)));
    }
    cases.push((world.deliver("https://silent.example.com/"), "timeout:dns", None));
    for (id, reason, _receiver) in cases {
        let end = world.shelf.first_end(id).await;
        assert_eq!(end.report.reason.as_deref(), Some(reason));
        let over = end.report.duration.abs_diff(limit);
        assert!(over < Duration::from_millis(500), "{reason} took {:?}", end.report.duration);
    }
}

#[tokio::test]
async fn tls_that_never_begins_is_a_timeout_of_tls() {
    let world = World::with(|options| options.connect_limit = Duration::from_millis(300));
    let hanging = evil(Fault::Hang).await;
    let id = world.deliver(&hanging.url("x").replace("http:", "https:"));
    let end = world.shelf.first_end(id).await;
    assert_eq!(end.report.reason.as_deref(), Some("timeout:tls"));
    assert!(end.report.duration < Duration::from_millis(1_500), "{:?}", end.report.duration);
}

#[tokio::test]
async fn an_endless_answer_is_cut_and_its_status_counts() {
    let world = World::new();
    let endless = evil(Fault::Endless).await;
    let id = world.deliver(&endless.url("x"));
    let end = world.shelf.first_end(id).await;
    assert_eq!((end.verdict, end.report.status_code), (Verdict::Delivered, Some(200)));
    assert_eq!(end.report.response.unwrap().len(), 8 << 10);
}

#[tokio::test]
async fn an_answers_text_is_kept_as_text() {
    let world = World::new();
    let answer =
        "HTTP/1.1 422 No\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\nno\u{0}: é".as_bytes();
    // Cut in the middle of the last character, as the bound would.
    let receiver = evil(Fault::Say(answer[..answer.len() - 1].to_vec())).await;
    let id = world.deliver(&receiver.url("x"));
    assert_eq!(world.shelf.first_end(id).await.report.response.as_deref(), Some("no\u{fffd}: "));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let world = World::new();
    let honeypot = Evil::honeypot().await.unwrap();
    for status in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let location = format!("location: {}", honeypot.url("private"));
        let receiver = evil(Fault::status(status, &[&location])).await;
        let id = world.deliver(&receiver.url("x"));
        let end = world.shelf.first_end(id).await;
        assert_eq!(end.report.reason.as_deref(), Some("redirect"), "{status}");
        assert!(matches!(end.verdict, Verdict::Retry(_)), "{status}");
    }
    assert_eq!(honeypot.accepted(), 0);
}

#[tokio::test]
async fn gone_disables_and_retry_after_is_honoured() {
    let world = World::new();
    let gone = evil(Fault::status("410 Gone", &[])).await;
    let id = world.deliver(&gone.url("x"));
    assert_eq!(world.shelf.first_end(id).await.verdict, Verdict::Disabled);
    let busy = evil(Fault::status("503 Busy", &["retry-after: 120"])).await;
    let id = world.deliver(&busy.url("x"));
    let end = world.shelf.first_end(id).await;
    assert_eq!(end.verdict, Verdict::Retry(end.ended_at.plus(Duration::from_secs(120))));
}

#[tokio::test]
async fn what_a_name_meant_a_moment_ago_counts_for_nothing() {
    use queue::port::AddressGuard as _;
    let honeypot = Evil::honeypot().await.unwrap();
    let port = honeypot.address().port();
    let world = World::with(|options| {
        options.rules = delivery::Rules { allow_ports: vec![port], allow_http: true, ..Default::default() };
    });
    // Rebinding: public when the run is accepted, loopback when it is delivered.
    world.names.say("rebind.example.com", &[&["93.184.216.34"], &["127.0.0.1"]]);
    let admitted = world.handle.check(&format!("http://rebind.example.com:{port}/")).await.unwrap();
    let rebound = world.deliver(admitted.url.as_str());
    // One bad answer among good ones.
    world.names.say("mixed.example.com", &[&["93.184.216.34", "::ffff:127.0.0.1"]]);
    let mixed = world.deliver(&format!("http://mixed.example.com:{port}/"));
    // Addresses that were stored while the rules were looser.
    let literal = world.deliver(&honeypot.url("x"));
    let local = world.deliver(&format!("http://localhost:{port}/"));
    for id in [rebound, mixed, literal, local] {
        let end = world.shelf.first_end(id).await;
        assert_eq!(end.report.reason.as_deref(), Some("address_not_allowed"));
        assert_eq!(end.report.response, None);
        assert!(matches!(end.verdict, Verdict::Retry(_)));
    }
    assert_eq!(honeypot.accepted(), 0);
}

#[tokio::test]
async fn a_name_is_connected_where_it_was_resolved_and_keeps_its_name() {
    let world = World::new();
    let receiver = Recorder::start().await.unwrap();
    let port = receiver.url("").trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
    world.names.say("hooks.example.com", &[&["127.0.0.1"]]);
    let id = world.deliver(&format!("http://hooks.example.com:{port}/x"));
    assert_eq!(world.shelf.first_end(id).await.verdict, Verdict::Delivered);
    assert_eq!(receiver.arrivals()[0].header("host"), format!("hooks.example.com:{port}"));
    let id = world.deliver(&format!("http://localhost:{port}/x"));
    assert_eq!(world.shelf.first_end(id).await.verdict, Verdict::Delivered);
}

#[tokio::test]
async fn own_inboxes_are_reached_locally_even_behind_a_tls_terminating_address() {
    let receiver = Recorder::start().await.unwrap();
    let listen = receiver.url("").trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let world = World::with(|options| {
        options.rules = delivery::Rules {
            own: Some(delivery::OwnServer {
                listen,
                public_url: Some("https://postback.example.org".parse().unwrap()),
            }),
            ..Default::default()
        };
    });
    let path = format!("/inbox/{}", crate::fakes::INBOX);
    for origin in ["https://postback.example.org".to_owned(), format!("http://{listen}")] {
        let id = world.deliver(&format!("{origin}{path}"));
        assert_eq!(world.shelf.first_end(id).await.verdict, Verdict::Delivered, "{origin}");
        let arrival = receiver.arrivals().pop().unwrap();
        assert_eq!(arrival.path, path);
        assert_eq!(arrival.header("host"), origin.split("//").nth(1).unwrap());
        verify(&arrival);
    }
    let unknown = format!("/inbox/{}", crate::fakes::INBOX.replace('0', "f"));
    for path in ["/metrics", &unknown] {
        let id = world.deliver(&format!("http://{listen}{path}"));
        world.shelf.first_end(id).await;
        assert_eq!(reason(&world, id).as_deref(), Some("address_not_allowed"), "{path}");
    }
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn connections_are_used_again_while_they_are_open() {
    let world = World::new();
    let receiver = CountingServer::start(3).await;
    for _ in 0..6 {
        let id = world.deliver(&receiver.url);
        assert_eq!(world.shelf.first_end(id).await.verdict, Verdict::Delivered);
    }
    // It closes each connection after three answers.
    assert_eq!(receiver.accepted(), 2);
}

#[tokio::test]
async fn what_an_answer_wants_to_be_told_again_is_forgotten() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let requests = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for _ in 0..2 {
            let mut request = Vec::new();
            while !request.ends_with(b"}}") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            requests.push(String::from_utf8(request).unwrap().to_ascii_lowercase());
            let answer = "HTTP/1.1 200 OK\r\nset-cookie: a=planted\r\netag: \"planted\"\r\n\
                          alt-svc: h2=\":443\"\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    for _ in 0..2 {
        let id = world.deliver(&url);
        assert_eq!(world.shelf.first_end(id).await.verdict, Verdict::Delivered);
    }
    let second = &requests.await.unwrap()[1];
    for unwanted in ["planted", "cookie", "if-none-match"] {
        assert!(!second.contains(unwanted), "{second}");
    }
}

#[tokio::test]
async fn each_attempt_tells_where_its_time_went() {
    let world = World::new();
    let receiver = CountingServer::start(3).await;
    let port = receiver.url.rsplit(':').next().unwrap();
    world.names.say("hooks.example.com", &[&["127.0.0.1"]]);
    let named = world.deliver(&format!("http://hooks.example.com:{port}"));
    let named = world.shelf.first_end(named).await.report;
    assert!(named.timings.dns.is_some() && named.timings.connect.is_some(), "{:?}", named.timings);
    assert_eq!((named.timings.tls, named.timings.reused_connection), (None, false));
    let steps = [named.timings.dns, named.timings.connect, named.timings.first_byte];
    let steps: Duration = steps.into_iter().map(Option::unwrap).sum();
    assert!(steps <= named.duration, "{steps:?} of {:?}", named.duration);

    let again = world.deliver(&format!("http://hooks.example.com:{port}"));
    let again = world.shelf.first_end(again).await.report.timings;
    assert_eq!((again.reused_connection, again.dns, again.connect, again.tls), (true, None, None, None));
    assert!(again.first_byte.is_some());

    // An address needs no look-up, and an answer that never comes has no first byte.
    let silent = evil(Fault::Silent).await;
    let id = world.deliver(&silent.url("x"));
    let timings = world.shelf.first_end(id).await.report.timings;
    assert!(
        timings.dns.is_none() && timings.connect.is_some() && timings.first_byte.is_none(),
        "{timings:?}"
    );
    // What never began has no times at all.
    let id = world.deliver("https://gone.example.com/");
    assert_eq!(world.shelf.first_end(id).await.report.timings, Timings::default());
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_attempt() {
    let world = World::new();
    let closing = evil(Fault::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec())).await;
    for expected in 1..=5 {
        let id = world.deliver(&closing.url("x"));
        assert_eq!(world.shelf.first_end(id).await.verdict, Verdict::Delivered);
        let began = Instant::now();
        // Its end of the connection is closed at once; ours hears of it within moments.
        while closing.accepted() < expected && began.elapsed() < PATIENCE {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Answers 204 to a few requests per connection, then closes it.
struct CountingServer {
    url: String,
    accepted: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl CountingServer {
    async fn start(requests_per_connection: usize) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let accepted = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                for left in (0..requests_per_connection).rev() {
                    let mut request = Vec::new();
                    while !request.ends_with(b"}}") {
                        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                    }
                    let close = if left == 0 { "connection: close\r\n" } else { "" };
                    let answer = format!("HTTP/1.1 204 No Content\r\n{close}\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { url, accepted, task }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for CountingServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
