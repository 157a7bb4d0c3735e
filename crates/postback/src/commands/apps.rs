//! `postback apps`

use reqwest::Method;
use serde_json::Value;

use super::{Context, ExitStatus};

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
    /// Replace the replicas of an app; the old ones finish what they have
    Restart {
        /// Name or id of the app
        app: String,
    },
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
        Action::Restart { app } => {
            let path = format!("apps/{}/restart", client.app_id(&app));
            client.control(Method::POST, &path).json().await?;
            printer.done(&format!("the replicas of {app} are being replaced"));
        }
        Action::Delete { app } => {
            let path = format!("apps/{}", client.app_id(&app));
            client.control(Method::DELETE, &path).json().await?;
            printer.done(&format!("deleted {app}"));
        }
    }
    Ok(ExitStatus::Success)
}
