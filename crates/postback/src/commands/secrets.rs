//! `postback secrets`

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Map, Value};

use super::{Context, ExitStatus};
use crate::client::Client;
use crate::print::WithHint;

/// Arguments of `postback secrets`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the names; values are never shown
    List {
        #[command(flatten)]
        owner: Owner,
    },
    /// Set secrets: environment variables of replicas
    Set {
        /// `NAME=VALUE`, or one `NAME` whose value is read from standard input, where no history keeps it
        #[arg(required = true, value_name = "NAME[=VALUE]")]
        secrets: Vec<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        restart: Restart,
    },
    /// Delete secrets
    Delete {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        restart: Restart,
    },
}

#[derive(Debug, clap::Args)]
struct Owner {
    /// App whose own they are [default: the project's, for all its apps]
    #[arg(long, value_name = "APP")]
    app: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Restart {
    /// Replace the replicas that run, so that they see the change
    #[arg(long)]
    restart: bool,
}

/// Lists, sets or deletes.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let printer = context.printer;
    match args.action.unwrap_or(Action::List { owner: Owner { app: None } }) {
        Action::List { owner } => {
            let client = context.client().await?;
            let shown = client.control(Method::GET, &path(&client, &owner)).json().await?;
            let names: Vec<_> =
                shown.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
            if printer.wants_json() {
                printer.json(&Value::from(names));
            } else {
                printer.table(&["SECRET"], &names.into_iter().map(|name| vec![name]).collect::<Vec<_>>());
            }
        }
        Action::Set { secrets, owner, restart } => {
            let change = given(&secrets)?;
            let names: Vec<_> = change.keys().cloned().collect();
            tell(change, format!("set {}", names.join(", ")), &owner, &restart, context).await?;
        }
        Action::Delete { names, owner, restart } => {
            let change = names.iter().map(|name| (name.clone(), Value::Null)).collect();
            tell(change, format!("deleted {}", names.join(", ")), &owner, &restart, context).await?;
        }
    }
    Ok(ExitStatus::Success)
}

fn path(client: &Client, owner: &Owner) -> String {
    owner
        .app
        .as_ref()
        .map_or_else(|| "secrets".to_owned(), |app| format!("apps/{}/secrets", client.app_id(app)))
}

/// Names and values from the command line, or one value from standard input.
fn given(secrets: &[String]) -> anyhow::Result<Map<String, Value>> {
    if let [name] = secrets
        && !name.contains('=')
    {
        let mut input = std::io::stdin();
        if input.is_terminal() {
            let hint =
                format!("`postback secrets set {name} < file`, or `postback secrets set {name}=VALUE`");
            return Err(
                WithHint::new("the value is read from standard input, which is a terminal", hint).into()
            );
        }
        let mut value = String::new();
        input.read_to_string(&mut value).context("failed to read the value from standard input")?;
        let value = value
            .strip_suffix('\n')
            .map_or(value.as_str(), |value| value.strip_suffix('\r').unwrap_or(value));
        return Ok([(name.clone(), Value::from(value))].into_iter().collect());
    }
    let pair = |secret: &String| {
        let (name, value) = secret.split_once('=').ok_or_else(|| {
            let hint = "write `NAME=VALUE`; one alone may come from standard input";
            WithHint::new(format!("`{secret}` has no value"), hint)
        })?;
        Ok((name.to_owned(), Value::from(value)))
    };
    secrets.iter().map(pair).collect()
}

async fn tell(
    change: Map<String, Value>,
    done: String,
    owner: &Owner,
    restart: &Restart,
    context: &Context,
) -> anyhow::Result<()> {
    let client = context.client().await?;
    let ask = client.control(Method::PATCH, &path(&client, owner)).query("merge", true);
    ask.body(&Value::Object(change)).json().await?;
    context.printer.done(&done);
    let apps = match &owner.app {
        Some(app) => vec![client.app_id(app)],
        None => {
            let apps = client.control(Method::GET, "apps").json().await?;
            let id = |app: &Value| app["id"].as_str().map(str::to_owned);
            apps.as_array().into_iter().flatten().filter_map(id).collect()
        }
    };
    if restart.restart {
        for app in &apps {
            client.control(Method::POST, &format!("apps/{app}/restart")).json().await?;
            context.printer.done(&format!("the replicas of {app} are being replaced"));
        }
    } else if !apps.is_empty() {
        let all = "replicas that run keep what they have; `--restart`, or `postback apps restart APP`, replaces them";
        context.printer.hint(all);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_anything_and_a_name_alone_among_others_is_refused() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let secrets = given(&texts(&["A=1", "B=x=y", "C="])).unwrap();
        assert_eq!(Value::Object(secrets), serde_json::json!({"A": "1", "B": "x=y", "C": ""}));
        assert_eq!(given(&texts(&["A=1", "B"])).unwrap_err().to_string(), "`B` has no value");
    }
}
