//! Inboxes: temporary endpoints of our own, made with a click.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use queue::inbox::Inbox;
use queue::{InboxId, ProjectId};

use crate::Shared;
use crate::assets::Frame;
use crate::error::Shown;
use crate::session::SignedIn;
use crate::shape;

/// Bytes of chance in the token that opens an inbox's page.
const VIEW_TOKEN_BYTES: usize = 16;

struct InboxRow {
    id: String,
    /// Where senders send to.
    url: String,
    page: String,
    made: String,
}

#[derive(Template)]
#[template(path = "inboxes.html")]
struct InboxesPage {
    frame: Frame,
    rows: Vec<InboxRow>,
}

/// Where it is looked at, by whoever has the address.
pub(crate) fn page(inbox: &Inbox) -> String {
    format!("/inboxes/{}?token={}", inbox.id, inbox.view_token)
}

/// `/dashboard/inboxes`
pub(crate) async fn list(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let inboxes = room.ports.inboxes.inboxes(&project).await?;
    let now = room.ports.clock.now();
    let row = |inbox: &Inbox| InboxRow {
        id: inbox.id.to_string(),
        url: room.address(inbox),
        page: page(inbox),
        made: shape::relative(inbox.created_at, now),
    };
    let page =
        InboxesPage { frame: Frame::new(Some(project.to_string())), rows: inboxes.iter().map(row).collect() };
    Ok(pages::html(StatusCode::OK, &page))
}

/// `POST /dashboard/inboxes`
pub(crate) async fn create(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let inbox = room.make_inbox(&project).await?;
    Ok(Redirect::to(&page(&inbox)).into_response())
}

impl Shared {
    /// A fresh inbox of the project.
    pub(crate) async fn make_inbox(&self, project: &ProjectId) -> Shown<Inbox> {
        let inbox = Inbox {
            id: InboxId::generate(&*self.ports.entropy),
            project: project.clone(),
            view_token: self.ports.entropy.hex(VIEW_TOKEN_BYTES),
            created_at: self.ports.clock.now(),
        };
        self.ports.inboxes.create_inbox(inbox.clone()).await?;
        Ok(inbox)
    }

    /// Where senders send to.
    pub(crate) fn address(&self, inbox: &Inbox) -> String {
        format!("{}/inbox/{}", self.options.public_url.as_str().trim_end_matches('/'), inbox.id)
    }
}
