//! This node: what it is, what it has, and every bound that it keeps to. To be read, not changed: the server is told
//! its settings when it starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use pages::inert::visible;
use pages::size;
use queue::hardware::Hardware;
use queue::limits::{Limit, REMOVED_RUNS_REMEMBERED, RESULT_RETENTION, TABLE, UNDELIVERED_RETENTION};
use queue::{ProjectId, Timestamp};

use crate::Shared;
use crate::assets::Frame;
use crate::error::Shown;
use crate::session::SignedIn;
use crate::shape;

/// What a node knows of itself.
#[derive(Clone, Debug)]
pub struct Node {
    /// The version of the server.
    pub version: &'static str,
    /// When it started.
    pub started_at: Timestamp,
    /// How it contains code of apps, and why not better, in a sentence.
    pub containment: String,
    /// CPUs that it may use.
    pub cpus: usize,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Looks how much room there is.
    pub space: fn(&Path) -> Option<Space>,
}

/// Room for data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What the databases take.
    pub used: u64,
    /// What is free on their file system …
    pub free: u64,
    /// … of so much.
    pub total: u64,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    facts: Vec<(&'static str, String)>,
    retention: Vec<(&'static str, String)>,
    gpus: Vec<(String, String, String)>,
    limits: &'static [Limit],
}

impl SettingsPage {
    fn of(
        project: &ProjectId,
        node: &Node,
        public_url: &str,
        space: Option<Space>,
        hardware: &Hardware,
        now: Timestamp,
    ) -> Self {
        let started = shape::moment(node.started_at);
        let mut facts = vec![
            ("Version", node.version.to_owned()),
            ("Address", public_url.to_owned()),
            ("Running", format!("{}, since {started} UTC", shape::duration(now.since(node.started_at)))),
            ("Containment", node.containment.clone()),
            ("CPUs", node.cpus.to_string()),
            ("Data directory", visible(&node.data_dir.display().to_string()).into_owned()),
        ];
        facts.push(match space {
            Some(Space { used, free, total }) => {
                ("Disk", format!("databases take {}; {} of {} are free", size(used), size(free), size(total)))
            }
            None => ("Disk", "cannot be looked at".to_owned()),
        });
        let days = |time: std::time::Duration| format!("{} days", time.as_secs() / 86_400);
        Self {
            frame: Frame::new(Some(project.to_string())),
            facts,
            retention: vec![
                ("Runs and results, after their end", days(RESULT_RETENTION)),
                ("Those not delivered, after the last attempt", days(UNDELIVERED_RETENTION)),
                ("That a run was removed", days(REMOVED_RUNS_REMEMBERED)),
            ],
            gpus: hardware
                .gpus
                .iter()
                .map(|placed| {
                    // What other projects run is not for these eyes.
                    let taken = match &placed.app {
                        None => "free".to_owned(),
                        Some(app) if app.project() == *project => app.name().to_string(),
                        Some(_) => "in use".to_owned(),
                    };
                    (visible(&placed.gpu.name).into_owned(), size(placed.gpu.memory_bytes), taken)
                })
                .collect(),
            limits: TABLE,
        }
    }
}

/// `/dashboard/settings`
pub(crate) async fn show(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let node = room.options.node.clone();
    // A file system may take its time.
    let looking = tokio::task::spawn_blocking(move || (node.space)(&node.data_dir));
    let space = looking.await.ok().flatten();
    let (node, url) = (&room.options.node, room.options.public_url.as_str());
    let hardware = room.ports.replicas.hardware();
    let page = SettingsPage::of(&project, node, url, space, &hardware, room.ports.clock.now());
    Ok(pages::html(StatusCode::OK, &page))
}

#[cfg(test)]
mod tests {
    use queue::hardware::{Gpu, PlacedGpu};

    use super::*;

    #[test]
    fn the_page_says_what_the_node_is_and_keeps_other_projects_to_itself() {
        let node = Node {
            version: "1.2.3",
            started_at: Timestamp::from_millis(0),
            containment: "tier S2".into(),
            cpus: 16,
            data_dir: "/data/<b>".into(),
            space: |_| None,
        };
        let gpu = |app: Option<&str>| PlacedGpu {
            gpu: Gpu { uuid: "GPU-1".into(), name: "NVIDIA A10".into(), memory_bytes: 24 << 30 },
            app: app.map(|app| app.parse().unwrap()),
        };
        let gpus = vec![gpu(None), gpu(Some("p-11111111-mine")), gpu(Some("p-22222222-theirs"))];
        let hardware = Hardware { gpus, ..Hardware::default() };
        let project = "p-11111111".parse().unwrap();
        let space = Some(Space { used: 5 << 20, free: 3 << 30, total: 10 << 30 });
        let now = Timestamp::from_millis(90_000);
        let html = SettingsPage::of(&project, &node, "http://a", space, &hardware, now).render().unwrap();
        for said in [
            "1.2.3",
            "1 min 30 s, since 1970-01-01 00:00:00 UTC",
            "tier S2",
            "databases take 5.0 MiB; 3.0 GiB of 10.0 GiB are free",
            "24.0 GiB",
            "mine",
            "in use",
            "7 days",
            "100 MiB",
        ] {
            assert!(html.contains(said), "{said}: {html}");
        }
        assert!(!html.contains("theirs") && !html.contains("<b>"), "{html}");
    }
}
