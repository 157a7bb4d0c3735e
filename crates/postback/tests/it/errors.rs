//! What bad input gets: a status, a code, a message to act on; never a hang, never a lost run.

use reqwest::Method;
use serde_json::json;

use testkit::server::Home;

use crate::support::{Stage, app_folder, binary, json as body};

#[tokio::test]
async fn bad_input_gets_a_clear_answer() {
    let stage = Stage::basic();
    let echo = stage.v4("basic/echo");
    let deep = format!(r#"{{"value":{}1{}}}"#, "[".repeat(128), "]".repeat(128));
    let hook = |url: &str| json!({"value": 1, "webhook_endpoint": url}).to_string();
    let cases: Vec<(&str, String, String, u16, &str)> = vec![
        ("malformed", echo.clone(), r#"{"value": 1,}"#.into(), 400, "line 1"),
        ("no object", echo.clone(), "[1]".into(), 400, "object"),
        ("too deep", echo.clone(), deep, 400, "128"),
        ("missing parameter", echo.clone(), "{}".into(), 422, "value"),
        ("unknown function", stage.v4("basic/nothing"), "{}".into(), 404, "echo"),
        ("hidden function", stage.v4("basic/_hidden"), "{}".into(), 404, "echo"),
        ("unknown app", stage.v4("nothing/echo"), "{}".into(), 404, ""),
        ("loopback of others", echo.clone(), hook("http://[::1]:9/"), 422, "--allow-private-webhooks"),
        ("metadata", echo.clone(), hook("http://169.254.169.254/latest"), 422, ""),
        ("plain http", echo.clone(), hook("http://93.184.216.34/x"), 422, "https"),
        ("no url", echo.clone(), hook("not a url"), 422, ""),
        ("other scheme", echo.clone(), hook("ftp://example.com/"), 422, "https"),
        ("no text", echo.clone(), r#"{"value":1,"webhook_endpoint":7}"#.into(), 422, "webhook_endpoint"),
        ("exception", stage.v4("basic/fail"), r#"{"message":"boom"}"#.into(), 500, "boom"),
        ("nan", stage.v4("basic/not_json"), "{}".into(), 500, ""),
        ("death", stage.v4("basic/die"), r#"{"status":3}"#.into(), 500, "3"),
    ];
    for (case, path, request, status, hint) in cases {
        let answer = stage.call(&path, request).await;
        let seen = answer.status().as_u16();
        let answer = body(answer).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(seen, status, "{case}: {answer}");
        assert!(message.contains(hint), "{case}: {message}");
        assert!(answer["code"].is_string(), "{case}: {answer}");
    }
    // None of it has harmed the app.
    assert_eq!(stage.call(&echo, r#"{"value":1}"#).await.status(), 200);
}

#[tokio::test]
async fn a_key_opens_its_own_project_only() {
    let stage = Stage::basic();
    let echo = stage.v4("basic/echo");
    let ask = |key: Option<&str>, path: &str| {
        let request = stage.bare(Method::POST, path).body(r#"{"value":1}"#);
        match key {
            Some(key) => request.header("authorization", key),
            None => request,
        }
        .send()
    };
    assert_eq!(ask(None, &echo).await.unwrap().status(), 401);
    assert_eq!(ask(Some("public-nonsense"), &echo).await.unwrap().status(), 401);
    assert_eq!(ask(Some("Bearer a.b.c.d.e"), &echo).await.unwrap().status(), 401);
    for key in [&stage.keys.public_key, &stage.keys.private_key, &stage.keys.service_account_token] {
        assert_eq!(ask(Some(key), &echo).await.unwrap().status(), 200);
        assert_eq!(ask(Some(&format!("Bearer {key}")), &echo).await.unwrap().status(), 200);
    }
    // Another project's app and an app that nobody has answer with the same bytes.
    let other = ask(Some(&stage.keys.public_key), "/v4/p-00000000/basic/echo").await.unwrap();
    let unknown = ask(Some(&stage.keys.public_key), &stage.v4("nothing/echo")).await.unwrap();
    assert_eq!((other.status(), unknown.status()), (404.try_into().unwrap(), 404.try_into().unwrap()));
    let apps =
        stage.bare(Method::GET, &stage.control("apps")).header("authorization", &stage.keys.public_key);
    assert_eq!(apps.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let stage = Stage::basic();
    let address = stage.home.url().trim_start_matches("http://").to_owned();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n",
        stage.v4("basic/echo"),
        stage.keys.public_key,
        queue::limits::REQUEST_BODY_BYTES_MAX + 1
    );
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_main_py_that_cannot_be_imported_leaves_the_old_version_live() {
    let stage = Stage::basic();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cerebrium.toml"), "[cerebrium.deployment]\nname = \"basic\"\n")
        .unwrap();
    std::fs::write(folder.path().join("main.py"), "import nothing_of_this_name\n").unwrap();
    let output = stage.home.command().current_dir(folder.path()).args(["deploy", "basic"]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("init_failure") && said.contains("nothing_of_this_name"), "{said}");
    assert_eq!(stage.call(&stage.v4("basic/echo"), r#"{"value":1}"#).await.status(), 200);
}

#[tokio::test]
async fn a_server_on_every_address_is_its_own_at_each_of_them() {
    let stage = Stage::on(Home::new(binary()).listening_on("0.0.0.0"));
    stage.deploy(&app_folder("basic"), &["basic"]);
    let port = stage.home.url().rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost"] {
        let hook = format!("http://{host}:{port}/v2/projects");
        let call = json!({"value": 1, "webhook_endpoint": hook}).to_string();
        let answer = stage.call(&stage.v4("basic/echo"), call).await;
        assert_eq!(answer.status(), 422, "{host}");
        let message = body(answer).await["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("the server itself"), "{host}: {message}");
    }
}
