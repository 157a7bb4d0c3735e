//! Inboxes: made, listed, set, shared and ended.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use queue::inbox::{Inbox, InboxChange, Reply, Script};
use queue::limits::{INBOX_DELAY_MAX, INBOX_LIFE_MAX, INBOXES_PER_PROJECT_MAX, SHARED_LINK_MAX};
use queue::{InboxId, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::recorded::as_object;
use super::request::{Fields, invalid, refused};
use super::scope::{OwnInbox, unknown_inbox};
use crate::Gateway;
use crate::auth::Control;
use crate::problem::Answer;

/// How long a link shows an inbox, when the caller says nothing.
const LINK_SECS: u64 = 86_400;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InboxView {
    id: InboxId,
    /// Where senders send to.
    url: String,
    /// Where people look; its token is all that opens it.
    page_url: String,
    created_at: Timestamp,
    name: Option<String>,
    /// When it ends; never by itself when there is none.
    expires_at: Option<Timestamp>,
    /// How it answers; 200 when there is none.
    reply: Option<ReplyView>,
}

#[derive(Serialize)]
struct ReplyView {
    script: String,
    #[serde(serialize_with = "as_object")]
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl ReplyView {
    fn of(reply: &Reply) -> Self {
        Self { script: reply.script.to_string(), headers: reply.headers.clone(), body: reply.body.clone() }
    }
}

impl InboxView {
    fn of(gateway: &Gateway, inbox: &Inbox) -> Self {
        let base = &gateway.options.public_url;
        Self {
            url: format!("{base}/inbox/{}", inbox.id),
            page_url: format!("{base}/inboxes/{}?token={}", inbox.id, inbox.view_token),
            id: inbox.id.clone(),
            created_at: inbox.created_at,
            name: inbox.name.clone(),
            expires_at: inbox.expires_at,
            reply: inbox.reply.as_deref().map(ReplyView::of),
        }
    }
}

/// What a body asks to be set. A null takes a setting away.
fn settings(fields: &Fields, now: Timestamp) -> Answer<InboxChange> {
    let mut change = InboxChange::default();
    for (key, value) in fields.entries() {
        match key.as_str() {
            "name" => {
                let text = match value {
                    Value::Null => "",
                    Value::String(text) => text,
                    other => return Err(invalid(key, "a text", other)),
                };
                let name = Inbox::checked_name(text).map_err(|why| refused(format!("`name`: {why}")))?;
                change.name = Some(name);
            }
            "expiresAt" | "expiresInSeconds" => change.expires_at = Some(expiry(fields, now)?),
            "reply" => change.reply = Some(reply(value)?.map(Arc::new)),
            _ => {
                return Err(refused(format!(
                    "`{}` is nothing that an inbox has; there are `name`, `expiresAt`, `expiresInSeconds` and `reply`",
                    crate::problem::clip(key)
                )));
            }
        }
    }
    Ok(change)
}

/// When an inbox is to end; `None` for never.
fn expiry(fields: &Fields, now: Timestamp) -> Answer<Option<Timestamp>> {
    let most = INBOX_LIFE_MAX.as_secs();
    if let Some(seconds) = fields.whole(&["expiresInSeconds"], 1..=most)? {
        return Ok(Some(now.plus(Duration::from_secs(seconds))));
    }
    let Some(text) = fields.text(&["expiresAt"])? else { return Ok(None) };
    let at = Timestamp::parse_rfc3339(text).filter(|at| *at > now && at.since(now) <= INBOX_LIFE_MAX);
    at.map(Some).ok_or_else(|| {
        refused(format!(
            "`expiresAt` must be a time to come such as 2026-01-31T12:00:00Z, {} days away at most, not `{}`; \
             DELETE ends an inbox at once",
            most / 86_400,
            crate::problem::clip(text)
        ))
    })
}

/// How an inbox is to answer: a script alone, or an object with headers and a body beside it.
fn reply(value: &Value) -> Answer<Option<Reply>> {
    let wrong = |why: queue::inbox::InvalidReply| refused(format!("`reply`: {why}"));
    let fields = match value {
        Value::Null => return Ok(None),
        Value::String(script) => {
            return Reply::new(script.parse().map_err(wrong)?, Vec::new(), None).map(Some).map_err(wrong);
        }
        Value::Object(fields) => fields.clone(),
        other => return Err(invalid("reply", "a script such as `500,timeout,200`, or an object", other)),
    };
    if let Some(key) = fields
        .keys()
        .find(|key| !["script", "status", "delaySeconds", "headers", "body"].contains(&key.as_str()))
    {
        return Err(refused(format!(
            "`reply.{}` is nothing that a reply has; there are `script`, or `status` and `delaySeconds`, and \
             `headers` and `body`",
            crate::problem::clip(key)
        )));
    }
    let headers = headers(fields.get("headers"))?;
    let fields = Fields::of(fields);
    let status = fields.whole::<u16>(&["status"], 200..=599)?;
    let delay = fields.value(&["delaySeconds"]).map(|(_, value)| delay(value)).transpose()?;
    let script = match fields.text(&["script"])? {
        Some(_) if status.is_some() || delay.is_some() => {
            return Err(refused(
                "`reply` has a `script`, or a `status` and `delaySeconds`; a script says both for each step",
            ));
        }
        Some(script) => script.parse().map_err(wrong)?,
        None => Script::status(status.unwrap_or(200), delay.unwrap_or_default()).map_err(wrong)?,
    };
    let body = match fields.value(&["body"]) {
        None => None,
        Some((_, Value::String(text))) => Some(text.clone()),
        // JSON is sent as it would be written.
        Some((_, value)) => Some(value.to_string()),
    };
    Reply::new(script, headers, body).map(Some).map_err(wrong)
}

fn delay(value: &Value) -> Answer<Duration> {
    let most = INBOX_DELAY_MAX.as_secs();
    value
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|delay| *delay <= INBOX_DELAY_MAX)
        .ok_or_else(|| invalid("reply.delaySeconds", &format!("a number of seconds from 0 to {most}"), value))
}

fn headers(value: Option<&Value>) -> Answer<Vec<(String, String)>> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(headers)) => headers
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok((name.clone(), text.clone())),
                other => {
                    Err(invalid(&format!("reply.headers.{}", crate::problem::clip(name)), "a text", other))
                }
            })
            .collect(),
        Some(other) => Err(invalid("reply.headers", "an object of texts such as {\"x-mine\": \"1\"}", other)),
    }
}

/// Makes an inbox, with settings if there are any.
pub(super) async fn create(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<InboxView>> {
    let now = gateway.clock.now();
    let mut inbox = Inbox::new(project, gateway.entropy.as_ref(), now);
    inbox.set(settings(&fields, now)?);
    let view = InboxView::of(&gateway, &inbox);
    if !gateway.inboxes.create_inbox(inbox).await? {
        return Err(refused(format!(
            "this project has {INBOXES_PER_PROJECT_MAX} inboxes, and no more are kept; delete one first"
        )));
    }
    Ok(Json(view))
}

/// Sets what the body names, and leaves the rest.
pub(super) async fn patch(
    OwnInbox(inbox): OwnInbox,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<InboxView>> {
    let change = settings(&fields, gateway.clock.now())?;
    changed(&gateway, &inbox.id, change).await
}

/// Gives its page a new address; whoever has the old one sees nothing any more.
pub(super) async fn share(
    OwnInbox(inbox): OwnInbox,
    State(gateway): State<Gateway>,
) -> Answer<Json<InboxView>> {
    let view_token = Some(Inbox::new_token(gateway.entropy.as_ref()));
    changed(&gateway, &inbox.id, InboxChange { view_token, ..InboxChange::default() }).await
}

/// An address of its page that ends by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinkView {
    page_url: String,
    expires_at: Timestamp,
}

/// Makes a further address of its page, which ends.
pub(super) async fn link(
    OwnInbox(inbox): OwnInbox,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<LinkView>> {
    fields.only(&["expiresInSeconds"])?;
    let most = SHARED_LINK_MAX.as_secs();
    let seconds = fields.whole(&["expiresInSeconds"], 1..=most)?.unwrap_or(LINK_SECS);
    let (token, expires_at) = inbox.link_token(gateway.clock.now().plus(Duration::from_secs(seconds)));
    let page_url = format!("{}/inboxes/{}?token={token}", gateway.options.public_url, inbox.id);
    Ok(Json(LinkView { page_url, expires_at }))
}

async fn changed(gateway: &Gateway, id: &InboxId, change: InboxChange) -> Answer<Json<InboxView>> {
    let inbox = gateway.inboxes.change_inbox(id, change).await?;
    inbox.map(|inbox| Json(InboxView::of(gateway, &inbox))).ok_or_else(|| unknown_inbox(id.as_str()))
}

/// Ends an inbox, with all that it recorded.
pub(super) async fn delete(
    OwnInbox(inbox): OwnInbox,
    State(gateway): State<Gateway>,
) -> Answer<Json<Deleted>> {
    if gateway.inboxes.delete_inbox(&inbox.id).await? {
        return Ok(Json(Deleted {}));
    }
    Err(unknown_inbox(inbox.id.as_str()))
}

/// There is nothing left to say.
#[derive(Serialize)]
pub(super) struct Deleted {}

#[derive(Serialize)]
pub(super) struct InboxList {
    items: Vec<InboxView>,
}

/// The project's inboxes.
pub(super) async fn list(
    Control(project): Control,
    State(gateway): State<Gateway>,
) -> Answer<Json<InboxList>> {
    let inboxes = gateway.inboxes.inboxes(&project).await?;
    Ok(Json(InboxList { items: inboxes.iter().map(|inbox| InboxView::of(&gateway, inbox)).collect() }))
}

/// One inbox.
pub(super) async fn show(OwnInbox(inbox): OwnInbox, State(gateway): State<Gateway>) -> Json<InboxView> {
    Json(InboxView::of(&gateway, &inbox))
}
