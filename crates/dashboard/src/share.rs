//! Links that show one run to somebody without a key, until a time.
//!
//! A link carries its own proof. It names the key of the session that made it by its hash and is signed with the
//! project's secret, so it ends by itself, and with either of them. It opens the page of that run without its buttons,
//! and nothing else.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use http::StatusCode;
use http::header::HeaderMap;
use queue::port::Stored;
use queue::registry::KeyHash;
use queue::run::{EndpointUrl, RunView};
use queue::{ProjectId, RunId, Timestamp};

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::link::Life;
use crate::runs::RunPage;
use crate::session::{self, HASH_BYTES, SignedIn, TIME_BYTES};
use crate::shape;

/// What is signed, apart from everything else that is signed with the same secret.
const PURPOSE: &[u8] = b"postback shared run 1";
const RUN_BYTES: usize = 16;

/// What a link says of itself.
struct Claimed {
    run: RunId,
    key: KeyHash,
    until: i64,
    mac: [u8; HASH_BYTES],
}

impl Claimed {
    fn read(token: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (run, rest) = bytes.split_first_chunk::<RUN_BYTES>()?;
        let (key, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
        let (until, mac) = rest.split_first_chunk::<TIME_BYTES>()?;
        let (key, until, mac) = (*key, i64::from_be_bytes(*until), mac.try_into().ok()?);
        Some(Self { run: RunId::from_bytes(*run), key, until, mac })
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        self.until <= now.as_secs()
    }

    /// Whether it was signed with this secret, every bit of it.
    fn is_signed_with(&self, secret: &[u8]) -> bool {
        let said = [&self.run.into_bytes()[..], &self.key, &self.until.to_be_bytes()].concat();
        session::signer(secret, &[PURPOSE, &said]).verify_slice(&self.mac).is_ok()
    }
}

fn token(secret: &[u8], key: &KeyHash, run: RunId, until: i64) -> String {
    let said = [&run.into_bytes()[..], key, &until.to_be_bytes()].concat();
    let mac = session::signer(secret, &[PURPOSE, &said]).finalize().into_bytes();
    URL_SAFE_NO_PAD.encode([&said[..], &mac].concat())
}

impl Shared {
    /// The run that the link shows, and until when.
    async fn shared(&self, token: &str) -> Stored<Option<(ProjectId, RunId, Timestamp)>> {
        let Some(claimed) = Claimed::read(token) else { return Ok(None) };
        if claimed.has_ended(self.ports.clock.now()) {
            return Ok(None);
        }
        let Some((project, secret)) = self.secret_of(&claimed.key).await? else { return Ok(None) };
        let until = Timestamp::from_millis(claimed.until.saturating_mul(1_000));
        Ok(claimed.is_signed_with(&secret).then_some((project, claimed.run, until)))
    }
}

#[derive(Template)]
#[template(path = "share.html")]
struct SharePage {
    frame: Frame,
    run: String,
    link: String,
    until: String,
}

/// `POST /dashboard/runs/{run}/share`
pub(crate) async fn make(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(run): Path<String>,
    headers: HeaderMap,
    Form(life): Form<Life>,
) -> Shown<Response> {
    let life = life.bounded("a run")?;
    let run = room.find(&project, &run).await?;
    let Some((key, secret)) = room.key_of(&headers).await? else { return Err(Trouble::Unknown("run")) };
    let until = room.ports.clock.now().plus(life);
    let base = room.options.public_url.as_str().trim_end_matches('/');
    let page = SharePage {
        frame: Frame::new(Some(project.to_string())),
        run: run.id.to_string(),
        link: format!("{base}/dashboard/shared/{}", token(&secret, &key, run.id, until.as_secs())),
        until: shape::moment(until),
    };
    tracing::info!(run.id = %run.id, until = %page.until, "a run was shared by a link");
    Ok(pages::html(StatusCode::OK, &page))
}

/// `/dashboard/shared/{token}`
pub(crate) async fn show(State(room): State<Arc<Shared>>, Path(token): Path<String>) -> Shown<Response> {
    let Some((project, run, until)) = room.shared(&token).await? else { return Err(Trouble::NoLink) };
    let Some(run) = room.ports.runs.run(&project, run).await? else { return Err(Trouble::NoLink) };
    let run = without_paths(run);
    let lines = room.lines(run.id).await?;
    let mut page = RunPage::of(&project, &run, &lines, room.ports.clock.now());
    page.frame = Frame::new(None);
    page.shared_until = Some(shape::moment(until));
    Ok(pages::html(StatusCode::OK, &page))
}

/// The path of a webhook address, or what stands behind it, often is what opens it.
fn without_paths(mut run: RunView) -> RunView {
    for delivery in &mut run.deliveries {
        delivery.url = EndpointUrl::checked(&format!("{}/…", delivery.url.receiver().as_str()));
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    const KEY: KeyHash = [3; HASH_BYTES];

    #[test]
    fn a_link_says_what_was_signed_and_every_bit_of_it_counts() {
        let run = RunId::from_bytes([7; RUN_BYTES]);
        let ours =
            |token: &str| Claimed::read(token).is_some_and(|claimed| claimed.is_signed_with(b"secret"));
        let good = token(b"secret", &KEY, run, 1_000);
        let claimed = Claimed::read(&good).unwrap();
        assert!(ours(&good) && claimed.run == run && claimed.key == KEY);
        let ended = |seconds: i64| claimed.has_ended(Timestamp::from_millis(seconds * 1_000));
        assert!(!ended(999) && ended(1_000) && ended(1_001));
        let bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(!ours(&URL_SAFE_NO_PAD.encode(bent)), "bit {bit}");
        }
        assert!(!ours(&token(b"another", &KEY, run, 1_000)) && !ours("") && !ours("AAAA"));
    }

    #[test]
    fn what_is_secret_in_an_address_is_not_shared() {
        let mut run = sample::delivered();
        run.deliveries[0].url = EndpointUrl::checked("https://receiver.example/hook?token=hush");
        let shared = without_paths(run);
        assert_eq!(shared.deliveries[0].url.as_str(), "https://receiver.example/…");
    }
}
