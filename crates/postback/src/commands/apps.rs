//! `postback apps`

use std::time::Duration;

use queue::limits::BUILD_LIMIT;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, ExitStatus};
use crate::client::Client;
use crate::print::{Printer, clean};

/// Between two looks when following.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `postback apps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the project's apps
    List,
    /// Show one app
    #[command(visible_alias = "show")]
    Get {
        /// Name or id of the app
        app: String,
    },
    /// Show what happened to an app, and why: scaling, deploys, starts that failed, replicas that died
    Events {
        /// Name or id of the app
        app: String,
        /// Go on printing what is new
        #[arg(long, short)]
        follow: bool,
        /// So many of the newest events
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// List the builds of an app, the newest first
    Builds {
        /// Name or id of the app
        app: String,
    },
    /// Go back to a former build: a replica of it starts first, then traffic moves
    Rollback {
        /// Name or id of the app
        app: String,
        /// The build; without it, the one before the live one
        build: Option<String>,
    },
    /// Replace the replicas of an app; the old ones finish what they have
    Restart {
        /// Name or id of the app
        app: String,
    },
    /// List the GPUs of the server, and which apps have them
    Hardware,
    /// Delete an app; its queued runs end as cancelled, and their webhooks are told
    Delete {
        /// Name or id of the app
        app: String,
    },
}

/// Lists, shows or deletes.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let printer = context.printer;
    match args.action.unwrap_or(Action::List) {
        Action::List => {
            let apps = client.control(Method::GET, "apps").json().await?;
            if printer.wants_json() {
                printer.json(&apps);
            } else {
                let text = |app: &Value, key: &str| app[key].as_str().unwrap_or_default().to_owned();
                let rows: Vec<_> = apps
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|app| vec![text(app, "id"), text(app, "status"), text(app, "updatedAt")])
                    .collect();
                printer.table(&["APP", "STATUS", "UPDATED"], &rows);
            }
        }
        Action::Get { app } => {
            let path = format!("apps/{}", client.app_id(&app));
            printer.json(&client.control(Method::GET, &path).json().await?);
        }
        Action::Events { app, follow, limit } => events(&client, printer, &app, follow, limit).await?,
        Action::Builds { app } => {
            let path = format!("apps/{}/builds", client.app_id(&app));
            let page = client.control(Method::GET, &path).json().await?;
            if printer.wants_json() {
                printer.json(&page["items"]);
            } else {
                let text = |build: &Value, key: &str| build[key].as_str().unwrap_or_default().to_owned();
                let state = |build: &Value| match (build["live"] == true, build["kept"] == true) {
                    (true, _) => "live",
                    (false, true) => "kept",
                    (false, false) => "",
                };
                let row = |build: &Value| {
                    vec![
                        text(build, "id"),
                        text(build, "status"),
                        state(build).to_owned(),
                        text(build, "createdAt"),
                    ]
                };
                let rows: Vec<_> = page["items"].as_array().into_iter().flatten().map(row).collect();
                printer.table(&["BUILD", "STATUS", "", "CREATED"], &rows);
            }
        }
        Action::Rollback { app, build } => {
            let path = format!("apps/{}/rollback", client.app_id(&app));
            let body = build.map_or_else(|| json!({}), |build| json!({"buildId": build}));
            // Importing may take as long as the app's own limit.
            let ask = client.control(Method::POST, &path).body(&body).within(BUILD_LIMIT);
            let back = ask.json().await?;
            if printer.wants_json() {
                printer.json(&back);
            } else {
                let text = |key: &str| back[key].as_str().unwrap_or_default();
                let former = text("formerBuildId");
                printer.done(&format!("{app}: build {} is live, in place of {former}", text("liveBuildId")));
            }
        }
        Action::Restart { app } => {
            let path = format!("apps/{}/restart", client.app_id(&app));
            client.control(Method::POST, &path).json().await?;
            printer.done(&format!("the replicas of {app} are being replaced"));
        }
        Action::Hardware => {
            let hardware = client.control(Method::GET, "hardware").json().await?;
            if printer.wants_json() {
                printer.json(&hardware);
            } else {
                print_hardware(printer, &hardware);
            }
        }
        Action::Delete { app } => {
            let path = format!("apps/{}", client.app_id(&app));
            client.control(Method::DELETE, &path).json().await?;
            printer.done(&format!("deleted {app}"));
        }
    }
    Ok(ExitStatus::Success)
}

/// Prints the newest events of an app, oldest first; then, if asked to, what comes.
async fn events(
    client: &Client,
    printer: Printer,
    app: &str,
    follow: bool,
    limit: u32,
) -> anyhow::Result<()> {
    let path = format!("apps/{}/events", client.app_id(app));
    let mut ask = client.control(Method::GET, &path).query("limit", limit);
    loop {
        let page = ask.json().await?;
        let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        for event in items {
            if printer.wants_json() {
                printer.data(&event.to_string());
            } else {
                let text = |key: &str| event[key].as_str().unwrap_or_default();
                printer.data(&format!("{} {:15} {}", text("at"), text("kind"), clean(text("text"))));
            }
        }
        if !follow {
            if items.is_empty() {
                printer.note("nothing has happened to this app yet");
            }
            return Ok(());
        }
        if items.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let after = page["nextToken"].as_str().unwrap_or("0").to_owned();
        ask = client.control(Method::GET, &path).query("after", after);
    }
}

fn print_hardware(printer: Printer, hardware: &Value) {
    let text = |gpu: &Value, key: &str| gpu[key].as_str().unwrap_or_default().to_owned();
    let gpus = hardware["gpus"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |gpu: &Value| {
        let gib = gpu["memoryBytes"].as_f64().unwrap_or_default() / f64::from(1 << 30);
        let has_it = match (gpu["appId"].as_str(), gpu["inUse"].as_bool()) {
            (Some(app), _) => app,
            (None, Some(true)) => "another project",
            (None, _) => "free",
        };
        vec![
            text(gpu, "compute"),
            text(gpu, "name"),
            format!("{gib:.1} GiB"),
            has_it.to_owned(),
            text(gpu, "id"),
        ]
    };
    printer.table(&["COMPUTE", "GPU", "MEMORY", "APP", "ID"], &gpus.iter().map(row).collect::<Vec<_>>());
    if gpus.is_empty() {
        printer.hint("this server gives its replicas CPUs only; `postback serve` logs which GPUs it finds");
    }
}
