//! Shows the page of an inbox without the rest of the product:
//! `cargo run -p postback-inbox --example page`, and a few requests are there to look at.

#[path = "../tests/it/fake.rs"]
mod fake;

use std::net::Ipv4Addr;

use axum::body::Body;
use http::Request;
use queue::Timestamp;
use queue::signature::SigningKey;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example talks to its terminal")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 4107)).await?;
    let public_url = "http://127.0.0.1:4107";
    let memory = fake::Memory::new();
    let router = fake::room(&memory, public_url).router();
    if std::env::args().nth(1).as_deref() != Some("--empty") {
        for request in samples() {
            router.clone().oneshot(request).await?;
        }
    }
    println!("{public_url}/inboxes/{}?token={}", fake::ID, fake::TOKEN);
    axum::serve(listener, router).await?;
    Ok(())
}

fn samples() -> Vec<Request<Body>> {
    let key = SigningKey::parse(fake::SECRET).expect("a secret");
    let request = |method: &str, path: &str| {
        Request::builder()
            .method(method)
            .uri(format!("/inbox/{}{path}", fake::ID))
            .header("host", "127.0.0.1:4107")
            .header("user-agent", "postback/0.1.0")
    };
    let webhook = "{\"run_id\":\"019c13f2-5a00-7c3e-9b1f-2d4e6f8a0b1c\",\"message\":\"Finished inference \
                   request with run_id: `019c13f2-5a00-7c3e-9b1f-2d4e6f8a0b1c`\",\"result\":{\"result\":\
                   \"Delayed for 0 mins\",\"seed\":123456789012345678901234567890,\"scores\":[0.5, 0.25],\
                   \"done\":true},\"status_code\":200,\"run_time_ms\":1.757}";
    let signed = |signature: String, at: Timestamp| {
        request("POST", "")
            .header("content-type", "application/json")
            .header("webhook-id", "msg_019c13f25a007c3e9b1f2d4e6f8a0b1c_0")
            .header("webhook-timestamp", at.as_secs().to_string())
            .header("webhook-signature", signature)
            .body(Body::from(webhook))
            .expect("a request")
    };
    let id = "msg_019c13f25a007c3e9b1f2d4e6f8a0b1c_0";
    let hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\n\u{1b}[31mred\u{1b}[0m and \
                   user\u{202e}gpj.exe";
    vec![
        request("GET", "/ping?from=browser")
            .header("accept", "text/html")
            .body(Body::empty())
            .expect("a request"),
        request("PUT", "/upload")
            .body(Body::from(vec![0x89, 0x50, 0x4e, 0x47, 0, 0xff, 0xfe]))
            .expect("a request"),
        request("POST", "/hostile")
            .header("x-note", "<i>hi</i>")
            .body(Body::from(hostile))
            .expect("a request"),
        signed("v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into(), fake::NOON),
        signed(key.sign(id, fake::NOON, webhook.as_bytes()), fake::NOON),
    ]
}
