//! Inboxes: temporary endpoints of our own, made with a click, named, ended, shared, and told how to answer.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::ProjectId;
use queue::inbox::{Inbox, InboxChange, InvalidReply, Reply};
use queue::limits::{INBOX_NAME_CHARS_MAX, INBOXES_PER_PROJECT_MAX};
use serde::Deserialize;

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::link::{self, Life};
use crate::session::SignedIn;
use crate::shape;

/// When an inbox may be told to end: value of the form, words, hours from now.
const LIVES: [(&str, &str, u64); 4] =
    [("1", "in an hour", 1), ("24", "in a day", 24), ("168", "in a week", 168), ("720", "in 30 days", 720)];
/// Scripts to begin with.
const EXAMPLES: [(&str, &str); 5] = [
    ("200", "takes every request"),
    ("500,200", "fails once, then takes them"),
    ("500,timeout,429;retry-after=3,reset,200", "fails in four ways, then takes them"),
    ("503;times=3,200;delay=2s", "fails three times, then takes them slowly"),
    ("410", "is gone for good: senders should stop"),
];

/// An inbox, as the list shows it.
struct Row {
    id: String,
    name: String,
    /// Where senders send to.
    url: String,
    page: String,
    made: String,
    ends: String,
    /// The script that it answers by.
    reply: String,
}

#[derive(Template)]
#[template(path = "inboxes.html")]
struct InboxesPage {
    frame: Frame,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "inbox.html")]
struct InboxPage {
    frame: Frame,
    row: Row,
    /// The page's whole address, to hand on.
    share: String,
    name: String,
    name_max: usize,
    /// When it ends, to the second.
    ends_at: Option<String>,
    /// The longest that a link may show it.
    share_hours_max: u64,
    lives: &'static [(&'static str, &'static str, u64)],
    examples: &'static [(&'static str, &'static str)],
    headers: String,
    body: String,
}

/// A link that ends, told once.
#[derive(Template)]
#[template(path = "inbox-link.html")]
struct LinkPage {
    frame: Frame,
    id: String,
    name: String,
    link: String,
    until: String,
    /// Whether it ends because the inbox does.
    with_inbox: bool,
}

/// What people call it, or the beginning of its id.
pub(crate) fn name(inbox: &Inbox) -> String {
    let short = || inbox.id.as_str().chars().take(8).collect();
    inbox.name.as_deref().map_or_else(short, |name| visible(name).into_owned())
}

/// Where it is looked at, by whoever has the address.
pub(crate) fn page(inbox: &Inbox) -> String {
    format!("/inboxes/{}?token={}", inbox.id, inbox.view_token)
}

impl Shared {
    fn base(&self) -> &str {
        self.options.public_url.as_str().trim_end_matches('/')
    }

    /// Where senders send to.
    pub(crate) fn address(&self, inbox: &Inbox) -> String {
        format!("{}/inbox/{}", self.base(), inbox.id)
    }

    /// A fresh inbox of the project.
    pub(crate) async fn make_inbox(&self, project: &ProjectId) -> Shown<Inbox> {
        let inbox = Inbox::new(project.clone(), &*self.ports.entropy, self.ports.clock.now());
        if !self.ports.inboxes.create_inbox(inbox.clone()).await? {
            return Err(Trouble::Refused(format!(
                "The project has {INBOXES_PER_PROJECT_MAX} inboxes, and no more are kept; delete one first."
            )));
        }
        Ok(inbox)
    }

    fn row(&self, inbox: &Inbox) -> Row {
        let now = self.ports.clock.now();
        Row {
            id: inbox.id.to_string(),
            name: name(inbox),
            url: self.address(inbox),
            page: page(inbox),
            made: shape::relative(inbox.created_at, now),
            ends: inbox.expires_at.map_or_else(|| "–".to_owned(), |at| shape::relative(at, now)),
            reply: inbox.reply.as_ref().map_or_else(|| "200".to_owned(), |reply| reply.script.to_string()),
        }
    }

    pub(crate) async fn own_inbox(&self, project: &ProjectId, id: &str) -> Shown<Inbox> {
        let found = match id.parse() {
            Ok(id) => self.ports.inboxes.inbox(&id).await?,
            Err(_) => None,
        };
        found.filter(|inbox| inbox.project == *project).ok_or(Trouble::Unknown("inbox"))
    }

    async fn change(&self, inbox: &Inbox, change: InboxChange) -> Shown<Response> {
        match self.ports.inboxes.change_inbox(&inbox.id, change).await? {
            Some(_) => Ok(Redirect::to(&format!("/dashboard/inboxes/{}", inbox.id)).into_response()),
            None => Err(Trouble::Unknown("inbox")),
        }
    }
}

/// `/dashboard/inboxes`
pub(crate) async fn list(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let inboxes = room.ports.inboxes.inboxes(&project).await?;
    let rows = inboxes.iter().map(|inbox| room.row(inbox)).collect();
    Ok(pages::html(StatusCode::OK, &InboxesPage { frame: Frame::new(Some(project.to_string())), rows }))
}

/// `POST /dashboard/inboxes`
pub(crate) async fn create(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let inbox = room.make_inbox(&project).await?;
    Ok(Redirect::to(&page(&inbox)).into_response())
}

/// `/dashboard/inboxes/{inbox}`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let inbox = room.own_inbox(&project, &id).await?;
    let reply = inbox.reply.as_deref();
    let lines = |reply: &Reply| {
        let lines: Vec<_> = reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        lines.join("\n")
    };
    let page = InboxPage {
        frame: Frame::new(Some(project.to_string())),
        row: room.row(&inbox),
        share: format!("{}{}", room.base(), page(&inbox)),
        name: inbox.name.clone().unwrap_or_default(),
        name_max: INBOX_NAME_CHARS_MAX,
        ends_at: inbox.expires_at.map(shape::moment),
        share_hours_max: link::HOURS_MAX,
        lives: &LIVES,
        examples: &EXAMPLES,
        headers: reply.map(lines).unwrap_or_default(),
        body: reply.and_then(|reply| reply.body.clone()).unwrap_or_default(),
    };
    Ok(pages::html(StatusCode::OK, &page))
}

#[derive(Deserialize)]
pub(crate) struct Settings {
    name: String,
    /// Hours from now, `never`, or nothing for what it is.
    ends: String,
}

/// `POST /dashboard/inboxes/{inbox}`: its name and its end.
pub(crate) async fn set(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    Form(form): Form<Settings>,
) -> Shown<Response> {
    let inbox = room.own_inbox(&project, &id).await?;
    let name = Inbox::checked_name(&form.name)
        .map_err(|why| Trouble::Unreadable(StatusCode::UNPROCESSABLE_ENTITY, why.to_string()))?;
    let life = LIVES.iter().find(|(value, ..)| *value == form.ends).map(|(.., hours)| *hours);
    let expires_at = match (form.ends.as_str(), life) {
        (_, Some(hours)) => Some(Some(room.ports.clock.now().plus(Duration::from_secs(hours * 3_600)))),
        ("never", None) => Some(None),
        _ => None,
    };
    room.change(&inbox, InboxChange { name: Some(name), expires_at, ..InboxChange::default() }).await
}

#[derive(Deserialize)]
pub(crate) struct Answers {
    script: String,
    headers: String,
    body: String,
}

impl Answers {
    fn read(self) -> Result<Option<Reply>, InvalidReply> {
        if self.script.trim().is_empty() {
            return Ok(None);
        }
        // A form sends line ends of its own.
        let body = self.body.replace("\r\n", "\n");
        let body = (!body.is_empty()).then_some(body);
        Reply::new(self.script.parse()?, Reply::header_lines(&self.headers)?, body).map(Some)
    }
}

/// `POST /dashboard/inboxes/{inbox}/reply`
pub(crate) async fn reply(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    Form(form): Form<Answers>,
) -> Shown<Response> {
    let inbox = room.own_inbox(&project, &id).await?;
    let reply =
        form.read().map_err(|why| Trouble::Unreadable(StatusCode::UNPROCESSABLE_ENTITY, why.to_string()))?;
    room.change(&inbox, InboxChange { reply: Some(reply.map(Arc::new)), ..InboxChange::default() }).await
}

/// `POST /dashboard/inboxes/{inbox}/share`: a new address of its page.
pub(crate) async fn share(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let inbox = room.own_inbox(&project, &id).await?;
    let view_token = Some(Inbox::new_token(&*room.ports.entropy));
    room.change(&inbox, InboxChange { view_token, ..InboxChange::default() }).await
}

/// `POST /dashboard/inboxes/{inbox}/links`: a further address of its page, which ends.
pub(crate) async fn link(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    Form(life): Form<Life>,
) -> Shown<Response> {
    let life = life.bounded("an inbox")?;
    let inbox = room.own_inbox(&project, &id).await?;
    let (token, until) = inbox.link_token(room.ports.clock.now().plus(life));
    let page = LinkPage {
        frame: Frame::new(Some(project.to_string())),
        id: inbox.id.to_string(),
        name: name(&inbox),
        link: format!("{}/inboxes/{}?token={token}", room.base(), inbox.id),
        until: shape::moment(until),
        with_inbox: inbox.expires_at.is_some_and(|end| end.as_secs() == until.as_secs()),
    };
    tracing::info!(inbox.id = %inbox.id, until = %page.until, "an inbox was shared by a link");
    Ok(pages::html(StatusCode::OK, &page))
}

/// `POST /dashboard/inboxes/{inbox}/delete`
pub(crate) async fn delete(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let inbox = room.own_inbox(&project, &id).await?;
    room.ports.inboxes.delete_inbox(&inbox.id).await?;
    Ok(Redirect::to("/dashboard/inboxes").into_response())
}
