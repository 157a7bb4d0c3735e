//! A call as code that makes it: curl, Python and JavaScript, to be copied and run as it stands.
//!
//! The key is not in it: `POSTBACK_API_KEY` holds it, as for the command line.

use std::fmt::Write as _;

use askama::Template;
use pages::inert::acts;
use pages::shell::quoted;
use serde_json::value::RawValue;

/// Larger bodies come from a file.
const INLINE_BYTES_MAX: usize = 8 << 10;
/// What it is called.
const BODY_FILE: &str = "input.json";

/// The same call in several languages.
#[derive(Debug, Template)]
#[template(path = "code.html")]
pub(crate) struct Code {
    /// Makes ids of one call differ from those of others on the page.
    id: String,
    /// The first language is unfolded.
    open: bool,
    curl: String,
    python: String,
    javascript: String,
    /// The body is to be saved as [`BODY_FILE`] first.
    from_file: bool,
}

impl Code {
    /// Of a `POST` of `body` to `url`.
    pub(crate) fn of(id: &str, url: &str, body: &str) -> Self {
        let body = plain(body);
        let from_file = body.len() > INLINE_BYTES_MAX;
        let (in_shell, in_python, in_javascript) = if from_file {
            (
                format!("@{BODY_FILE}"),
                format!("open({BODY_FILE:?}, \"rb\").read()"),
                format!("require(\"node:fs\").readFileSync({BODY_FILE:?})"),
            )
        } else {
            (
                word(&body),
                format!("{}.encode()", literal(&body, python_escape)),
                literal(&body, javascript_escape),
            )
        };
        let curl = format!(
            "curl {} \\\n  -H \"Authorization: Bearer $POSTBACK_API_KEY\" \\\n  -H 'Content-Type: application/json' \
             \\\n  --data-binary {in_shell}",
            quoted(url)
        );
        let python = format!(
            "import os, urllib.request\n\nrequest = urllib.request.Request(\n    {},\n    data={in_python},\n    \
             headers={{\n        \"Authorization\": \"Bearer \" + os.environ[\"POSTBACK_API_KEY\"],\n        \
             \"Content-Type\": \"application/json\",\n    }},\n)\nwith urllib.request.urlopen(request) as answer:\n    \
             print(answer.status, answer.read().decode())",
            literal(url, python_escape)
        );
        let javascript = format!(
            "fetch({}, {{\n  method: \"POST\",\n  headers: {{\n    Authorization: `Bearer \
             ${{process.env.POSTBACK_API_KEY}}`,\n    \"Content-Type\": \"application/json\",\n  }},\n  body: \
             {in_javascript},\n}}).then(async (answer) => console.log(answer.status, await answer.text()));",
            literal(url, javascript_escape)
        );
        Self { id: id.to_owned(), open: false, curl, python, javascript, from_file }
    }

    /// With the first language unfolded.
    pub(crate) fn unfolded(self) -> Self {
        Self { open: true, ..self }
    }
}

/// JSON that means the same, in which no character does anything but stand there.
pub(crate) fn plain(json: &str) -> String {
    let harmless = !json.chars().any(acts) || serde_json::from_str::<&RawValue>(json).is_err();
    if harmless {
        return json.to_owned();
    }
    // Outside its strings JSON has no such characters.
    let mut plain = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if acts(char) && char != '\r' {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(plain, "\\u{unit:04x}");
            }
        } else if char != '\r' {
            plain.push(char);
        }
    }
    plain
}

/// A word of a shell that may have several lines.
fn word(text: &str) -> String {
    if text.chars().any(acts) {
        quoted(text).into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A text in quotes. What JSON writes is understood by both languages.
fn literal(text: &str, escape: fn(char) -> String) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let mut literal = String::with_capacity(quoted.len());
    for char in quoted.chars() {
        if acts(char) {
            literal.push_str(&escape(char));
        } else {
            literal.push(char);
        }
    }
    literal
}

fn python_escape(char: char) -> String {
    format!("\\U{:08x}", u32::from(char))
}

fn javascript_escape(char: char) -> String {
    format!("\\u{{{:x}}}", u32::from(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:4100/v4/p-11111111/demo/run?async=true";

    #[test]
    fn what_stands_in_the_body_stays_in_its_quotes() {
        let code = Code::of("x", URL, "{\"a\": \"it's `id` $HOME \\\" \u{202e}\"}");
        assert!(
            code.curl.contains(r#"--data-binary '{"a": "it'\''s `id` $HOME \" \u202e"}'"#),
            "{}",
            code.curl
        );
        assert!(code.curl.starts_with("curl 'http://127.0.0.1:4100/v4/p-11111111/demo/run?async=true' \\\n"));
        assert!(
            code.python.contains(r#"data="{\"a\": \"it's `id` $HOME \\\" \\u202e\"}".encode()"#),
            "{}",
            code.python
        );
        assert!(code.javascript.contains(r#"body: "{\"a\": \"it's `id` $HOME \\\" \\u202e\"}","#));
        // What is no JSON is sent as it is, and still shown harmlessly.
        let broken = Code::of("x", URL, "{\u{202e}");
        assert!(broken.curl.ends_with(r"--data-binary $'{\U0000202e'"), "{}", broken.curl);
        assert!(broken.python.contains(r#"data="{\U0000202e".encode()"#), "{}", broken.python);
        assert!(broken.javascript.contains(r#"body: "{\u{202e}","#), "{}", broken.javascript);
    }

    #[test]
    fn json_is_made_plain_without_a_change_of_meaning() {
        let json = "{\r\n \"a\": [1.10, \"\u{e0041}\u{7f}é\"]}";
        assert_eq!(plain(json), "{\n \"a\": [1.10, \"\\udb40\\udc41\\u007fé\"]}");
        let same = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(same(&plain(json)), same(json));
    }

    #[test]
    fn a_large_body_comes_from_a_file() {
        let code = Code::of("x", URL, &format!("\"{}\"", "x".repeat(INLINE_BYTES_MAX)));
        assert!(code.from_file && code.curl.ends_with("@input.json"));
        assert!(code.python.contains("open(\"input.json\", \"rb\").read()") && code.python.len() < 1_000);
        assert!(code.javascript.contains("readFileSync(\"input.json\")"));
    }
}
