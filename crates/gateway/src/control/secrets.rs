//! Secrets: names are shown, values never. A value that reads as [`MASK`] stands for the one that is there, so
//! that clients may send back the whole of what they were shown, as Cerebrium's does.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use queue::limits::{SECRET_BYTES_MAX, SECRET_NAME_BYTES_MAX, SECRETS_MAX};
use queue::registry::SecretChange;
use queue::{AppId, ProjectId};
use serde_json::Value;

use super::request::{Fields, Params, refused};
use super::scope::OwnApp;
use crate::Gateway;
use crate::auth::Control;
use crate::problem::{Answer, clip};

/// What is shown in place of a value.
const MASK: &str = "********";

/// The secrets of the project.
pub(super) async fn of_project(
    Control(project): Control,
    State(gateway): State<Gateway>,
) -> Answer<Response> {
    shown(&gateway, &project, None).await
}

/// The secrets of an app.
pub(super) async fn of_app(OwnApp(app): OwnApp, State(gateway): State<Gateway>) -> Answer<Response> {
    shown(&gateway, &app.id.project(), Some(&app.id)).await
}

/// Changes those of the project.
pub(super) async fn change_of_project(
    Control(project): Control,
    State(gateway): State<Gateway>,
    params: Params,
    fields: Fields,
) -> Answer<Response> {
    change(&gateway, &project, None, &params, &fields).await
}

/// Changes those of an app.
pub(super) async fn change_of_app(
    OwnApp(app): OwnApp,
    State(gateway): State<Gateway>,
    params: Params,
    fields: Fields,
) -> Answer<Response> {
    change(&gateway, &app.id.project(), Some(&app.id), &params, &fields).await
}

async fn shown(gateway: &Gateway, project: &ProjectId, app: Option<&AppId>) -> Answer<Response> {
    let names = gateway.secrets.secret_names(project, app).await?;
    let masked: BTreeMap<String, &str> = names.into_iter().map(|name| (name, MASK)).collect();
    Ok(([(CACHE_CONTROL, "no-store")], Json(masked)).into_response())
}

async fn change(
    gateway: &Gateway,
    project: &ProjectId,
    app: Option<&AppId>,
    params: &Params,
    fields: &Fields,
) -> Answer<Response> {
    let there = gateway.secrets.secret_names(project, app).await?;
    let change = wanted(fields.entries(), &there, params.flag("merge")?)?;
    if !gateway.secrets.change_secrets(project, app, change).await? {
        return Err(refused(format!(
            "there would be more than {SECRETS_MAX} secrets; remove some, or keep several values in one as JSON"
        )));
    }
    shown(gateway, project, app).await
}

/// What a body asks for. With `merge` the secrets that it does not name stay, and `null` removes one.
fn wanted<'f>(
    entries: impl Iterator<Item = (&'f String, &'f Value)>,
    there: &[String],
    merge: bool,
) -> Answer<SecretChange> {
    let mut change = SecretChange::default();
    let mut named = Vec::new();
    for (name, value) in entries {
        check_name(name)?;
        named.push(name);
        match value {
            Value::Null => change.remove.push(name.clone()),
            Value::String(text) if text == MASK && there.contains(name) => {}
            Value::String(text) if text == MASK => {
                return Err(refused(format!(
                    "`{name}` is `{MASK}`, which stands for a value that is there already"
                )));
            }
            Value::String(text) if text.len() > SECRET_BYTES_MAX || text.contains('\0') => {
                return Err(refused(format!(
                    "`{name}` is longer than {SECRET_BYTES_MAX} bytes or holds a zero byte, which no environment \
                     variable may"
                )));
            }
            Value::String(text) => drop(change.set.insert(name.clone(), text.clone())),
            _ => {
                return Err(refused(format!(
                    "`{name}` is no text; secrets are texts, put others into quotes"
                )));
            }
        }
    }
    if !merge {
        change.remove.extend(there.iter().filter(|name| !named.contains(name)).cloned());
    }
    Ok(change)
}

fn check_name(name: &str) -> Answer<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !name.is_empty() && name.len() <= SECRET_NAME_BYTES_MAX && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(refused(format!(
        "`{}` is no name of a secret; that is 1 to {SECRET_NAME_BYTES_MAX} letters, digits, `_`, `.` and `-`",
        clip(name)
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Wanted = (Vec<(String, String)>, Vec<String>);

    fn of(body: &Value, merge: bool) -> Result<Wanted, String> {
        let body = body.as_object().cloned().unwrap();
        let there = ["A".to_owned(), "B".to_owned()];
        match wanted(body.iter(), &there, merge) {
            Ok(change) => Ok((change.set.into_iter().collect(), change.remove)),
            Err(problem) => Err(problem.message.into_owned()),
        }
    }

    #[test]
    fn the_whole_is_replaced_unless_it_is_merged() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let body = json!({"A": MASK, "C": "new"});
        assert_eq!(of(&body, false), Ok((vec![pair("C", "new")], vec!["B".into()])));
        assert_eq!(of(&body, true), Ok((vec![pair("C", "new")], vec![])));
        assert_eq!(of(&json!({"A": null, "B": ""}), true), Ok((vec![pair("B", "")], vec!["A".into()])));
        assert_eq!(of(&json!({}), false), Ok((vec![], vec!["A".into(), "B".into()])));
    }

    #[test]
    fn what_cannot_be_a_secret_is_named_and_its_value_is_not() {
        for (body, said) in [
            (json!({"a b": "s3cret"}), "`a b` is no name"),
            (json!({"": "s3cret"}), "is no name"),
            (json!({"N": ["s3cret"]}), "`N` is no text"),
            (json!({"N": MASK}), "stands for a value"),
            (json!({"N": "s3cret\0"}), "`N` is longer"),
            (json!({"N": "s3cret".repeat(10_000)}), "`N` is longer"),
        ] {
            let message = of(&body, true).unwrap_err();
            assert!(message.contains(said) && !message.contains("s3cret"), "{message}");
        }
    }
}
