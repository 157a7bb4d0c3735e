//! The OpenAPI document, made from the table that the router is made from. Calls of functions stand in front: their
//! paths are the apps', and no router holds them.

use axum::Json;
use axum::extract::State;
use http::Method;
use serde_json::{Map, Value, json};

use super::route::{Route, Who};
use super::table::ROUTES;
use crate::Gateway;

/// `GET /openapi.json`
pub(super) async fn document(State(gateway): State<Gateway>) -> Json<Value> {
    Json(of(ROUTES, &gateway.options.public_url, &gateway.options.version))
}

/// What a call may bring, with what it does.
const CALL_HEADERS: [(&str, &str); 7] = [
    ("Idempotency-Key", "the same key and body give the same run, the same key with another body 422"),
    ("X-Metadata", "a JSON object of up to 4 KiB, which comes back with the answer and with every webhook"),
    ("X-Webhook-Secret", "signs this run's deliveries as Cerebrium does, beside the project's own signature"),
    ("X-Webhook-Schedule", "when this run's deliveries are tried again, such as `5s, 1m, 2h`"),
    ("X-Webhook-Headers", "a JSON object of headers that this run's deliveries carry"),
    ("X-Max-Queue-Time", "seconds after which a run that has not begun ends as `expired`"),
    ("X-Priority", "-100 to 100; higher ones begin before lower ones"),
];
const CALL_QUERY: [(&str, &str); 2] = [
    ("async", "`true`: the answer is the run's id, at once"),
    ("webhookEndpoint", "the result is sent there as well; may stand there several times"),
];

/// What the bodies of changes look like.
const BODIES: &[(&str, &str, &str)] = &[
    ("POST", "/v2/projects/{project}/apps", r#"{"name": "my-app", "cpu": 2, "memory": 4, "pip": ["numpy"]}"#),
    (
        "PATCH",
        "/v2/projects/{project}/apps/{app}",
        r#"{"minReplicaCount": 0, "maxReplicaCount": 3, "cooldownPeriodSeconds": 60}"#,
    ),
    ("POST", "/v2/projects/{project}/apps/{app}/rollback", r#"{"buildId": "…"}"#),
    (
        "POST",
        "/v2/projects/{project}/deliveries/redeliver",
        r#"{"receiver": "https://example.com", "since": "2026-01-31T12:00:00Z"}"#,
    ),
    (
        "POST",
        "/v2/projects/{project}/endpoints",
        r#"{"url": "https://example.com/hook", "bodyBytesMax": 1048576}"#,
    ),
    ("PATCH", "/v2/projects/{project}/endpoints/{endpoint}", r#"{"bodyBytesMax": 1048576}"#),
    ("POST", "/v2/projects/{project}/endpoints/test", r#"{"url": "https://example.com/hook"}"#),
    ("POST", "/v2/projects/{project}/inboxes/{inbox}/links", r#"{"expiresInSeconds": 86400}"#),
    (
        "POST",
        "/v2/projects/{project}/inboxes/{inbox}/requests/{request}/replay",
        r#"{"url": "https://example.com/hook"}"#,
    ),
    (
        "POST",
        "/v2/projects/{project}/keys",
        r#"{"name": "website", "scope": "inference", "expiresAt": "2027-01-31T12:00:00Z"}"#,
    ),
    ("POST", "/v2/projects/{project}/keys/rotate", r#"{"keys": ["webhookSecret"], "overlapSeconds": 86400}"#),
    ("PUT", "/v2/projects/{project}/keys/signing", r#"{"v1a": true}"#),
    (
        "POST",
        "/v2/projects/{project}/inboxes",
        r#"{"name": "checkout", "expiresInSeconds": 86400, "reply": "500,timeout,200"}"#,
    ),
    ("PATCH", "/v2/projects/{project}/inboxes/{inbox}", r#"{"name": "checkout", "expiresAt": null}"#),
    ("PATCH", "/v2/projects/{project}/secrets", r#"{"HF_TOKEN": "…"}"#),
    ("PATCH", "/v2/projects/{project}/apps/{app}/secrets", r#"{"HF_TOKEN": "…"}"#),
    ("POST", CALL_PATHS[0], r#"{"prompt": "…"}"#),
];

/// Query parameters that may stand there several times.
const SEVERAL: [&str; 2] = ["metadata", "webhookEndpoint"];
/// What cannot be taken back, beside every DELETE: whoever offers it asks once more.
const FINAL: [(&str, &str); 4] = [
    ("POST", "/v2/projects/{project}/keys/rotate"),
    ("PATCH", "/v2/projects/{project}/secrets"),
    ("PATCH", "/v2/projects/{project}/apps/{app}/secrets"),
    ("POST", "/v2/projects/{project}/inboxes/{inbox}/share"),
];
/// The one body that is no JSON.
const ARCHIVE: (&str, &str) = ("PUT", "/uploads/{build}");

const CALL_PATHS: [&str; 2] = ["/v4/{project}/{app}/{function}", "/v3/{project}/{app}/{function}"];

/// The document of a server at this address.
pub(super) fn of_all(public_url: &str, version: &str) -> Value {
    of(ROUTES, public_url, version)
}

/// What stands for a body of such a request.
fn body(method: &str, path: &str) -> Option<Value> {
    if (method, path) == ARCHIVE {
        return Some(
            json!({"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}),
        );
    }
    let sample = BODIES.iter().find(|(of, at, _)| (*of, *at) == (method, path))?.2;
    let sample: Value = serde_json::from_str(sample).unwrap_or(Value::Null);
    Some(json!({"content": {"application/json": {"example": sample}}}))
}

/// A parameter of a query.
fn in_query((name, about): &(&str, &str)) -> Value {
    let schema = if SEVERAL.contains(name) {
        json!({"type": "array", "items": {"type": "string"}})
    } else {
        json!({"type": "string"})
    };
    json!({"name": name, "in": "query", "description": about, "schema": schema})
}

/// The call of a function: its body is the function's own.
fn call(path: &str, query: &[(&str, &str)], summary: &str, answer: &str) -> Value {
    let in_path = segments(path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_header = |(name, about): &(&str, &str)| json!({"name": name, "in": "header", "description": about, "schema": {"type": "string"}});
    json!({
        "summary": summary,
        "parameters": in_path
            .chain(query.iter().map(in_query))
            .chain(CALL_HEADERS.iter().map(in_header))
            .collect::<Vec<_>>(),
        "requestBody": body("POST", CALL_PATHS[0]),
        "security": [{"key": []}],
        "x-who": "any key",
        "responses": {
            "200": {"description": answer, "content": {"application/json": {}}},
            "default": problem(),
        },
    })
}

fn problem() -> Value {
    json!({
        "description": "refused",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    })
}

fn of(routes: &[Route], public_url: &str, version: &str) -> Value {
    let mut paths = Map::new();
    paths.insert(
        CALL_PATHS[0].into(),
        json!({"post": call(
            CALL_PATHS[0],
            &CALL_QUERY,
            "calls a function; the body is its arguments, by name",
            "`{run_id, result, run_time_ms}`; with `async` or a `webhook_endpoint` in the body 202 `{run_id, message}`",
        )}),
    );
    paths.insert(
        CALL_PATHS[1].into(),
        json!({"post": call(
            CALL_PATHS[1],
            &[],
            "the same in the words of Cerebrium's v3",
            "`{run_id, message, result, status_code, run_time_ms}`; with a `webhook_endpoint` in the body `{run_id, webhook_endpoint, message}`",
        )}),
    );
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "postback",
            "version": version,
            "description": "Errors are `{\"message\", \"code\"}`. What belongs to another project answers as what does not exist.",
        },
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a project's private key or a service-account token; `Bearer` may be left out",
                },
            },
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["message", "code"],
                    "properties": {
                        "message": {"type": "string"},
                        "code": {"type": "string"},
                        "run_id": {"type": "string", "format": "uuid"},
                    },
                },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let in_path = segments(route.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let security = match route.who {
        Who::PrivateKey | Who::AnyKey => json!([{"key": []}]),
        Who::UploadToken | Who::Link | Who::Anybody => json!([]),
    };
    let who = match route.who {
        Who::PrivateKey => "private key",
        Who::AnyKey => "any key",
        Who::UploadToken => "upload token",
        Who::Link => "signed link",
        Who::Anybody => "anybody",
    };
    let mut operation = json!({
        "summary": route.summary,
        "parameters": in_path.chain(route.query.iter().map(in_query)).collect::<Vec<_>>(),
        "security": security,
        "x-who": who,
        "responses": {
            "200": {"description": route.answer, "content": {"application/json": {}}},
            "default": problem(),
        },
    });
    if let Some(body) = body(route.method.as_str(), route.path) {
        operation["requestBody"] = body;
    }
    if route.method == Method::DELETE || FINAL.contains(&(route.method.as_str(), route.path)) {
        operation["x-final"] = json!(true);
    }
    operation
}

/// The names of a path's parameters.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_holds_every_route_with_its_parameters() {
        let document = of(ROUTES, "http://127.0.0.1:4100", "1.2.3");
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.summary);
            let parameters = operation["parameters"].as_array().unwrap();
            assert_eq!(parameters.len(), segments(route.path).count() + route.query.len(), "{}", route.path);
        }
    }

    #[test]
    fn every_sample_of_a_body_belongs_to_an_operation_and_is_json() {
        let document = of_all("http://127.0.0.1:4100", "1.2.3");
        for (method, path, _) in BODIES.iter().copied() {
            let operation = &document["paths"][path][method.to_ascii_lowercase()];
            let sample = &operation["requestBody"]["content"]["application/json"]["example"];
            assert!(sample.is_object(), "{method} {path}: {operation}");
        }
        let (method, path) = ARCHIVE;
        let archive = &document["paths"][path][method.to_ascii_lowercase()]["requestBody"];
        assert!(archive["content"]["application/zip"].is_object(), "{archive}");
    }

    #[test]
    fn what_cannot_be_taken_back_says_so() {
        let document = of_all("http://127.0.0.1:4100", "1.2.3");
        let is_final = |method: &str, path: &str| {
            document["paths"][path][method.to_ascii_lowercase()]["x-final"] == true
        };
        assert!(FINAL.iter().all(|(method, path)| is_final(method, path)), "{document}");
        assert!(is_final("DELETE", "/v2/projects/{project}/apps/{app}"));
        assert!(!is_final("GET", "/v2/projects/{project}/apps/{app}"));
        assert!(!is_final("POST", CALL_PATHS[0]));
    }

    #[test]
    fn what_may_stand_there_several_times_is_a_list_of_some_operation() {
        let document = of_all("http://127.0.0.1:4100", "1.2.3");
        let operations = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|path| path.as_object().unwrap().values());
        let parameters: Vec<_> =
            operations.flat_map(|operation| operation["parameters"].as_array().unwrap()).collect();
        for name in SEVERAL {
            let is_list = |one: &&&Value| one["name"] == name && one["schema"]["type"] == "array";
            assert!(parameters.iter().any(|one| is_list(&one)), "{name}");
        }
    }
}
