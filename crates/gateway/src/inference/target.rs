//! Which app and function a path means, and whether the caller may call them.
//!
//! An app of another project answers exactly as an app that is not there.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use queue::app::Function;
use queue::registry::{App, Build};
use queue::run::Generation;
use queue::{AppId, AppName, ProjectId, answer};

use super::{Form, Names, PREDICT};
use crate::Gateway;
use crate::auth::{self, Credential};
use crate::problem::{Answer, Problem, clip};

/// What pre-built models are called by, beside their own name.
const PREBUILT_SUFFIX: &str = "-webhook";
/// The last segment of v3 paths whose `predict` is a generator.
const STREAM: &str = "stream";

/// An app that the caller may call.
pub(crate) struct Target {
    pub(crate) app: Arc<App>,
    pub(crate) generation: Generation,
    /// Said to whoever asked for a webhook.
    pub(crate) acknowledgement: Cow<'static, str>,
    /// Answered with the result alone, as OpenAI's clients expect it.
    pub(crate) bare: bool,
    /// The path asks for what is yielded, as it comes.
    pub(crate) streams: bool,
    function: Box<str>,
}

/// Finds what a path names.
pub(crate) async fn find(
    gateway: &Gateway,
    form: Form,
    Names { project, app: name, function }: Names<'_>,
    credential: Credential<'_>,
    headers: &HeaderMap,
) -> Answer<Target> {
    let project: Option<ProjectId> = match project {
        Some(project) => project.parse().ok(),
        None => gateway.default_project().await?,
    };
    let (app, prebuilt) = match &project {
        Some(project) => look_up(gateway, form, project, name).await?,
        None => (None, false),
    };
    let open = app.as_ref().and_then(|app| app.live.as_ref()).is_some_and(|build| build.config.disable_auth);
    if !(open && gateway.options.allow_open_apps) {
        let is_own = match credential {
            Credential::Known(known) => Some(known) == project.as_ref(),
            Credential::InHeaders => {
                let identity =
                    auth::identify(gateway, headers).await.map_err(|problem| explain_open(problem, open))?;
                Some(identity.project) == project
            }
        };
        if !is_own {
            return Err(unknown_app(name));
        }
    }
    let app = app.ok_or_else(|| unknown_app(name))?;
    let acknowledgement = if prebuilt {
        let returns = app.live.as_ref().and_then(|build| build.config.returns.as_deref());
        answer::prebuilt_acknowledgement(returns.unwrap_or(answer::PREBUILT_RETURNS)).into()
    } else {
        answer::ACKNOWLEDGEMENT.into()
    };
    // What that generation called so, unless the app has a function of the name.
    let streams = form == Form::V3 && function == STREAM && app.function(STREAM).is_none();
    let function = if streams { PREDICT } else { function };
    let bare = form == Form::OpenAi;
    Ok(Target {
        app,
        generation: form.generation(),
        acknowledgement,
        bare,
        streams,
        function: function.into(),
    })
}

/// The app of that name; on legacy paths `{model}-webhook` also means the pre-built `{model}`, and whether it
/// was meant so.
async fn look_up(
    gateway: &Gateway,
    form: Form,
    project: &ProjectId,
    name: &str,
) -> Answer<(Option<Arc<App>>, bool)> {
    let Ok(exact) = name.parse::<AppName>() else { return Ok((None, false)) };
    let app = gateway.registry.app(&AppId::new(project, &exact)).await?;
    if app.is_none()
        && form.generation() == Generation::Legacy
        && let Some(model) = name.strip_suffix(PREBUILT_SUFFIX).and_then(|model| model.parse().ok())
    {
        let app = gateway.registry.app(&AppId::new(project, &model)).await?;
        return Ok((app, true));
    }
    Ok((app, false))
}

fn explain_open(mut problem: Problem, open: bool) -> Problem {
    if open && problem.status == StatusCode::UNAUTHORIZED {
        problem.message = format!(
            "{}; this app says `disable_auth = true`, which counts only on a server started with `--allow-open-apps`",
            problem.message
        )
        .into();
    }
    problem
}

fn unknown_app(name: &str) -> Problem {
    Problem::not_found(
        "unknown_app",
        format!("there is no app `{}` in this project; `postback apps` lists those there are", clip(name)),
    )
}

impl Target {
    /// The build that serves it.
    pub(crate) fn build(&self) -> Answer<&Build> {
        let app = &self.app;
        app.live.as_ref().ok_or_else(|| {
            let status = app.latest_status;
            let (name, build) = (app.id.name(), &app.latest_build);
            let now =
                format!("`{name}` is not deployed yet: its newest build {build} is `{}`", status.as_str());
            if status.is_final() {
                let way_out =
                    format!("{now}; its build log says why, and `postback deploy {name}` tries again");
                Problem::not_found("not_deployed", way_out)
            } else {
                Problem::unavailable("not_deployed", format!("{now}; try again when it is `success`"))
                    .retry_after(5)
            }
        })
    }

    /// The function that the path names.
    pub(crate) fn function<'b>(&self, build: &'b Build) -> Answer<&'b Function> {
        build.functions.iter().find(|function| *function.name == *self.function).ok_or_else(|| {
            let mut message = format!("`{}` has no function `{}`", self.app.id.name(), clip(&self.function));
            let names = build.functions.iter().take(20).map(|function| function.name.as_str());
            for (index, name) in names.enumerate() {
                let lead = if index == 0 { "; it has " } else { ", " };
                let _ = write!(message, "{lead}`{name}`");
            }
            Problem::not_found("unknown_function", message)
        })
    }
}
