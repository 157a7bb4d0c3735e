//! The runtime that a create-app request asks for: functions of a `main.py`, or a web server of the app's own.
//!
//! Cerebrium's clients name the keys of the config's section beside all others; ours sends them as one object,
//! `customRuntime`, as [`AppConfig`](queue::app::AppConfig) serialises.

use queue::web::{CustomRuntime, Entrypoint, PORT_DEFAULT};
use serde_json::Value;

use super::request::{Fields, invalid, refused};
use crate::problem::{Answer, Problem, clip};

const UNSUPPORTED: &str = "unsupported_runtime";
/// Longest path of a check.
const PATH_BYTES_MAX: usize = 1_024;
/// Longest entrypoint.
const ENTRYPOINT_BYTES_MAX: usize = 16 << 10;

/// What is asked for; `None` means functions.
pub(super) fn read(fields: &Fields) -> Answer<Option<CustomRuntime>> {
    if let Some((_, value)) = fields.value(&["customRuntime"]) {
        let Value::Object(keys) = value else { return Err(invalid("customRuntime", "an object", value)) };
        return of(&Fields::of(keys.clone())).map(Some);
    }
    if let Some(partner) = fields.text(&["partnerService"])? {
        return Err(partners(partner));
    }
    if fields.value(&["dockerfilePath"]).is_some() {
        return Err(Problem::unprocessable(
            UNSUPPORTED,
            "`dockerfilePath` names an image, and apps run as processes of this machine: write what the image starts \
             as `entrypoint`, its Python packages under `[cerebrium.dependencies.pip]`, its system packages under \
             `[cerebrium.dependencies.apt]`, and what else it runs as `shell_commands`",
        ));
    }
    match fields.text(&["runtime"])? {
        Some("custom") => of(fields).map(Some),
        None if fields.value(&["entrypoint"]).is_some() => of(fields).map(Some),
        None | Some("cortex") => Ok(None),
        Some(partner) => Err(partners(partner)),
    }
}

fn partners(name: &str) -> Problem {
    Problem::unprocessable(
        UNSUPPORTED,
        format!(
            "`{}` is a partner's service of the hosted platform; deploy the model with a `main.py`, or its server with \
             `[cerebrium.runtime.custom]`",
            clip(name)
        ),
    )
}

fn of(fields: &Fields) -> Answer<CustomRuntime> {
    Ok(CustomRuntime {
        entrypoint: entrypoint(fields)?,
        port: fields.whole(&["port"], 1..=u64::from(u16::MAX))?.unwrap_or(PORT_DEFAULT),
        healthcheck_endpoint: path(fields, "healthcheckEndpoint")?,
        readycheck_endpoint: path(fields, "readycheckEndpoint")?,
    })
}

fn entrypoint(fields: &Fields) -> Answer<Entrypoint> {
    const MISSING: &str =
        "`entrypoint` is missing: it says what starts the web server, such as `uvicorn main:app --port 8000`";
    let Some((key, value)) = fields.value(&["entrypoint"]) else { return Err(refused(MISSING)) };
    let entrypoint: Option<Entrypoint> = serde_json::from_value(value.clone()).ok();
    let entrypoint = entrypoint.ok_or_else(|| invalid(key, "a text or a list of texts", value))?;
    if entrypoint.is_empty() {
        return Err(refused(MISSING));
    }
    let text = entrypoint.to_string();
    if text.len() > ENTRYPOINT_BYTES_MAX || text.contains('\0') {
        return Err(refused(format!(
            "`entrypoint` is a command of up to {ENTRYPOINT_BYTES_MAX} bytes; put a longer one into a script of the app"
        )));
    }
    Ok(entrypoint)
}

fn path(fields: &Fields, key: &'static str) -> Answer<Option<String>> {
    let Some(text) = fields.text(&[key])? else { return Ok(None) };
    let is_plain = text.len() <= PATH_BYTES_MAX
        && !text.contains("://")
        && text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if is_plain {
        Ok(Some(format!("/{}", text.trim_start_matches('/'))))
    } else {
        Err(invalid(key, "a path of the app's web server, such as `/health`", &Value::from(text)))
    }
}
