//! How many replicas an app has, how long, and for what: shown and changed, by the rules of the control plane.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::ProjectId;
use queue::port::SettingRefused;
use queue::registry::{App, Build};
use queue::scaling::{Balancing, Metric};

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::session::SignedIn;

/// Where the app itself does not say.
const BY_ITSELF: &str = "";
/// A metric for each, and none.
const METRICS: [&str; 4] = [
    Metric::ConcurrencyUtilization.as_str(),
    Metric::RequestsPerSecond.as_str(),
    Metric::CpuUtilization.as_str(),
    Metric::MemoryUtilization.as_str(),
];
const WAYS: [&str; 5] = [
    BY_ITSELF,
    Balancing::RoundRobin.as_str(),
    Balancing::FirstAvailable.as_str(),
    Balancing::MinConnections.as_str(),
    Balancing::RandomChoice2.as_str(),
];

/// One of the settings.
struct Setting {
    /// As the control plane spells it, and as the config file does.
    key: &'static str,
    config: &'static str,
    label: &'static str,
    hint: &'static str,
    /// The words there are; none for a number.
    choices: &'static [&'static str],
    /// How it stands.
    now: String,
    written: String,
    trouble: Option<String>,
}

/// Key, its name in the config file, label, hint, choices, and how it stands.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str], String);

fn settings(build: &Build) -> Vec<Setting> {
    let config = &build.config;
    let number = |key, name, label, hint, now: u64| (key, name, label, hint, &[][..], now.to_string());
    let balancing = config.load_balancing_algorithm.map_or(BY_ITSELF, Balancing::as_str);
    // Once one is named it can only be replaced by another.
    let ways = if balancing == BY_ITSELF { &WAYS[..] } else { &WAYS[1..] };
    let rows: [Row; 11] = [
        number(
            "minReplicaCount",
            "min_replicas",
            "Replicas at least",
            "kept even when idle",
            config.min_replicas.into(),
        ),
        number("maxReplicaCount", "max_replicas", "Replicas at most", "", config.replicas_max().into()),
        number("cooldownPeriodSeconds", "cooldown", "Kept idle for", "seconds", config.cooldown().as_secs()),
        number(
            "replicaConcurrency",
            "replica_concurrency",
            "Calls at once per replica",
            "",
            build.concurrency().into(),
        ),
        number(
            "responseGracePeriodSeconds",
            "response_grace_period",
            "A call may take",
            "seconds",
            config.response_grace_period().as_secs(),
        ),
        (
            "scalingMetric",
            "scaling_metric",
            "Their number follows",
            "",
            &METRICS,
            config.metric().as_str().to_owned(),
        ),
        number(
            "scalingTarget",
            "scaling_target",
            "Each is kept at",
            "percent, or calls a second",
            config.target().into(),
        ),
        number(
            "scalingBuffer",
            "scaling_buffer",
            "To spare",
            "replicas",
            config.scaling_buffer.unwrap_or(0).into(),
        ),
        number(
            "evaluationIntervalSeconds",
            "evaluation_interval",
            "Averaged over",
            "seconds",
            config.evaluation_interval().as_secs(),
        ),
        number(
            "rollOutDurationSeconds",
            "roll_out_duration_seconds",
            "A deploy takes over within",
            "seconds",
            config.roll_out_duration().as_secs(),
        ),
        (
            "loadBalancingAlgorithm",
            "load_balancing_algorithm",
            "A run goes to",
            "",
            ways,
            balancing.to_owned(),
        ),
    ];
    let setting = |(key, config, label, hint, choices, now): Row| Setting {
        key,
        config,
        label,
        hint,
        choices,
        written: now.clone(),
        now,
        trouble: None,
    };
    rows.into_iter().map(setting).collect()
}

#[derive(Template)]
#[template(path = "scaling.html")]
struct ScalingPage {
    frame: Frame,
    app: String,
    settings: Vec<Setting>,
    /// What is wrong with none of them in particular.
    trouble: Option<String>,
}

impl ScalingPage {
    fn of(project: &ProjectId, app: &App) -> Shown<Self> {
        let live = app.live.as_ref().ok_or_else(|| {
            Trouble::Refused("The app has no live build whose scaling could change; deploy it first.".into())
        })?;
        Ok(Self {
            frame: Frame::new(Some(project.to_string())),
            app: app.id.name().to_string(),
            settings: settings(live),
            trouble: None,
        })
    }

    /// What was written differently from how it stands.
    fn changes(&self) -> Vec<(&str, &str)> {
        let changed = self.settings.iter().filter(|setting| setting.written != setting.now);
        changed.map(|setting| (setting.key, setting.written.as_str())).collect()
    }

    fn write(&mut self, sent: &[(String, String)]) {
        for setting in &mut self.settings {
            if let Some((_, written)) = sent.iter().find(|(key, _)| key == setting.key) {
                written.trim().clone_into(&mut setting.written);
            }
        }
    }

    /// Says why it was refused, beside the setting that it is about.
    fn refuse(&mut self, refused: SettingRefused) {
        let SettingRefused { key, message } = refused;
        let said = visible(&message).into_owned();
        let about = key.and_then(|key| {
            self.settings.iter_mut().find(|setting| setting.key == key || setting.config == key)
        });
        match about {
            Some(setting) => setting.trouble = Some(said),
            None => self.trouble = Some(said),
        }
    }
}

/// `GET /dashboard/apps/{app}/scaling`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    Ok(pages::html(StatusCode::OK, &ScalingPage::of(&project, &app)?))
}

/// `POST /dashboard/apps/{app}/scaling`
pub(crate) async fn change(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(name): Path<String>,
    Form(sent): Form<Vec<(String, String)>>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    let mut page = ScalingPage::of(&project, &app)?;
    page.write(&sent);
    let changes = page.changes();
    if !changes.is_empty()
        && let Err(refused) = room.ports.settings.rescale(&app.id, &changes).await
    {
        page.refuse(refused);
        return Ok(pages::html(StatusCode::UNPROCESSABLE_ENTITY, &page));
    }
    Ok(Redirect::to(&format!("/dashboard/apps/{}", app.id.name())).into_response())
}

#[cfg(test)]
mod tests {
    use queue::Timestamp;
    use queue::app::AppConfig;
    use queue::registry::BuildStatus;

    use super::*;

    fn page() -> ScalingPage {
        let build = Build {
            id: "b-1111111111111111".parse().unwrap(),
            app: "p-11111111-demo".parse().unwrap(),
            status: BuildStatus::Success,
            config: AppConfig { max_replicas: Some(3), ..AppConfig::default() },
            prepared: None,
            functions: Vec::new(),
            upload_token_hash: [0; 32],
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
        };
        let app = App {
            id: build.app.clone(),
            latest_build: build.id.clone(),
            latest_status: build.status,
            created_at: build.created_at,
            updated_at: build.updated_at,
            live: Some(build),
        };
        ScalingPage::of(&"p-11111111".parse().unwrap(), &app).unwrap()
    }

    #[test]
    fn only_what_was_written_differently_is_changed() {
        let mut page = page();
        let sent =
            [("minReplicaCount", " 0 "), ("maxReplicaCount", "5"), ("scalingMetric", "requests_per_second")];
        page.write(&sent.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(page.changes(), [("maxReplicaCount", "5"), ("scalingMetric", "requests_per_second")]);
    }

    #[test]
    fn a_refusal_stands_beside_its_setting_and_what_was_written_stays() {
        for key in ["maxReplicaCount", "max_replicas"] {
            let mut page = page();
            page.write(&[("maxReplicaCount".into(), "<b>".into())]);
            page.refuse(SettingRefused { key: Some(key.into()), message: "is <b>nonsense".into() });
            let html = page.render().unwrap();
            let field = html.split("id=\"maxReplicaCount\"").nth(1).unwrap();
            assert!(field.starts_with(" name=\"maxReplicaCount\" value=\"&#60;b&#62;\""), "{field}");
            assert!(field.split("</div>").next().unwrap().contains("is &#60;b&#62;nonsense"), "{field}");
            assert_eq!(html.matches("aria-invalid").count(), 1);
        }
        let mut page = page();
        page.refuse(SettingRefused { key: None, message: "the store is away".into() });
        assert!(page.render().unwrap().contains("role=\"alert\">the store is away"));
    }
}
