//! What can be asked over HTTP: the server's own OpenAPI document as a page, with a line to paste for each operation, and
//! a form that sends it.
//!
//! What a form sends goes through the API itself, inside this process and with what the session opens. The page never
//! has a key, and no other site can send a form; what came is shown as text.

mod came;
mod operation;

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use queue::ProjectId;
use queue::registry::{Identity, Scope};
use queue::request::ApiRequest;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use came::Came;
use operation::{Operation, text};

use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::sent::Sent;
use crate::session::SignedIn;
use crate::{Shared, shape};

/// Methods in the order in which people think of them.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Words of a search that count.
const WORDS_MAX: usize = 16;
/// Apps that a field offers.
const APPS_MAX: usize = 200;

#[derive(Deserialize)]
pub(crate) struct Search {
    q: Option<String>,
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
    project: String,
    query: String,
    groups: Vec<Group>,
    found: usize,
    apps: Vec<String>,
}

#[derive(Template)]
#[template(path = "operation.html")]
struct OperationPage {
    frame: Frame,
    operation: Operation,
    apps: Vec<String>,
}

/// `/dashboard/api`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Query(search): Query<Search>,
) -> Shown<Response> {
    let query = search.q.unwrap_or_default();
    let groups = groups(room.ports.api.document(), &project, &query);
    let page = ApiPage {
        frame: Frame::new(Some(project.to_string())),
        found: groups.iter().map(|group| group.operations.len()).sum(),
        query: pages::inert::visible(&query).into_owned(),
        groups,
        apps: room.app_names(&project).await?,
        project: project.to_string(),
    };
    Ok(pages::html(StatusCode::OK, &page))
}

/// `GET /dashboard/api/{operation}`
pub(crate) async fn one(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let operation = find(room.ports.api.document(), &project, &id)?;
    room.operation_page(StatusCode::OK, &project, operation).await
}

/// `POST /dashboard/api/{operation}`
pub(crate) async fn send(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    sent: Result<Form<Sent>, FormRejection>,
) -> Shown<Response> {
    let mut operation = find(room.ports.api.document(), &project, &id)?;
    let Form(sent) = sent.map_err(|why| Trouble::Unreadable(why.status(), why.body_text()))?;
    if let Some(kind) = &operation.other_body {
        return Err(Trouble::Refused(format!(
            "It takes a file ({kind}), which a form cannot send; curl does."
        )));
    }
    if !operation.fill(&sent) {
        return room.operation_page(StatusCode::UNPROCESSABLE_ENTITY, &project, operation).await;
    }
    let request = request(&operation, &project);
    let agreement = agreement(&request);
    if operation.is_final && sent.get("sure") != Some(agreement.as_str()) {
        operation.asks = Some(agreement);
        return room.operation_page(StatusCode::PRECONDITION_REQUIRED, &project, operation).await;
    }
    let began = room.ports.clock.now();
    let answer = room.ports.api.ask(request).await;
    operation.came = Some(Came::of(&answer, room.ports.clock.now().since(began)));
    room.operation_page(StatusCode::OK, &project, operation).await
}

impl Shared {
    async fn operation_page(
        &self,
        status: StatusCode,
        project: &ProjectId,
        operation: Operation,
    ) -> Shown<Response> {
        let frame = Frame::new(Some(project.to_string()));
        let apps = self.app_names(project).await?;
        Ok(pages::html(status, &OperationPage { frame, operation, apps }))
    }

    /// What a field for an app offers.
    async fn app_names(&self, project: &ProjectId) -> Shown<Vec<String>> {
        let apps = self.ports.registry.apps(Some(project)).await?;
        Ok(apps.iter().take(APPS_MAX).map(|app| app.id.name().to_string()).collect())
    }
}

fn request(operation: &Operation, project: &ProjectId) -> ApiRequest {
    ApiRequest {
        // Only who has a key that opens everything is signed in.
        caller: Identity { project: project.clone(), scope: Scope::Everything },
        method: operation.method.clone(),
        target: operation.target(),
        headers: operation.headers(),
        body: operation.sent_body().unwrap_or_default().to_owned().into(),
        answer_bytes_max: shape::BODY_SHOWN_MAX,
    }
}

/// What stands for a request that is agreed to: another one has to be agreed to anew.
fn agreement(request: &ApiRequest) -> String {
    let said = format!("{} {} {:?}\n", request.method, request.target, request.headers);
    let hash = Sha256::new().chain_update(said).chain_update(&request.body).finalize();
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Every operation of the document.
fn all<'d>(document: &'d Value, project: &'d ProjectId) -> impl Iterator<Item = Operation> + 'd {
    let base = text(&document["servers"][0]["url"]);
    document["paths"].as_object().into_iter().flatten().flat_map(move |(path, methods)| {
        let base = base.clone();
        METHODS
            .into_iter()
            .filter_map(move |method| Some(Operation::of(method, path, methods.get(method)?, &base, project)))
    })
}

fn find(document: &Value, project: &ProjectId, id: &str) -> Shown<Operation> {
    all(document, project).find(|one| one.id == id).ok_or(Trouble::NoOperation)
}

/// The operations that a search finds, by what they are about, in the order of their paths.
fn groups(document: &Value, project: &ProjectId, query: &str) -> Vec<Group> {
    let words: Vec<String> = query.split_whitespace().take(WORDS_MAX).map(str::to_lowercase).collect();
    let mut groups: Vec<Group> = Vec::new();
    for operation in all(document, project).filter(|operation| operation.says(&words)) {
        let title = title(&operation.path);
        match groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.operations.push(operation),
            None => groups.push(Group { title, operations: vec![operation] }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use queue::request::ApiAnswer;
    use serde_json::json;

    fn document() -> Value {
        let key = json!([{"key": []}]);
        let run = json!({"name": "run", "in": "path"});
        json!({
            "servers": [{"url": "http://127.0.0.1:4100"}],
            "paths": {
                "/openapi.json": {"get": {"summary": "this document", "security": [], "x-who": "anybody"}},
                "/v2/projects/{project}/runs/{run}": {
                    "delete": {"summary": "cancels a run", "security": key, "x-who": "private key", "x-final": true, "parameters": [run]},
                    "get": {
                        "summary": "one run",
                        "security": key,
                        "parameters": [run, {"name": "wait", "in": "query", "description": "seconds to wait"}],
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

    fn page(operation: Operation) -> String {
        let apps = vec!["captions".to_owned()];
        OperationPage { frame: Frame::new(None), operation, apps }.render().unwrap()
    }

    #[test]
    fn every_operation_has_a_form_on_a_page_of_its_own() {
        let (document, project) = (document(), "p-11111111".parse().unwrap());
        let groups = groups(&document, &project, "");
        let frame = Frame::new(None);
        let all = ApiPage {
            frame,
            project: project.to_string(),
            query: String::new(),
            found: 4,
            groups,
            apps: Vec::new(),
        };
        let html = all.render().unwrap();
        assert_eq!(html.matches("data-in-place").count(), 4, "{html}");
        for operation in super::all(&document, &project) {
            let (id, path) = (operation.id.clone(), operation.path.clone());
            let html = page(find(&document, &project, &id).unwrap());
            assert!(
                html.contains(&format!("action=\"/dashboard/api/{id}\"")) && html.contains(&path),
                "{html}"
            );
        }
        assert!(matches!(find(&document, &project, "get-nothing"), Err(Trouble::NoOperation)));
    }

    #[test]
    fn what_came_and_what_was_written_is_text() {
        let (document, project) = (document(), "p-11111111".parse().unwrap());
        let hostile = "</pre></textarea>\"><script>alert(1)</script>\u{202e}";
        let mut operation = find(&document, &project, "get-v2-projects-project-runs-run").unwrap();
        let written: &[(&str, &str)] = &[("path.run", hostile), ("query.wait", hostile), ("body", hostile)];
        assert!(operation.fill(&written.into()));
        operation.asks = Some(agreement(&request(&operation, &project)));
        let answer = ApiAnswer {
            status: 200,
            headers: vec![(hostile.to_owned(), hostile.to_owned())],
            body: hostile.as_bytes().to_vec().into(),
            bytes: hostile.len() as u64,
        };
        operation.came = Some(Came::of(&answer, std::time::Duration::ZERO));
        let html = page(operation);
        assert!(!html.contains("<script>") && html.matches("&#60;script&#62;").count() == 5, "{html}");
    }

    #[test]
    fn another_request_has_to_be_agreed_to_anew() {
        let (document, project) = (document(), "p-11111111".parse().unwrap());
        let agreed = |written: &[(&str, &str)]| {
            let mut operation = find(&document, &project, "delete-v2-projects-project-runs-run").unwrap();
            operation.fill(&written.into());
            agreement(&request(&operation, &project))
        };
        assert_eq!(agreed(&[("path.run", "a")]), agreed(&[("path.run", "a"), ("path.other", "b")]));
        assert_ne!(agreed(&[("path.run", "a")]), agreed(&[("path.run", "b")]));
    }
}
