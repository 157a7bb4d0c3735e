//! One thing that can be asked over HTTP, as the OpenAPI document tells of it: a form to fill in, and a line to paste.

use pages::inert::visible;
use pages::shell::quoted;
use queue::ProjectId;
use serde_json::Value;

use super::came::Came;
use crate::code::plain;
use crate::sent::Sent;

/// The parameter that the session says, whatever stands elsewhere.
const PROJECT: &str = "project";
const JSON: &str = "application/json";

/// A piece of a sentence: words, or something to type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) code: bool,
    pub(super) text: String,
}

/// The sentence with what stands in backquotes told apart.
fn pieces(sentence: &str) -> Vec<Piece> {
    let parts = sentence.split('`').enumerate().filter(|(_, text)| !text.is_empty());
    parts.map(|(number, text)| Piece { code: number % 2 == 1, text: text.to_owned() }).collect()
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

impl Place {
    fn of(word: &str) -> Option<Self> {
        [Self::Path, Self::Query, Self::Header].into_iter().find(|place| place.as_str() == word)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
        }
    }
}

/// A parameter of an operation, and what was written for it.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) about: Vec<Piece>,
    /// It may stand there several times: one value in a line.
    pub(super) several: bool,
    pub(super) value: String,
    /// What is wrong with the value.
    pub(super) trouble: Option<&'static str>,
}

impl Parameter {
    fn of(said: &Value) -> Option<Self> {
        let (name, place) = (text(&said["name"]), Place::of(said["in"].as_str()?)?);
        (name != PROJECT || place != Place::Path).then(|| Self {
            about: pieces(&text(&said["description"])),
            several: said["schema"]["type"] == "array",
            value: String::new(),
            trouble: None,
            name,
            place,
        })
    }

    /// What the form calls it.
    pub(super) fn field(&self) -> String {
        format!("{}.{}", self.place.as_str(), self.name)
    }

    /// What was written, each value of it.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        let lines = if self.several { self.value.lines() } else { "".lines() };
        let whole = (!self.several).then_some(self.value.as_str());
        whole.into_iter().chain(lines).map(str::trim).filter(|value| !value.is_empty())
    }
}

/// One thing that can be asked.
#[derive(Debug)]
pub(super) struct Operation {
    /// Its anchor on the page, and its own page.
    pub(super) id: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) who: String,
    pub(super) summary: Vec<Piece>,
    pub(super) parameters: Vec<Parameter>,
    /// The body that it takes, to be changed.
    pub(super) body: Option<String>,
    /// What its body is, where that is not JSON: such a one cannot be written here.
    pub(super) other_body: Option<String>,
    pub(super) answer: Vec<Piece>,
    /// What it does cannot be taken back.
    pub(super) is_final: bool,
    pub(super) curl: String,
    /// What has to be agreed to before it is sent.
    pub(super) asks: Option<String>,
    pub(super) came: Option<Came>,
    /// What a search looks through.
    words: String,
    /// The server's address, without a slash at its end.
    base: String,
    needs_key: bool,
    project: ProjectId,
}

impl Operation {
    pub(super) fn of(method: &str, path: &str, operation: &Value, base: &str, project: &ProjectId) -> Self {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let content = &operation["requestBody"]["content"];
        let sample = &content[JSON]["example"];
        let body = (!sample.is_null()).then(|| sample.to_string());
        let other_body = content.as_object().and_then(|content| content.keys().find(|kind| *kind != JSON));
        let method = method.to_uppercase();
        let (summary, answer) =
            (text(&operation["summary"]), text(&operation["responses"]["200"]["description"]));
        let mut words =
            vec![method.clone(), path.to_owned(), text(&operation["x-who"]), summary.clone(), answer.clone()];
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            words.extend([text(&parameter["name"]), text(&parameter["description"])]);
        }
        let mut operation = Self {
            id: id(&method, path),
            who: text(&operation["x-who"]),
            summary: pieces(&summary),
            parameters: parameters.filter_map(Parameter::of).collect(),
            answer: pieces(&answer),
            words: words.join(" ").to_lowercase(),
            needs_key: operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty()),
            is_final: operation["x-final"] == true,
            body: body.map(|body| pages::pretty(&body, usize::MAX).unwrap_or(body)),
            other_body: other_body.cloned(),
            path: path.to_owned(),
            base: base.to_owned(),
            project: project.clone(),
            curl: String::new(),
            asks: None,
            came: None,
            method,
        };
        operation.curl = operation.line();
        operation
    }

    /// Whether a search finds it.
    pub(super) fn says(&self, words: &[String]) -> bool {
        words.iter().all(|word| self.words.contains(word))
    }

    /// Takes what was written; `false` when something about it is wrong, which stands beside it then.
    pub(super) fn fill(&mut self, sent: &Sent) -> bool {
        for parameter in &mut self.parameters {
            let value = sent.get(&parameter.field()).unwrap_or_default();
            parameter.value = value.replace("\r\n", "\n");
            parameter.trouble = match parameter.place {
                Place::Path if value.trim().is_empty() => Some("The path needs it."),
                Place::Header if http::HeaderValue::from_bytes(value.trim().as_bytes()).is_err() => {
                    Some("A header has one line, without control characters.")
                }
                _ => None,
            };
        }
        if let Some(body) = &mut self.body
            && let Some(written) = sent.get("body")
        {
            *body = plain(&written.replace("\r\n", "\n"));
        }
        self.curl = self.line();
        self.parameters.iter().all(|parameter| parameter.trouble.is_none())
    }

    fn written(&self, place: Place) -> impl Iterator<Item = (&str, &str)> {
        let there = self.parameters.iter().filter(move |parameter| parameter.place == place);
        there.flat_map(|parameter| parameter.values().map(|value| (parameter.name.as_str(), value)))
    }

    /// Path and query. What was not written for the path stays in braces.
    pub(super) fn target(&self) -> String {
        let parts = self.path.split('/').map(|part| {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                None => part.to_owned(),
                Some(PROJECT) => self.project.to_string(),
                Some(name) => {
                    let written = self.written(Place::Path).find(|(known, _)| *known == name);
                    written.map_or_else(|| part.to_owned(), |(_, value)| segment(value))
                }
            }
        });
        let mut target = parts.collect::<Vec<_>>().join("/");
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.written(Place::Query));
        let query = query.finish();
        if !query.is_empty() {
            target.push('?');
            target.push_str(&query);
        }
        target
    }

    /// The headers that were written, with the body's own.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        let written = self.written(Place::Header).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let kind = self.sent_body().map(|_| ("Content-Type".to_owned(), JSON.to_owned()));
        written.chain(kind).collect()
    }

    /// The body, unless it was left empty.
    pub(super) fn sent_body(&self) -> Option<&str> {
        self.body.as_deref().filter(|body| !body.trim().is_empty())
    }

    /// A line for a shell. What stands in braces is for whoever pastes it to fill in.
    fn line(&self) -> String {
        let address = format!("{}{}", self.base, self.target());
        let mut line = match self.method.as_str() {
            "GET" => "curl".to_owned(),
            method => format!("curl -X {method}"),
        };
        if address.contains('{') {
            line.push_str(" --globoff");
        }
        // Else curl asks for what stands above it.
        if self.written(Place::Path).any(|(_, value)| matches!(value, "." | "..")) {
            line.push_str(" --path-as-is");
        }
        line.push_str(&format!(" '{address}'"));
        if self.needs_key {
            line.push_str(" \\\n  -H \"Authorization: Bearer $POSTBACK_API_KEY\"");
        }
        for (name, value) in self.headers() {
            line.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
        }
        if self.other_body.is_some() {
            line.push_str(" \\\n  --data-binary @FILE");
        }
        if let Some(body) = self.sent_body() {
            line.push_str(&format!(" \\\n  --data-raw {}", quoted(&compact(body))));
        }
        line
    }
}

/// The words of method and path, joined.
fn id(method: &str, path: &str) -> String {
    let words = path.split(['/', '{', '}']).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("-").to_lowercase()
}

/// A value as a segment of a path: a slash in it is no other segment.
fn segment(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20")
}

/// JSON in one line, its values as they were written; what is none stays as it is.
fn compact(body: &str) -> String {
    match serde_json::from_str::<Value>(body) {
        Ok(_) => body.lines().map(str::trim).collect::<Vec<_>>().join(""),
        Err(_) => body.to_owned(),
    }
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().map(|text| visible(text).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operation(method: &str, path: &str, said: &Value) -> Operation {
        Operation::of(method, path, said, "http://127.0.0.1:4100", &"p-11111111".parse().unwrap())
    }

    fn in_place(name: &str, place: &str) -> Value {
        json!({"name": name, "in": place, "schema": {"type": "string"}})
    }

    fn call() -> Operation {
        let metadata = json!({"name": "metadata", "in": "query", "schema": {"type": "array"}});
        let said = json!({
            "security": [{"key": []}],
            "parameters": [in_place("project", "path"), in_place("app", "path"), metadata, in_place("X-Priority", "header")],
            "requestBody": {"content": {"application/json": {"example": {"prompt": "it's"}}}},
        });
        operation("post", "/v4/{project}/{app}/run", &said)
    }

    #[test]
    fn what_is_typed_is_told_apart_from_words() {
        let piece = |code, text: &str| Piece { code, text: text.into() };
        assert_eq!(pieces("those that are `kept`"), [piece(false, "those that are "), piece(true, "kept")]);
        assert_eq!(pieces("`{id}`"), [piece(true, "{id}")]);
    }

    #[test]
    fn a_line_can_be_pasted_before_and_after_it_was_filled_in() {
        let mut call = call();
        let key = "-H \"Authorization: Bearer $POSTBACK_API_KEY\"";
        let (kind, body) = ("-H 'Content-Type: application/json'", "--data-raw '{\"prompt\": \"it'\\''s\"}'");
        let address = "curl -X POST --globoff 'http://127.0.0.1:4100/v4/p-11111111/{app}/run'";
        assert_eq!(call.curl, [address, key, kind, body].join(" \\\n  "));
        let filled: &[(&str, &str)] = &[
            ("path.app", " a/b'c "),
            ("query.metadata", "order=17\r\n\r\nwho=A & B"),
            ("header.X-Priority", "it's 7"),
            ("body", ""),
        ];
        assert!(call.fill(&filled.into()));
        let address = "curl -X POST 'http://127.0.0.1:4100/v4/p-11111111/a%2Fb%27c/run?metadata=order%3D17&metadata=who%3DA+%26+B'";
        assert_eq!(call.curl, [address, key, "-H 'X-Priority: it'\\''s 7'"].join(" \\\n  "));
        assert_eq!(call.headers(), [("X-Priority".to_owned(), "it's 7".to_owned())]);
        assert_eq!(call.sent_body(), None);

        let above: &[(&str, &str)] = &[("path.app", ".."), ("body", "")];
        call.fill(&above.into());
        assert!(
            call.curl.starts_with("curl -X POST --path-as-is 'http://127.0.0.1:4100/v4/p-11111111/../run'"),
            "{}",
            call.curl
        );

        let open = operation("get", "/openapi.json", &json!({"security": []}));
        assert_eq!(open.curl, "curl 'http://127.0.0.1:4100/openapi.json'");
        let archive = json!({"requestBody": {"content": {"application/zip": {}}}});
        assert!(operation("put", "/uploads/{build}", &archive).curl.ends_with(" --data-binary @FILE"));
    }

    #[test]
    fn what_the_session_says_is_not_asked_and_what_is_missing_is_named() {
        let mut call = call();
        assert!(call.parameters.iter().all(|parameter| parameter.name != "project"));
        // A field of this name is nobody's.
        let filled: &[(&str, &str)] =
            &[("path.project", "p-22222222"), ("path.app", " "), ("header.X-Priority", "7\r\nX-Evil: 1")];
        assert!(!call.fill(&filled.into()));
        let troubles: Vec<_> = call.parameters.iter().map(|parameter| parameter.trouble.is_some()).collect();
        assert_eq!(troubles, [true, false, true]);
        assert!(call.target().starts_with("/v4/p-11111111/{app}"), "{}", call.target());
    }

    #[test]
    fn a_body_is_sent_as_it_was_written() {
        let mut call = call();
        let written: &[(&str, &str)] =
            &[("path.app", "a"), ("body", "{\"n\": 1.10,\r\n \"n\": 12345678901234567890123}")];
        assert!(call.fill(&written.into()));
        assert_eq!(call.sent_body(), Some("{\"n\": 1.10,\n \"n\": 12345678901234567890123}"));
        assert!(
            call.curl.ends_with("--data-raw '{\"n\": 1.10,\"n\": 12345678901234567890123}'"),
            "{}",
            call.curl
        );
    }
}
