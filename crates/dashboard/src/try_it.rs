//! Trying a function: a form made from its parameters, what it answered, and the code that asks the same.
//!
//! What is sent goes the way of every request from outside, so that whatever is wrong with it is said in the same words.

mod form;

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use pages::inert::visible;
use queue::app::Function;
use queue::inbox::Inbox;
use queue::limits::KEPT_INPUT_BYTES_MAX;
use queue::request::FunctionRequest;
use queue::run::RunView;
use queue::{AppId, ProjectId, RunId};
use serde::Deserialize;

pub(crate) use form::{To, TryForm};

use crate::answer::Answer;
use crate::assets::Frame;
use crate::code::Code;
use crate::error::{Shown, Trouble};
use crate::sent::Sent;
use crate::session::SignedIn;
use crate::{Shared, inboxes, shape};

/// Why a run cannot be made again here.
const NOT_KEPT: &str = "The input of this run is not kept: calls that wait keep none, and larger ones than 64 KiB go when the run ends.";

#[derive(Template)]
#[template(path = "try.html")]
struct TryPage {
    frame: Frame,
    app: String,
    function: String,
    parameters: String,
    form: TryForm,
}

fn page(project: &ProjectId, app: &AppId, function: &Function, form: TryForm) -> TryPage {
    TryPage {
        frame: Frame::new(Some(project.to_string())),
        app: app.name().to_string(),
        function: visible(&function.name).into_owned(),
        parameters: signature(function),
        form,
    }
}

/// What a function takes, in a line.
pub(crate) fn signature(function: &Function) -> String {
    let declared = function.parameters.iter().map(|parameter| {
        if parameter.required { parameter.name.clone() } else { format!("{}?", parameter.name) }
    });
    let any = function.takes_any.then(|| "…".to_owned());
    declared.chain(any).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
pub(crate) struct Like {
    /// The run that is to be made again.
    run: Option<RunId>,
}

/// `GET /dashboard/apps/{app}/try/{function}`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path((name, function)): Path<(String, String)>,
    Query(like): Query<Like>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    let function = app.function(&function).ok_or(Trouble::Unknown("function"))?;
    let mut form = TryForm::of(&app.id, function);
    if let Some(id) = like.run {
        let run = room.ports.runs.run(&project, id).await?.ok_or(Trouble::Unknown("run"))?;
        let input = room.input(&project, &run).await?.ok_or_else(|| Trouble::Refused(NOT_KEPT.into()))?;
        form.again(&input, &run.webhooks);
    }
    form.code = room.code_of(&app.id, function, &form);
    Ok(pages::html(StatusCode::OK, &page(&project, &app.id, function, form)))
}

/// `POST /dashboard/apps/{app}/try/{function}`
pub(crate) async fn send(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path((name, function)): Path<(String, String)>,
    sent: Result<Form<Sent>, FormRejection>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    let function = app.function(&function).ok_or(Trouble::Unknown("function"))?;
    let Form(fields) = sent.map_err(|why| Trouble::Unreadable(why.status(), why.body_text()))?;
    let mut form = TryForm::of(&app.id, function);
    form.fill(&fields);
    let Some(input) = form.input() else {
        return Ok(pages::html(StatusCode::UNPROCESSABLE_ENTITY, &page(&project, &app.id, function, form)));
    };
    let inbox = match form.to {
        To::Inbox => Some(room.inbox_of(&project, form.inbox.as_deref()).await?),
        _ => None,
    };
    if let Some(inbox) = &inbox {
        form.made(inbox, inboxes::page(inbox));
    }
    let address = inbox.map(|inbox| room.address(&inbox));
    let (query, body) = form.request(function, &input, address.as_deref());
    let code = Code::of(&form.id, &room.call_url(&app.id, &function.name, &query), &body);
    if fields.get("do") == Some("show") {
        form.code = Some(code.unfolded());
    } else {
        form.code = Some(code);
        let began = room.ports.clock.now();
        let request = FunctionRequest {
            app: app.id.clone(),
            function: function.name.clone(),
            query,
            body: body.into(),
            answer_bytes_max: shape::BODY_SHOWN_MAX,
        };
        let answer = room.ports.calls.call(request).await;
        form.answer = Some(Answer::of(
            answer.status,
            answer.run,
            &answer.body,
            answer.bytes,
            room.ports.clock.now().since(began),
        ));
    }
    Ok(pages::html(StatusCode::OK, &page(&project, &app.id, function, form)))
}

/// How a run is made once more.
pub(crate) struct Again {
    /// What the ids of its code begin with.
    pub(crate) id: String,
    /// The form, filled in.
    pub(crate) form: String,
    pub(crate) code: Code,
}

impl Shared {
    /// What a run was called with, if that is kept and can be written into a form.
    pub(crate) async fn input(&self, project: &ProjectId, run: &RunView) -> Shown<Option<String>> {
        let input = self.ports.runs.input(project, run.id).await?;
        Ok(input
            .filter(|input| input.len() <= KEPT_INPUT_BYTES_MAX)
            .and_then(|input| String::from_utf8(input.into()).ok()))
    }

    /// How a run with this input is made once more; `None` when its app has no such function any more.
    pub(crate) async fn again(&self, run: &RunView, input: &str) -> Shown<Option<Again>> {
        let app = self.ports.registry.app(&run.app).await?;
        let Some(function) = app.as_ref().and_then(|app| app.function(&run.function)) else {
            return Ok(None);
        };
        let mut form = TryForm::of(&run.app, function);
        form.again(input, &run.webhooks);
        let code = self.code_of(&run.app, function, &form);
        Ok(code.map(|code| Again { id: form.id, form: format!("{}?run={}", form.action, run.id), code }))
    }

    /// The code that calls the function as the form stands, unless something in it is wrong.
    pub(crate) fn code_of(&self, app: &AppId, function: &Function, form: &TryForm) -> Option<Code> {
        let (query, body) = form.request(function, &form.example()?, None);
        Some(Code::of(&form.id, &self.call_url(app, &function.name, &query), &body))
    }

    /// The inbox that the page made before, or a fresh one.
    async fn inbox_of(&self, project: &ProjectId, made: Option<&str>) -> Shown<Inbox> {
        if let Some(id) = made.and_then(|id| id.parse().ok())
            && let Some(inbox) = self.ports.inboxes.inbox(&id).await?
            && inbox.project == *project
        {
            return Ok(inbox);
        }
        self.make_inbox(project).await
    }

    fn call_url(&self, app: &AppId, function: &str, query: &str) -> String {
        let function: String = url::form_urlencoded::byte_serialize(function.as_bytes()).collect();
        let lead = if query.is_empty() { "" } else { "?" };
        format!("{}/{function}{lead}{query}", self.endpoint(app))
    }
}
