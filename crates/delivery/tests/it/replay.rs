//! Recorded requests, sent once more: what goes out, what is told of the answer, and what is never called.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use queue::inbox::CapturedRequest;
use queue::limits::REPLAYS_AT_ONCE_MAX;
use queue::port::Replays as _;
use queue::replay::NotReplayed;
use testkit::receiver::{Evil, Fault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::fakes::{Answer, PATIENCE, World};

/// Of an inbox, with a path below it and a query.
fn recorded(method: &str, headers: &[(&str, &str)], body: &[u8]) -> CapturedRequest {
    testkit::recorded(method, "/inbox/0123456789abcdef0123456789abcdef/a?b=1", headers, body)
}

/// Tells what it is sent, byte by byte, and answers this.
async fn listener(answer: &'static [u8]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut said = Vec::new();
            // Every request of these tests ends so.
            while !said.ends_with(b"the end") && stream.read_buf(&mut said).await.is_ok_and(|read| read > 0) {
            }
            let _ = tell.send(String::from_utf8(said).unwrap());
            let _ = stream.write_all(answer).await;
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_recorded_request_goes_out_as_it_came_but_for_what_belonged_to_its_connection() {
    let answer = b"HTTP/1.1 201 Created\r\nx-mine: 1\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n\
                   content-length: 5\r\n\r\nhello";
    let (at, mut told) = listener(answer).await;
    let world = World::new();
    let headers = [
        ("host", "inbox.example"),
        ("content-length", "99"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("accept-encoding", "gzip"),
        ("content-type", "text/x"),
        ("user-agent", "sender/1"),
        ("x-twice", "1"),
        ("x-twice", "é"),
    ];
    let request = recorded("PATCH", &headers, b"\xc3\xa9 the end");
    let replayed = world.handle.replay(&request, &format!("http://{at}/hook?x=%20#part")).await.unwrap();
    let sent = timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    assert_eq!(lines.remove(0), "PATCH /hook?x=%20 HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {at}");
    let wanted = [
        "content-length: 10",
        "content-type: text/x",
        &host,
        "user-agent: sender/1",
        "x-twice: 1",
        "x-twice: é",
    ];
    assert_eq!((lines.as_slice(), body), (&wanted[..], "é the end"));

    assert_eq!(replayed.url.as_str(), format!("http://{at}/hook?x=%20"));
    assert_eq!((replayed.status_code, replayed.reason), (Some(201), None));
    assert_eq!(replayed.response.as_deref(), Some("hello"));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let wanted = [
        header("x-mine", "1"),
        header("set-cookie", "a=b"),
        header("set-cookie", "c=d"),
        header("content-length", "5"),
    ];
    assert_eq!(replayed.headers, wanted);
    let timings = replayed.timings;
    assert!(
        timings.connect.is_some() && timings.first_byte.is_some() && timings.tls.is_none(),
        "{timings:?}"
    );
    assert!(replayed.duration >= timings.first_byte.unwrap());
}

#[tokio::test]
async fn every_status_is_an_answer_and_all_else_is_said_in_the_words_of_attempts() {
    let limit = Duration::from_millis(500);
    let world = World::with(|options| options.attempt_limit = limit);
    world.names.say_nothing("silent.example.com", Answer::Silence);
    let honeypot = Evil::honeypot().await.unwrap();
    let elsewhere = format!("location: {}", honeypot.url("private"));
    // A port that is taken, and where nobody listens.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = format!("http://{}/x", taken.local_addr().unwrap());
    let drip = b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n".to_vec();
    for (fault, status, reason) in [
        (Fault::status("500 Internal Server Error", &["x-why: me"]), Some(500), None),
        (Fault::status("404 Not Found", &[]), Some(404), None),
        (Fault::status("307 Temporary Redirect", &[&elsewhere]), Some(307), None),
        (Fault::Endless, Some(200), None),
        (Fault::Reset, None, Some("reset")),
        (Fault::Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), None, Some("bad_response")),
        (Fault::Hang, None, Some("timeout:headers")),
        (Fault::Drip(drip, Duration::from_millis(20)), Some(200), Some("timeout:body")),
    ] {
        let shown = format!("{fault:.60?}");
        let receiver = Evil::start(fault).await.unwrap();
        let replayed = world.handle.replay(&recorded("GET", &[], b""), &receiver.url("x")).await.unwrap();
        assert_eq!((replayed.status_code, replayed.reason.as_deref()), (status, reason), "{shown}");
        assert_eq!(receiver.accepted(), 1, "{shown}");
        assert!(replayed.response.is_none_or(|text| text.len() <= 8 << 10), "{shown}");
    }
    assert_eq!(honeypot.accepted(), 0, "nobody goes where a redirect leads");
    for (url, reason) in [
        (gone.as_str(), "refused"),
        ("https://gone.example.com/", "dns"),
        ("https://silent.example.com/", "timeout:dns"),
    ] {
        let replayed = world.handle.replay(&recorded("POST", &[], b"x"), url).await.unwrap();
        assert_eq!((replayed.status_code, replayed.reason.as_deref()), (None, Some(reason)), "{url}");
        assert!(replayed.headers.is_empty() && replayed.response.is_none(), "{url}");
    }
}

#[tokio::test]
async fn nothing_is_sent_where_no_webhook_may_go() {
    let honeypot = Evil::honeypot().await.unwrap();
    let port = honeypot.address().port();
    let world = World::with(|options| {
        options.rules = delivery::Rules { allow_ports: vec![port], allow_http: true, ..Default::default() };
    });
    let request = recorded("POST", &[], b"{}");
    for (url, rule) in [
        (honeypot.url("x"), "address_not_allowed"),
        (format!("http://2130706433:{port}/"), "address_not_allowed"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "address_not_allowed"),
        ("https://[::ffff:10.0.0.1]/".to_owned(), "address_not_allowed"),
        (format!("http://localhost:{port}/"), "name"),
        ("https://user:word@example.com/".to_owned(), "userinfo"),
        ("https://example.com:22/".to_owned(), "port"),
        ("file:///etc/passwd".to_owned(), "scheme"),
        ("hook".to_owned(), "syntax"),
        (String::new(), "syntax"),
    ] {
        match world.handle.replay(&request, &url).await {
            Err(NotReplayed::Refused(refused)) => assert_eq!(refused.rule, rule, "{url}"),
            other => panic!("{url}: {other:?}"),
        }
    }
    // A name that means something else once it is looked at again.
    world.names.say("rebind.example.com", &[&["93.184.216.34"], &["127.0.0.1"]]);
    let rebound = world.handle.replay(&request, &format!("http://rebind.example.com:{port}/")).await.unwrap();
    assert_eq!((rebound.status_code, rebound.reason.as_deref()), (None, Some("address_not_allowed")));
    world.names.say("inside.example.com", &[&["10.1.2.3"]]);
    let inside = world.handle.replay(&request, "https://inside.example.com/").await;
    assert!(matches!(inside, Err(NotReplayed::Refused(_))), "{inside:?}");
    assert_eq!(honeypot.accepted(), 0);

    let tunnel = World::new().handle.replay(&recorded("CONNECT", &[], b""), &honeypot.url("x")).await;
    assert!(matches!(tunnel, Err(NotReplayed::Method(_))), "{tunnel:?}");
    assert_eq!(honeypot.accepted(), 0);
}

#[tokio::test]
async fn so_many_are_sent_at_once_and_those_who_went_away_make_room() {
    let world = Arc::new(World::with(|options| options.attempt_limit = PATIENCE));
    let hanging = Arc::new(Evil::start(Fault::Hang).await.unwrap());
    let waiting: Vec<_> = (0..REPLAYS_AT_ONCE_MAX)
        .map(|_| {
            let (world, hanging) = (Arc::clone(&world), Arc::clone(&hanging));
            tokio::spawn(async move {
                world.handle.replay(&recorded("GET", &[], b""), &hanging.url("x")).await.map(drop)
            })
        })
        .collect();
    let all_came = async {
        while hanging.accepted() < REPLAYS_AT_ONCE_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, all_came).await.unwrap();
    let well = Evil::honeypot().await.unwrap();
    let one_more = world.handle.replay(&recorded("GET", &[], b""), &well.url("x")).await;
    assert!(matches!(one_more, Err(NotReplayed::Busy)), "{one_more:?}");
    assert_eq!(well.accepted(), 0);
    for one in waiting {
        one.abort();
        let _ = one.await;
    }
    assert_eq!(
        world.handle.replay(&recorded("GET", &[], b""), &well.url("x")).await.unwrap().status_code,
        Some(200)
    );
}
