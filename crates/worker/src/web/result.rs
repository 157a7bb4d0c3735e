//! From the answer of a web server to the result of a run, which is JSON: a JSON answer as it is, other text as
//! a string, anything else in base64 beside its type, an empty answer as `null`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, header};
use queue::limits::RESULT_BYTES_MAX;
use queue::outcome::{Code, RunError};
use serde_json::value::RawValue;

/// The result.
pub(super) fn of(headers: &HeaderMap, body: Bytes) -> Result<Bytes, RunError> {
    if body.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_encoded = headers.contains_key(header::CONTENT_ENCODING);
    if is_json(&kind) && !is_encoded && serde_json::from_slice::<&RawValue>(&body).is_ok() {
        return Ok(body);
    }
    let text = std::str::from_utf8(&body).ok().filter(|_| is_text(&kind) && !is_encoded);
    let json = match text {
        Some(text) => serde_json::to_vec(text),
        None => {
            let kind = if kind.is_empty() { "application/octet-stream" } else { said };
            let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
            let mut object = serde_json::Map::new();
            object.insert("content_type".into(), kind.into());
            if let Some(encoding) = encoding {
                object.insert("content_encoding".into(), encoding.into());
            }
            object.insert("base64".into(), STANDARD.encode(&body).into());
            serde_json::to_vec(&object)
        }
    };
    let json = json.unwrap_or_default();
    if json.len() > RESULT_BYTES_MAX {
        let message = format!("the answer is {} bytes as JSON; {RESULT_BYTES_MAX} are allowed", json.len());
        return Err(RunError::new(Code::ResultTooLarge, message));
    }
    Ok(json.into())
}

fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind.ends_with("+json")
}

fn is_text(kind: &str) -> bool {
    const TEXTS: [&str; 6] = [
        "",
        "application/xml",
        "application/javascript",
        "application/x-www-form-urlencoded",
        "application/x-ndjson",
        "application/yaml",
    ];
    // What says that it is JSON and is none is shown as it stands there.
    is_json(kind) || kind.starts_with("text/") || kind.ends_with("+xml") || TEXTS.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(kind: &'static str, body: &'static [u8]) -> String {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        String::from_utf8(of(&headers, Bytes::from_static(body)).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn json_stays_to_the_byte() {
        assert_eq!(result("application/json", br#"{"a" : 1.0e2}"#), r#"{"a" : 1.0e2}"#);
        assert_eq!(result("application/problem+json; charset=utf-8", b"[1]"), "[1]");
        assert_eq!(result("application/json", b"{\"a\""), r#""{\"a\"""#);
    }

    #[test]
    fn text_is_a_string_and_nothing_is_null() {
        assert_eq!(result("text/html; charset=utf-8", b"<p>\"a\""), r#""<p>\"a\"""#);
        assert_eq!(result("", b"plain"), r#""plain""#);
        assert_eq!(result("text/plain", b""), "null");
    }

    #[test]
    fn other_bytes_are_base64_beside_their_type() {
        assert_eq!(result("image/png", b"\x89PNG"), r#"{"base64":"iVBORw==","content_type":"image/png"}"#);
        assert_eq!(result("", b"\xff"), r#"{"base64":"/w==","content_type":"application/octet-stream"}"#);
        assert_eq!(result("text/plain", b"\xff"), r#"{"base64":"/w==","content_type":"text/plain"}"#);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let json = of(&headers, Bytes::from_static(b"[1]")).unwrap();
        assert!(json.starts_with(br#"{"base64":"WzFd""#), "{json:?}");
    }
}
