//! `postback deploy`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use builder::{Config, archive};
use reqwest::Method;
use serde_json::Value;

use super::{Context, ExitStatus};
use crate::client::Client;
use crate::print::{Printer, WithHint, clean};

/// The function of pre-built models and of apps of 2023.
const PREDICT: &str = "predict";
/// Between two looks at a build's log …
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// … and so long as it may be one whose environment is there, which takes less than a second.
const LOOK_OFTEN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Arguments of `postback deploy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the app [default: the config file's]
    name: Option<String>,
    /// Config file [default: cerebrium.toml, else config.yaml]
    #[arg(long, value_name = "FILE")]
    config_file: Option<String>,
    /// Folder with main.py
    #[arg(long, default_value = ".", value_name = "DIR")]
    folder: PathBuf,
}

impl Args {
    /// For the app in `folder`, under this name.
    pub(crate) fn of(folder: &Path, name: &str) -> Self {
        Self { name: Some(name.to_owned()), config_file: None, folder: folder.to_owned() }
    }
}

/// A build that came to an end.
pub(crate) struct Deployed {
    /// Its last status: `success` or how it failed.
    pub(crate) status: String,
    /// The app's id.
    pub(crate) app: String,
    /// The app's name.
    pub(crate) name: String,
    /// Names of the functions that can be called.
    pub(crate) functions: Vec<String>,
    /// The function that is shown as an example, and a body that it takes once the gaps are filled.
    pub(crate) sample: Option<(String, String)>,
    /// How long it took, from packing to live.
    pub(crate) took: Duration,
}

impl Deployed {
    /// Whether the new version is live.
    pub(crate) fn is_live(&self) -> bool {
        self.status == "success"
    }
}

/// Deploys the folder's app.
///
/// # Errors
/// When the config file is wrong or the server refuses it; a build that fails is no error but an
/// exit status.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let printer = context.printer;
    if !args.folder.is_dir() {
        let message = format!("there is no folder `{}`", args.folder.display());
        return Err(WithHint::new(message, "`--folder` names the one with main.py").into());
    }
    let config = read_config(&args.folder, args.config_file.as_deref())?;
    for warning in &config.warnings {
        printer.warning(&warning.to_string());
    }
    let name = args.name.clone().or_else(|| config.name.clone()).ok_or_else(|| {
        WithHint::new(
            "the app has no name",
            "give one: `postback deploy NAME`, or `name = \"…\"` in the config file",
        )
    })?;
    let client = context.client().await?;
    let deployed = deploy(&client, printer, &args.folder, &config, &name).await?;
    if !deployed.is_live() {
        printer.say(&format!(
            "{} build ended as {}; what was live before stays live",
            printer.paint(crate::print::Colour::Red, "error:"),
            deployed.status
        ));
        printer.hint("the lines above say why; mend it and deploy again");
        return Ok(ExitStatus::Failure);
    }
    let curl = curl_line(&client, &config, &deployed, context);
    if printer.wants_json() {
        printer.json(&serde_json::json!({
            "appId": deployed.app,
            "status": deployed.status,
            "functions": deployed.functions,
            "seconds": deployed.took.as_secs_f64(),
            "curl": curl,
        }));
    } else {
        printer.done(&format!("{} is live after {:.1} s", deployed.name, deployed.took.as_secs_f64()));
        printer.note("call it:");
        printer.data(&curl);
    }
    Ok(ExitStatus::Success)
}

/// The folder's config file: the named one, else the first that is there, else all defaults.
pub(crate) fn read_config(folder: &Path, file: Option<&str>) -> anyhow::Result<Config> {
    let found = || builder::config::FILE_NAMES.into_iter().find(|name| folder.join(name).is_file());
    let Some(file) = file.or_else(found) else { return Ok(Config::without_file()) };
    let mut config = Config::read(folder, file)?;
    if let Some(headers) = &config.app.webhook_headers {
        let filled = headers.filled_in(|name| std::env::var(name).ok());
        config.app.webhook_headers = Some(filled.map_err(|why| {
            WithHint::new(
                format!("{file}: `webhook_headers` {why}"),
                "set the variable for `postback deploy`, or write the value into the file",
            )
        })?);
    }
    Ok(config)
}

/// Packs, uploads and follows the build to its end, showing each step.
///
/// # Errors
/// When the folder cannot be packed or the server refuses.
pub(crate) async fn deploy(
    client: &Client,
    printer: Printer,
    folder: &Path,
    config: &Config,
    name: &str,
) -> anyhow::Result<Deployed> {
    let began = Instant::now();
    let packed = archive::pack(folder, config, &config.file)?;
    let created = client.create_build(name, &config.app).await?;
    for warning in created["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        printer.warning(&clean(warning));
    }
    let text = |key: &str| {
        created[key]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("the server's answer has no `{key}`"))
    };
    let (build, upload_url, app) = (text("buildId")?, text("uploadUrl")?, text("appId")?);

    let bar = printer.bytes_bar("uploading", packed.size);
    let moving = bar.clone();
    client.upload(&upload_url, packed.file, packed.size, move |bytes| moving.inc(bytes)).await?;
    bar.finish_and_clear();

    let status = follow(client, printer, &app, &build).await?;
    let view = client.control(Method::GET, &format!("apps/{app}")).json().await?;
    let views: Vec<_> = view["functions"].as_array().into_iter().flatten().collect();
    let named = |function: &Value| function["name"].as_str().map(str::to_owned);
    let functions = views.iter().copied().filter_map(named).collect();
    let shown = views.iter().find(|function| function["name"] == PREDICT).or(views.first());
    let sample = shown.map(|function| (named(function).unwrap_or_default(), sample_body(function)));
    Ok(Deployed { status, app, name: name.to_owned(), functions, sample, took: began.elapsed() })
}

/// Prints a build's log as it grows; the build's last status.
async fn follow(client: &Client, printer: Printer, app: &str, build: &str) -> anyhow::Result<String> {
    let path = format!("apps/{app}/builds/{build}/logs");
    let spinner = printer.spinner("building");
    let mut after: Option<String> = None;
    let began = Instant::now();
    loop {
        let ask = client.control(Method::GET, &path);
        let page = match &after {
            Some(after) => ask.query("after", after),
            None => ask,
        };
        let page = page.json().await?;
        let lines = page["logs"].as_array().cloned().unwrap_or_default();
        spinner.suspend(|| {
            for line in lines.iter().filter_map(|line| line["log"].as_str()) {
                printer.note(&format!("  {}", clean(line)));
            }
        });
        after = page["nextToken"].as_str().map(str::to_owned).or(after);
        let status = page["status"].as_str().unwrap_or_default().to_owned();
        spinner.set_message(status.clone());
        let is_final = !matches!(status.as_str(), "pending" | "building" | "initializing");
        // Once the build is final, an empty page says that its log has been read to the end.
        if is_final && lines.is_empty() {
            spinner.finish_and_clear();
            return Ok(status);
        }
        if !is_final {
            let (often, until) = LOOK_OFTEN;
            tokio::time::sleep(if began.elapsed() < until { often } else { LOOK_EVERY }).await;
        }
    }
}

/// A JSON object with the parameters that a function cannot do without.
fn sample_body(function: &Value) -> String {
    // Under the contract of 2023 they are not the body's keys.
    let parameters = function["parameters"].as_array().filter(|_| function["contract"] == "keywords");
    let required = parameters.into_iter().flatten().filter(|parameter| parameter["required"] == true);
    let gaps = required.filter_map(|parameter| Some((parameter["name"].as_str()?.to_owned(), "…".into())));
    // Names of parameters are identifiers, so none ends the quotes of a shell.
    Value::Object(gaps.collect()).to_string()
}

/// The line that calls the app's first function, or its web server, with this machine's public key where it is known.
fn curl_line(client: &Client, config: &Config, deployed: &Deployed, context: &Context) -> String {
    let (function, body) = deployed.sample.as_ref().map_or((PREDICT, "{}"), |(name, body)| (name, body));
    let generation = if config.form == builder::config::Form::TomlCurrent { "v4" } else { "v3" };
    let key = context
        .data_dir()
        .ok()
        .and_then(|data_dir| crate::credentials::read(&data_dir).ok().flatten())
        .filter(|credentials| credentials.project_id.as_str() == client.project())
        .map_or_else(|| "$POSTBACK_API_KEY".to_owned(), |credentials| credentials.public_key);
    if config.app.runtime.is_some() {
        return format!(
            "curl {}/v4/{}/{}/ -H 'Authorization: {key}'",
            client.url(),
            client.project(),
            deployed.name
        );
    }
    format!(
        "curl -X POST {}/{generation}/{}/{}/{function} -H 'Content-Type: application/json' -H 'Authorization: {key}' \
         --data '{body}'",
        client.url(),
        client.project(),
        deployed.name,
    )
}
