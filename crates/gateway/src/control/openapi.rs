//! The OpenAPI document, made from the table that the router is made from.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::table::{ROUTES, Route, Who};
use crate::Gateway;

/// `GET /openapi.json`
pub(super) async fn document(State(gateway): State<Gateway>) -> Json<Value> {
    Json(of(ROUTES, &gateway.options.public_url, &gateway.options.version))
}

fn of(routes: &[Route], public_url: &str, version: &str) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "postback control plane",
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
    let in_query = route.query.iter().map(|(name, about)| {
        json!({"name": name, "in": "query", "description": about, "schema": {"type": "string"}})
    });
    let problem = json!({
        "description": "refused",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
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
    json!({
        "summary": route.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "security": security,
        "x-who": who,
        "responses": {
            "200": {"description": route.answer, "content": {"application/json": {}}},
            "default": problem,
        },
    })
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
}
