//! Inference: every cell of the table of answers, and what bad input gets.

mod answers;
mod idempotency;
mod promises;
mod refusals;
mod rig;
mod streams;
mod webhooks;

use gateway::Surface;
use queue::app::{AppConfig, Contract, Function};

use self::rig::Rig;
use crate::fakes::{PROJECT, Reply, World, function, public_key, send};

/// Where webhooks go that nobody sends.
const HOOK: &str = "https://hooks.example/a";

/// A function of 2023.
fn predict() -> Function {
    Function { contract: Contract::Item, ..function("predict", &["item", "run_id", "logger"]) }
}

/// An app of 2023 and one with keyword functions.
fn deploy(world: &World) {
    world.live_app(PROJECT, "old", vec![predict()]);
    world.live_app(
        PROJECT,
        "new",
        vec![function("run", &["prompt"]), function("hooked", &["webhook_endpoint"])],
    );
}

/// Calls with the public key of [`PROJECT`].
async fn call(router: &Surface, path: &str, body: &str) -> Reply {
    send(router, "POST", path, Some(&public_key(PROJECT)), body.to_owned()).await
}

/// A path of [`PROJECT`]: `v3("old/predict")`.
fn v3(rest: &str) -> String {
    format!("/v3/{PROJECT}/{rest}")
}

fn v4(rest: &str) -> String {
    format!("/v4/{PROJECT}/{rest}")
}

/// The run id that an answer names: in its header and, the same, in its body.
#[track_caller]
fn run_id(reply: &Reply) -> String {
    let header = reply.headers["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(reply.json()["run_id"], *header, "{reply:?}");
    header
}

fn open_app() -> AppConfig {
    AppConfig { disable_auth: true, ..AppConfig::default() }
}
