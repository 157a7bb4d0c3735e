//! Requests that are no requests, or lie about themselves.

use super::{Bystander, converse, impatient, statuses};
use crate::support::Stage;

/// What may come back: nothing but these, at most so many answers.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    allowed: &'static [u16],
}

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, allowed: &'static [u16]) -> Case {
    Case { name, bytes: bytes.into(), allowed }
}

/// A call of `echo` with more header lines and a body.
fn call(stage: &Stage, lines: &str, body: &str) -> String {
    format!(
        "POST {} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nConnection: close\r\n{lines}\r\n{body}",
        stage.v4("basic/echo"),
        stage.keys.public_key
    )
}

fn sized(stage: &Stage, body: &str) -> String {
    call(stage, &format!("Content-Length: {}\r\n", body.len()), body)
}

const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// Request lines and headers.
fn heads() -> Vec<Case> {
    let get = |lines: &str| format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    vec![
        case("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20), &[400]),
        case("SSH", "SSH-2.0-OpenSSH_9.2\r\n", &[400]),
        case("nothing but line ends", "\r\n".repeat(10_000), &[400]),
        case("zeros", vec![0; 4096], &[400]),
        case("no path", "GET\r\n\r\n", &[400]),
        case("no version", "GET /healthz\r\n\r\n", &[400]),
        case("a version of the future", "GET /healthz HTTP/9.9\r\n\r\n", &[400, 505]),
        case("a control character in the path", "GET /heal\x01thz HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        case("a long path", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000)), &[414, 431]),
        case(
            "a long method",
            format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(70_000)),
            &[400, 414, 431],
        ),
        case("no colon", get("NoColonHere\r\n"), &[400]),
        case("a space in a name", get("X Y: z\r\n"), &[400]),
        case("a space before the colon", get("X : z\r\n"), &[400]),
        case("a folded line", get("X: a\r\n b\r\n"), &[400]),
        case("NUL in a value", get("X: a\0b\r\n"), &[400]),
        case("a bare CR in a value", get("X: a\rb\r\n"), &[400]),
        case("101 headers", get(&"X: y\r\n".repeat(101)), &[431]),
        case("a million headers", get(&"X: y\r\n".repeat(1_000_000)), &[431]),
        case("one long header", get(&format!("X: {}\r\n", "y".repeat(70_000))), &[431]),
        case("a header without end", format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(1 << 20)), &[431]),
        case("CONNECT", "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: a\r\n\r\n", &[400, 404, 405]),
        case("TRACE", "TRACE /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[405]),
        case(
            "another server's address",
            "GET http://evil.example/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            &[404],
        ),
        case(
            "dots in the path",
            "GET /v4/../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            &[400, 401, 404, 405],
        ),
        case(
            "a path that is not UTF-8",
            "GET /v2/projects/%ff/apps HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            &[400, 401, 404],
        ),
    ]
}

/// Bodies that are not as long as they say, or say it twice.
fn lengths(stage: &Stage) -> Vec<Case> {
    let good = r#"{"value":1}"#;
    let chunked = |body: &str| call(stage, "Transfer-Encoding: chunked\r\n", body);
    let in_chunks = format!("{:x}\r\n{good}\r\n0\r\n\r\n", good.len());
    let both = |first: &str, second: &str| {
        format!("{}{SMUGGLED}", call(stage, &format!("{first}{second}"), &in_chunks))
    };
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    vec![
        case("a negative length", call(stage, "Content-Length: -1\r\n", good), &[400]),
        case("a length with a sign", call(stage, "Content-Length: +11\r\n", good), &[400]),
        case("a length in letters", call(stage, "Content-Length: eleven\r\n", good), &[400]),
        case("a list of lengths", call(stage, "Content-Length: 11, 12\r\n", good), &[400]),
        case("two lengths", call(stage, "Content-Length: 11\r\nContent-Length: 12\r\n", good), &[400]),
        case(
            "a length beyond all numbers",
            call(stage, "Content-Length: 99999999999999999999999\r\n", good),
            &[400, 413, 431],
        ),
        case(
            "a length of 2^64 - 1",
            call(stage, "Content-Length: 18446744073709551615\r\n", good),
            &[400, 413, 431],
        ),
        case("a length over the limit", call(stage, "Content-Length: 104857601\r\n", good), &[413]),
        case(
            "an oversize that asks first",
            call(stage, "Content-Length: 104857601\r\nExpect: 100-continue\r\n", ""),
            &[413],
        ),
        case("a body shorter than it says", call(stage, "Content-Length: 1000\r\n", good), &[400, 408]),
        case("chunks that are no numbers", chunked("zz\r\n{}\r\n0\r\n\r\n"), &[400]),
        case("a chunk beyond all numbers", chunked("fffffffffffffffff\r\n{}\r\n"), &[400]),
        case("a negative chunk", chunked("-1\r\n{}\r\n0\r\n\r\n"), &[400]),
        case("a chunk longer than it says", chunked("2\r\n{\"value\":1}\r\n0\r\n\r\n"), &[400]),
        case("chunks without an end", chunked("b\r\n{\"value\":1}\r\n"), &[400, 408]),
        case(
            "endless chunk extensions",
            chunked(&format!("b;{}\r\n{good}\r\n0\r\n\r\n", "x".repeat(1 << 20))),
            &[400],
        ),
        case(
            "a million trailers",
            chunked(&format!("b\r\n{good}\r\n0\r\n{}\r\n", "X: y\r\n".repeat(1_000_000))),
            &[400, 431],
        ),
        case("an unknown coding", call(stage, "Transfer-Encoding: identity\r\n", good), &[400]),
        case(
            "chunked, hidden",
            format!("{}{SMUGGLED}", call(stage, "Transfer-Encoding: xchunked\r\n", &in_chunks)),
            &[400],
        ),
        case(
            "chunked before something else",
            format!("{}{SMUGGLED}", call(stage, "Transfer-Encoding: chunked, identity\r\n", &in_chunks)),
            &[400],
        ),
        case(
            "two codings",
            format!(
                "{}{SMUGGLED}",
                call(stage, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &in_chunks)
            ),
            &[400],
        ),
        case(
            "a coding with a space before its colon",
            format!("{}{SMUGGLED}", call(stage, "Transfer-Encoding : chunked\r\n", &in_chunks)),
            &[400],
        ),
        case(
            "a folded coding",
            format!("{}{SMUGGLED}", call(stage, "Transfer-Encoding:\r\n chunked\r\n", &in_chunks)),
            &[400],
        ),
        case("chunks in HTTP/1.0", chunked(&in_chunks).replace("HTTP/1.1", "HTTP/1.0"), &[400]),
        // By the standard the chunks count, and nothing after them does.
        case("length and chunks", both(length, coding), &[200]),
        case("chunks and length", both(coding, length), &[200]),
        case(
            "length, chunks and length",
            both(length, "Transfer-Encoding: chunked\r\nContent-Length: 11\r\n"),
            &[200],
        ),
    ]
}

/// Bodies that are no JSON, or not what a call takes.
fn bodies(stage: &Stage) -> Vec<Case> {
    let deep = "[".repeat(100_000);
    let wrong = |name, body: &str| case(name, sized(stage, body), &[400, 422]);
    vec![
        wrong("depth 100,000", &format!(r#"{{"value":{deep}"#)),
        wrong("depth 100,000, closed", &format!(r#"{{"value":{deep}{}}}"#, "]".repeat(100_000))),
        wrong("objects to a depth of 50,000", &r#"{"value":"#.repeat(50_000)),
        wrong("a number", "1"),
        wrong("a text", r#""value""#),
        wrong("a list", "[1]"),
        wrong("half an object", r#"{"value":"#),
        wrong("two objects", r#"{"value":1}{"value":2}"#),
        wrong("a comma too many", r#"{"value":1,}"#),
        wrong("a bad escape", r#"{"value":"\x41"}"#),
        wrong("half a surrogate", r#"{"webhook_endpoint":"\ud800"}"#),
        wrong("a webhook that is a list of numbers", r#"{"value":1,"webhook_endpoint":[1,2]}"#),
        wrong(
            "a webhook twice",
            r#"{"value":1,"webhook_endpoint":"https://a.example/","webhook_endpoint":"http://127.0.0.1/"}"#,
        ),
        case(
            "not UTF-8",
            {
                let mut bytes = sized(stage, "{\"value\":\"ab\"}").into_bytes();
                let last = bytes.len() - 3;
                bytes[last] = 0xff;
                bytes
            },
            &[400],
        ),
        case(
            "compressed",
            call(stage, "Content-Encoding: gzip\r\nContent-Length: 4\r\n", "\x1f\u{b}ab"),
            &[415],
        ),
        case("no key", sized(stage, "{}").replace("Authorization", "X-Nothing"), &[401]),
        case("a key without end", sized(stage, "{}").replace("public-", &"a".repeat(60_000)), &[401]),
    ]
}

/// Whether it got an answer.
async fn refuse(stage: &Stage, case: &Case) -> bool {
    let said = converse(stage, &case.bytes).await;
    let seen = statuses(&said);
    assert!(seen.len() <= 1, "{}: more than one answer: {seen:?}", case.name);
    // Closed without a word is an answer as well, but not the wrong word.
    assert!(
        seen.iter().all(|status| case.allowed.contains(status)),
        "{}: {seen:?} instead of {:?}: {said:.300}",
        case.name,
        case.allowed
    );
    !seen.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_gets_4xx_or_nothing_and_never_a_second_answer() {
    let mut stage = impatient();
    let bystander = Bystander::begin(&stage);
    let cases: Vec<_> = [heads(), lengths(&stage), bodies(&stage)].into_iter().flatten().collect();
    let mut answered = 0;
    for case in &cases {
        answered += usize::from(refuse(&stage, case).await);
    }
    println!("{} malformed requests, {answered} answered", cases.len());
    assert!(answered * 5 > cases.len() * 4, "too many are closed without a word");
    bystander.end(&mut stage, "malformed requests").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_requests_never_get_5xx() {
    let seed = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()) | 1;
    let seed = std::env::var("POSTBACK_TEST_SEED").map_or(seed, |text| text.parse().unwrap());
    println!("seed: POSTBACK_TEST_SEED={seed}");
    let mut state = seed;
    let mut below = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(bound).unwrap()).unwrap()
    };
    let mut stage = impatient();
    let small = |case: &Case| case.bytes.len() < 2_000;
    let corpus: Vec<_> =
        [heads(), lengths(&stage), bodies(&stage)].into_iter().flatten().filter(small).collect();
    let bystander = Bystander::begin(&stage);
    for _ in 0..25 {
        let mut damaged = Vec::new();
        for _ in 0..16 {
            let mut bytes = corpus[below(corpus.len())].bytes.clone();
            for _ in 0..=below(4) {
                let at = below(bytes.len().max(1));
                match below(4) {
                    _ if bytes.is_empty() => {}
                    0 => bytes[at] = u8::try_from(below(256)).unwrap(),
                    1 => _ = bytes.remove(at),
                    2 => bytes.insert(at, b"\r\n\0 :;,{}[]\"\\0"[below(14)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            damaged.push(bytes);
        }
        let asked = damaged.iter().map(|bytes| converse(&stage, bytes));
        for (said, bytes) in futures_util::future::join_all(asked).await.iter().zip(&damaged) {
            let bad = statuses(said).into_iter().find(|status| *status >= 500);
            assert_eq!(bad, None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
    bystander.end(&mut stage, "400 damaged requests").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stage = impatient();
    let mut bytes = String::new();
    for number in 0..50 {
        let body = format!(r#"{{"value":{number}}}"#);
        bytes += &sized(&stage, &body).replace("Connection: close\r\n", "");
    }
    let said = converse(&stage, (bytes + &sized(&stage, r#"{"value":50}"#)).as_bytes()).await;
    assert_eq!(statuses(&said), [200; 51]);
    let mut at = 0;
    for number in 0..=50 {
        let found = said[at..].find(&format!(r#"{{"value":{number},"#));
        at += found.unwrap_or_else(|| panic!("answer {number} is missing or early"));
    }
}
