//! What can be asked over HTTP: the server's own OpenAPI document as a page, with a line to paste for each operation.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use queue::ProjectId;
use serde::Deserialize;
use serde_json::Value;

use crate::Shared;
use crate::assets::Frame;
use crate::session::SignedIn;

/// Methods in the order in which people think of them.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Words of a search that count.
const WORDS_MAX: usize = 16;

#[derive(Deserialize)]
pub(crate) struct Search {
    q: Option<String>,
}

/// A piece of a sentence: words, or something to type.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    code: bool,
    text: String,
}

/// The sentence with what stands in backquotes told apart.
fn pieces(sentence: &str) -> Vec<Piece> {
    let parts = sentence.split('`').enumerate().filter(|(_, text)| !text.is_empty());
    parts.map(|(number, text)| Piece { code: number % 2 == 1, text: text.to_owned() }).collect()
}

/// A parameter of an operation.
#[derive(Debug)]
struct Parameter {
    name: String,
    place: String,
    about: Vec<Piece>,
}

/// One thing that can be asked.
#[derive(Debug)]
struct Operation {
    /// Its anchor on the page.
    id: String,
    method: String,
    path: String,
    who: String,
    summary: Vec<Piece>,
    parameters: Vec<Parameter>,
    body: Option<String>,
    answer: Vec<Piece>,
    curl: String,
    /// What a search looks through.
    words: String,
}

/// Operations on one kind of thing.
#[derive(Debug)]
struct Group {
    title: String,
    operations: Vec<Operation>,
}

#[derive(Template)]
#[template(path = "api.html")]
struct ApiPage {
    frame: Frame,
    query: String,
    groups: Vec<Group>,
    found: usize,
}

/// `/dashboard/api`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Query(search): Query<Search>,
) -> Response {
    let query = search.q.unwrap_or_default();
    let groups = groups(&room.options.api, &project, &query);
    let page = ApiPage {
        frame: Frame::new(Some(project.to_string())),
        found: groups.iter().map(|group| group.operations.len()).sum(),
        query: pages::inert::visible(&query).into_owned(),
        groups,
    };
    pages::html(StatusCode::OK, &page)
}

/// The operations that a search finds, by what they are about, in the order of their paths.
fn groups(document: &Value, project: &ProjectId, query: &str) -> Vec<Group> {
    let words: Vec<String> = query.split_whitespace().take(WORDS_MAX).map(str::to_lowercase).collect();
    let base = text(&document["servers"][0]["url"]);
    let mut groups: Vec<Group> = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            let Some(operation) = methods.get(method) else { continue };
            let operation = Operation::of(method, path, operation, &base, project);
            if !words.iter().all(|word| operation.words.contains(word)) {
                continue;
            }
            let title = title(path);
            match groups.iter_mut().find(|group| group.title == title) {
                Some(group) => group.operations.push(operation),
                None => groups.push(Group { title, operations: vec![operation] }),
            }
        }
    }
    // Calls are what most come for, by the newest words.
    for group in &mut groups {
        group.operations.sort_by_key(|one| (!one.path.starts_with("/v4"), !one.path.starts_with("/v2")));
    }
    groups.sort_by_key(|group| (group.title != CALLS, group.title == SERVER));
    groups
}

const CALLS: &str = "Calls";
const SERVER: &str = "Server";

/// What a path is about: the last kind of thing that it names before what is done with it.
fn title(path: &str) -> String {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let title = match (parts.next(), parts.next(), parts.next()) {
        (Some("v3" | "v4"), Some("{project}"), _) => return CALLS.to_owned(),
        (Some("v2"), Some("projects"), Some("{project}")) => parts.next().unwrap_or("projects"),
        (Some("v2"), Some("projects"), _) => "projects",
        (Some("uploads"), ..) => "apps",
        _ => return SERVER.to_owned(),
    };
    let title = title.replace('-', " ");
    let (first, rest) = title.split_at(title.len().min(1));
    format!("{}{rest}", first.to_uppercase())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Operation {
    fn of(method: &str, path: &str, operation: &Value, base: &str, project: &ProjectId) -> Self {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters = parameters.map(|parameter| Parameter {
            name: text(&parameter["name"]),
            place: text(&parameter["in"]),
            about: pieces(&text(&parameter["description"])),
        });
        let sample = &operation["requestBody"]["content"]["application/json"]["example"];
        let body = (!sample.is_null()).then(|| sample.to_string());
        let method = method.to_uppercase();
        let (summary, answer) =
            (text(&operation["summary"]), text(&operation["responses"]["200"]["description"]));
        let mut words =
            vec![method.clone(), path.to_owned(), text(&operation["x-who"]), summary.clone(), answer.clone()];
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            words.extend([text(&parameter["name"]), text(&parameter["description"])]);
        }
        let needs_key = operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
        Self {
            id: format!("{method}{path}").to_lowercase().replace(['/', '{', '}'], "-").replace("--", "-"),
            who: text(&operation["x-who"]),
            summary: pieces(&summary),
            parameters: parameters.collect(),
            answer: pieces(&answer),
            words: words.join(" ").to_lowercase(),
            curl: curl(&method, &format!("{base}{path}"), needs_key, body.as_deref(), project),
            body: body.map(|body| pages::pretty(&body, usize::MAX).unwrap_or(body)),
            path: path.to_owned(),
            method,
        }
    }
}

/// A line for a shell. What stands in braces is for whoever pastes it to fill in.
fn curl(method: &str, address: &str, needs_key: bool, body: Option<&str>, project: &ProjectId) -> String {
    let address = address.replace("{project}", project.as_str());
    let mut line = match method {
        "GET" => "curl".to_owned(),
        _ => format!("curl -X {method}"),
    };
    if address.contains('{') {
        line.push_str(" --globoff");
    }
    line.push_str(&format!(" '{address}'"));
    if needs_key {
        line.push_str(" \\\n  -H \"Authorization: Bearer $POSTBACK_API_KEY\"");
    }
    if let Some(body) = body {
        let body = body.replace('\'', "'\\''");
        line.push_str(&format!(" \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        let key = json!([{"key": []}]);
        json!({
            "servers": [{"url": "http://127.0.0.1:4100"}],
            "paths": {
                "/openapi.json": {"get": {"summary": "this document", "security": [], "x-who": "anybody"}},
                "/v2/projects/{project}/runs/{run}": {
                    "delete": {"summary": "cancels a run", "security": key, "x-who": "private key"},
                    "get": {
                        "summary": "one run",
                        "security": key,
                        "parameters": [{"name": "wait", "in": "query", "description": "seconds to wait"}],
                        "responses": {"200": {"description": "`{id, state}`"}},
                    },
                },
                "/v4/{project}/{app}/{function}": {"post": {
                    "summary": "calls a function",
                    "security": key,
                    "requestBody": {"content": {"application/json": {"example": {"prompt": "it's"}}}},
                }},
            },
        })
    }

    fn found(query: &str) -> Vec<(String, Vec<String>)> {
        let project: ProjectId = "p-11111111".parse().unwrap();
        let groups = groups(&document(), &project, query);
        let names = |group: &Group| {
            group.operations.iter().map(|one| format!("{} {}", one.method, one.path)).collect()
        };
        groups.iter().map(|group| (group.title.clone(), names(group))).collect()
    }

    #[test]
    fn operations_stand_with_what_they_are_about_and_calls_stand_first() {
        let titles: Vec<_> = found("").into_iter().map(|(title, _)| title).collect();
        assert_eq!(titles, ["Calls", "Runs", "Server"]);
        let run = "/v2/projects/{project}/runs/{run}";
        assert_eq!(found("")[1].1, [format!("GET {run}"), format!("DELETE {run}")]);
    }

    #[test]
    fn a_search_finds_words_in_any_of_the_texts() {
        assert_eq!(
            found("seconds RUN"),
            [("Runs".to_owned(), vec!["GET /v2/projects/{project}/runs/{run}".to_owned()])]
        );
        assert_eq!(found("delete")[0].1.len(), 1);
        assert!(found("no-such-word").is_empty());
    }

    #[test]
    fn what_is_typed_is_told_apart_from_words() {
        let piece = |code, text: &str| Piece { code, text: text.into() };
        assert_eq!(pieces("those that are `kept`"), [piece(false, "those that are "), piece(true, "kept")]);
        assert_eq!(pieces("`{id}`"), [piece(true, "{id}")]);
    }

    #[test]
    fn each_line_can_be_pasted() {
        let project: ProjectId = "p-11111111".parse().unwrap();
        let groups = groups(&document(), &project, "");
        assert_eq!(
            groups[0].operations[0].curl,
            "curl -X POST --globoff 'http://127.0.0.1:4100/v4/p-11111111/{app}/{function}' \\\n  -H \"Authorization: Bearer \
             $POSTBACK_API_KEY\" \\\n  -H 'Content-Type: application/json' \\\n  -d '{\"prompt\":\"it'\\''s\"}'"
        );
        assert_eq!(groups[2].operations[0].curl, "curl 'http://127.0.0.1:4100/openapi.json'");
    }
}
