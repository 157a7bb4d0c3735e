//! Callers that wait: what reaches the web server, what comes back, and what does not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use futures_util::{StreamExt as _, stream};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{ask, changed, get, log_with, stage, until};
use crate::support::{PATIENCE, Stage, json as body};

fn value_of<'a>(headers: &'a Value, name: &str) -> Vec<&'a str> {
    let pairs = headers.as_array().unwrap().iter();
    pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_and_path_reaches_the_server_as_it_was_sent() {
    let stage = stage();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let method: Method = method.parse().unwrap();
        for path in
            ["web", "web/", "web/echo", "web/a%2Fb/c%20d/?x=1&y=%26&async=false", "web/echo/run/completions"]
        {
            let answer = ask(&stage, method.clone(), path).body("{\"not\" json").send().await.unwrap();
            assert_eq!(answer.status(), 200, "{method} {path}");
            let told = body(answer).await;
            let seen = path.strip_prefix("web").unwrap();
            let seen = if seen.is_empty() { "/" } else { seen };
            assert_eq!(told["path"], seen, "{method}");
            assert_eq!((&told["method"], &told["body"]), (&json!(method.as_str()), &json!("{\"not\" json")));
        }
    }
    let head = ask(&stage, Method::HEAD, "web/text").send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "7"));
    assert_eq!(head.bytes().await.unwrap().len(), 0);

    // What functions are called by is nothing here.
    let old = stage.call(&stage.v3("web/predict"), "{}").await;
    assert_eq!(old.status(), 404);
    assert!(old.text().await.unwrap().contains("is a web server of its own"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_cookies_stay_and_the_way_is_told() {
    let stage = stage();
    let answer = ask(&stage, Method::GET, "web/echo")
        .header("cookie", "session=mine")
        .header("x-own", "1")
        .header("x-forwarded-for", "1.2.3.4")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .send()
        .await
        .unwrap();
    let run = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let told = body(answer).await;
    let headers = &told["headers"];
    for kept_back in ["authorization", "cookie", "x-hop", "connection"] {
        assert!(value_of(headers, kept_back).is_empty(), "{kept_back} in {headers}");
    }
    assert_eq!(value_of(headers, "x-own"), ["1"]);
    assert_eq!(value_of(headers, "x-request-id"), [run.as_str()]);
    assert_eq!(value_of(headers, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(value_of(headers, "x-forwarded-prefix"), [stage.v4("web").as_str()]);
    let host = stage.home.url().strip_prefix("http://").unwrap().to_owned();
    assert_eq!(
        (value_of(headers, "host"), value_of(headers, "x-forwarded-host")),
        (vec![host.as_str()], vec![host.as_str()])
    );

    // The call is on record, by its path.
    let path = stage.control(&format!("runs/{run}"));
    let view = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
    assert_eq!((&view["state"], &view["statusCode"]), (&json!("succeeded"), &json!(200)), "{view}");
    assert_eq!(view["functionName"], "/echo", "{view}");
    log_with(&stage, "web", "served \\\"GET /echo HTTP/1.1\\\" 200").await;

    for request in
        [stage.bare(Method::GET, &stage.v4("web/echo")), stage.bare(Method::POST, &stage.v4("web/echo"))]
    {
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_back_as_it_is_and_inert() {
    let stage = stage();
    let page = get(&stage, "web/page").await;
    assert_eq!(page.headers()["content-security-policy"], "sandbox; default-src 'none'");
    assert_eq!(
        (
            page.headers()["x-content-type-options"].to_str().unwrap(),
            page.headers()["x-own"].to_str().unwrap()
        ),
        ("nosniff", "kept")
    );
    for gone in ["set-cookie", "strict-transport-security"] {
        assert!(!page.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(page.text().await.unwrap(), "<script>alert(1)</script>");

    let teapot = ask(&stage, Method::POST, "web/status/418").body("x").send().await.unwrap();
    assert_eq!((teapot.status().as_u16(), teapot.text().await.unwrap().as_str()), (418, "as you say"));
    let nothing = ask(&stage, Method::DELETE, "web/nothing").send().await.unwrap();
    assert_eq!((nothing.status().as_u16(), nothing.bytes().await.unwrap().len()), (204, 0));
    let image = get(&stage, "web/image").await;
    assert_eq!(image.headers()["content-type"], "image/png");
    assert_eq!(image.bytes().await.unwrap().as_ref(), b"\x89PNG\xff");

    // A redirection of a server that thinks the origin is its own leads below the app; the client follows it.
    let moved = ask(&stage, Method::POST, "web/moved").body("again").send().await.unwrap();
    assert_eq!(moved.url().path(), stage.v4("web/echo/there"));
    assert_eq!(body(moved).await["body"], "again");

    let cut = get(&stage, "web/cut").await;
    assert_eq!(cut.status(), 200);
    assert!(cut.bytes().await.is_err(), "half an answer is no answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_in_both_directions_while_they_are_made() {
    let stage = stage();
    // The answer begins before it is whole: its second half waits for a word.
    let events = get(&stage, "web/events").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut events = events.bytes_stream();
    assert_eq!(events.next().await.unwrap().unwrap().as_ref(), b"data: one\n\n");
    assert_eq!(get(&stage, "web/go").await.status(), 200);
    assert_eq!(events.next().await.unwrap().unwrap().as_ref(), b"data: two\n\n");
    assert!(events.next().await.is_none());

    // The server has the first half of a request before the second is sent.
    let (go_on, wait) = oneshot::channel::<()>();
    let halves =
        stream::once(async { Ok::<_, std::io::Error>(vec![b'a'; 100_000]) }).chain(stream::once(async {
            wait.await.unwrap();
            Ok(vec![b'b'; 3_000_000])
        }));
    let upload = ask(&stage, Method::PUT, "web/upload").body(reqwest::Body::wrap_stream(halves)).send();
    let upload = tokio::spawn(upload);
    until(&stage, "web/seen", |seen| *seen == json!(100_000)).await;
    go_on.send(()).unwrap();
    let told = body(upload.await.unwrap().unwrap()).await;
    assert_eq!(told["bytes"], 3_100_000);

    // A large answer, and its size is known to nobody beforehand.
    let large = get(&stage, "web/download?chunks=320").await.bytes().await.unwrap();
    assert_eq!(large.len(), 320 * 65_536);
    assert!(large.chunks(65_536).enumerate().all(|(index, chunk)| usize::from(chunk[0]) == index % 256));

    let refused =
        ask(&stage, Method::POST, "web/upload").header("content-length", "104857601").body("").send().await;
    // The client may see the end of the connection before the answer.
    if let Ok(refused) = refused {
        assert_eq!(refused.status(), 413);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_may_change_its_protocol() {
    let stage = stage();
    let stage = std::sync::Arc::new(stage);
    let talking = std::sync::Arc::clone(&stage);
    tokio::task::spawn_blocking(move || talk(&talking)).await.unwrap();
    let asked = get(&stage, "web/talk?async=true").await;
    assert_eq!(asked.status(), 202, "without the words for another protocol it is a run like others");
}

fn talk(stage: &Stage) {
    let url: Url = stage.home.url().parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (path, key) = (stage.v4("web/talk"), &stage.keys.public_key);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101") && head.to_lowercase().contains("upgrade: lines"), "{head}");
    let mut line = |expected: &str| {
        let mut said = String::new();
        reader.read_line(&mut said).unwrap();
        assert_eq!(said, expected);
    };
    line("hello\n");
    for word in ["one", "two", "bye"] {
        stream.write_all(format!("{word}\n").as_bytes()).unwrap();
        line(&format!("you said {word}\n"));
    }
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "the server has closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visit_ends_at_its_limit_with_504_and_what_streams_already_is_cut() {
    let stage = Stage::empty();
    let config = "[cerebrium.deployment]\nname = 'short'\n[cerebrium.scaling]\nresponse_grace_period = 1\n\
                  [cerebrium.runtime.custom]\nentrypoint = 'exec python server.py --port 8000'\n";
    changed(&stage, "short", config, |server| server);
    stage.deploy(&stage.home.scratch().join("short"), &["short"]);
    let note = stage.home.scratch().join("note");
    let late = get(&stage, &format!("short/nap?seconds=60&note={}", note.display())).await;
    assert_eq!(late.status(), 504);
    let told = body(late).await;
    assert_eq!(told["code"], "timeout", "{told}");
    assert!(told["message"].as_str().unwrap().contains("response_grace_period"), "{told}");
    // Its second event never comes.
    let streamed = get(&stage, "short/events").await;
    assert_eq!(streamed.status(), 200);
    streamed.text().await.expect_err("a stream that was cut does not look whole");
    assert_eq!(get(&stage, "short/text").await.status(), 200);
}
