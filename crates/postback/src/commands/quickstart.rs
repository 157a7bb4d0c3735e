//! `postback quickstart`: the main job in one command, on a machine that has nothing but Python 3.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use queue::Clock as _;
use queue::inbox::SignatureState;
use queue::signature::{ID_HEADER, SignatureHeaders, SigningKeys, WebhookSecret};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::serve::Policy;
use super::{Context, ExitStatus, deploy, inbox, serve};
use crate::client::Client;
use crate::credentials::Credentials;
use crate::embedded;
use crate::print::{Colour, Printer, WithHint, clean};
use crate::profile::Profile;
use crate::serve::{Server, Stopped};
use crate::system::SystemClock;

/// Where the search for a free port begins, and how far it goes.
const PORTS: std::ops::Range<u16> = 4100..4200;
/// How long the webhook may take; the run itself takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Attempts to remove what is left.
const REMOVALS_MAX: u32 = 100;
const APP: &str = "webhook-delay-example";

/// Arguments of `postback quickstart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Its data directory is temporary unless --data-dir names one.")]
pub(crate) struct Args {
    /// End after the webhook; exit status 0 only if it arrived and its signature verified
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    policy: Policy,
    #[command(flatten)]
    isolation: serve::Isolation,
}

/// Shows the whole thing.
///
/// # Errors
/// When a step fails; the message says which and why.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    serve::log_to_stderr("warn", false)?;
    // Before there is anything to clean up.
    let mut signals = Signals::watch().context("signals cannot be watched")?;
    let temporary = tempfile::Builder::new().prefix("postback-").tempdir().context("no temporary folder")?;
    let ended = whole(args, context, temporary.path(), &mut signals).await;
    remove(temporary, context.printer).await;
    ended
}

async fn whole(
    args: Args,
    context: &Context,
    temporary: &Path,
    signals: &mut Signals,
) -> anyhow::Result<ExitStatus> {
    let printer = context.printer;
    let data_dir = context.global.data_dir.clone().unwrap_or_else(|| temporary.join("data"));
    let listener = free_port()?;
    let options = serve::Args {
        listen: listener.local_addr().context("the port's address cannot be read")?,
        public_url: None,
        key_file: serve::KeyFile::default(),
        policy: args.policy,
        edge: serve::Edge::default(),
        tuning: serve::Tuning::default(),
        isolation: args.isolation,
        install_apt_packages: false,
        cpu_fallback: false,
        drain_timeout: 5,
        log: String::new(),
        log_json: false,
    }
    .options(Some(data_dir.clone()))?;

    let mut server = Server::start_on(options, listener).await.context("the server did not start")?;
    printer.done(&format!("a server is up at {}", server.public_url));
    printer.note(&format!("  {}", server.containment));
    let example = temporary.join("example");
    let shown = tokio::select! {
        biased;
        code = signals.next() => Ok(Some(code)),
        shown = show(&server, printer, &example) => shown.map(|()| None),
    };
    let stopped = match &shown {
        Ok(None) if !args.once => {
            farewell(&server, printer, &data_dir);
            tokio::select! {
                _ = signals.next() => Stopped::Asked,
                stopped = server.wait() => stopped,
            }
        }
        _ => Stopped::Asked,
    };
    match stopped {
        Stopped::Asked => {}
        Stopped::StoreFailed(reason) => bail!("the disk refused a commit: {reason}"),
        Stopped::PartFailed(reason) => bail!("a part of the server failed: {reason}"),
    }
    server.stop().await;
    Ok(shown?.map_or(ExitStatus::Success, |code| {
        printer.note("stopped before the webhook arrived");
        ExitStatus::Code(code)
    }))
}

/// What asks a program to end, and would end it at once.
struct Signals(Vec<Signal>);

impl Signals {
    fn watch() -> io::Result<Self> {
        let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        // `nohup` goes on without its terminal.
        let watched = ends.into_iter().filter(|kind| *kind != SignalKind::hangup() || !is_ignored(*kind));
        Ok(Self(watched.map(signal).collect::<io::Result<_>>()?))
    }

    /// The exit status that shells know for the next one.
    async fn next(&mut self) -> u8 {
        let codes = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let came = select_all(self.0.iter_mut().map(|signal| signal.recv().boxed())).await.1;
        128 + u8::try_from(codes[came].as_raw_value()).unwrap_or(0)
    }
}

/// Whether the process was started so that the signal does nothing. Where the system does not tell, it is left alone.
fn is_ignored(kind: SignalKind) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

/// Removes the folder. What is ending may still write into it for a moment.
async fn remove(folder: TempDir, printer: Printer) {
    let folder = folder.keep();
    for _ in 0..REMOVALS_MAX {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tokio::time::sleep(LOOK_EVERY).await,
            _ => return,
        }
    }
    printer.warning(&format!("`{}` could not be removed; it can be removed by hand", folder.display()));
}

/// Port 4100, where clients look, or the next one that is free; kept, for somebody else may be looking too.
fn free_port() -> anyhow::Result<TcpListener> {
    PORTS.into_iter().find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()).ok_or_else(|| {
        WithHint::new(
            format!("every port from {} to {} is taken", PORTS.start, PORTS.end - 1),
            "end what uses them, or start a server elsewhere: `postback serve --listen 127.0.0.1:5000`",
        )
        .into()
    })
}

async fn show(server: &Server, printer: Printer, example: &Path) -> anyhow::Result<()> {
    let credentials = server.credentials.as_ref().context("the data directory's keys are missing")?;
    let client = Client::connect(Profile {
        url: server.public_url.clone(),
        api_key: credentials.private_key.clone(),
        project: Some(credentials.project_id.to_string()),
    })
    .await?;

    embedded::unpack_delay_example(example)?;
    let config = deploy::read_config(example, Some("config.yaml"))?;
    printer.note(&format!("  deploying {APP}, the delay example"));
    let deployed = deploy::deploy(&client, printer, example, &config, APP).await?;
    ensure!(deployed.is_live(), "the example's build ended as {}; the lines above say why", deployed.status);
    printer.done(&format!("{APP} is live after {:.1} s", deployed.took.as_secs_f64()));

    let inbox = inbox::create(&client).await?;
    let (address, page) = (inbox["url"].as_str(), inbox["pageUrl"].as_str());
    let (address, page) = address.zip(page).context("the server's answer names no inbox")?;
    printer.done(&format!("an inbox waits at {address}"));

    let path = format!("/v3/{}/{APP}/predict", client.project());
    let request = json!({"delayMins": 0, "webhook_endpoint": address}).to_string();
    let curl = format!(
        "curl -X POST {}{path} \\\n     -H 'Content-Type: application/json' -H 'Authorization: {}' \\\n     --data '{request}'",
        client.url(),
        credentials.public_key
    );
    let sent = Instant::now();
    let (status, acknowledgement) = client.ask(Method::POST, &path).raw_body(request).any().await?;
    let acknowledged = sent.elapsed();
    ensure!(status.is_success(), "the call was answered {status}: {}", clean(&acknowledgement));
    printer.done(&format!("acknowledged after {:.1} ms, safe on disk:", acknowledged.as_secs_f64() * 1e3));
    printer.data(&format!("  {}", clean(&acknowledgement)));

    let spinner = printer.spinner("waiting for the webhook");
    let arrived = arrival(&client, inbox["id"].as_str().unwrap_or_default()).await;
    let after = sent.elapsed();
    spinner.finish_and_clear();
    let arrived = arrived?;
    printer.done(&format!("the webhook arrived {:.1} ms after the request:", after.as_secs_f64() * 1e3));
    printer.data(&format!("  {}", clean(arrived["body"].as_str().unwrap_or_default())));
    verify(&arrived, credentials)?;
    let id = inbox::headers(&arrived).into_iter().find(|(name, _)| name == ID_HEADER);
    printer.done(&format!(
        "its signature is {}: {}",
        printer.paint(Colour::Green, "verified"),
        clean(&id.unwrap_or_default().1)
    ));
    printer.data(&format!("\nDo it again by hand:\n\n{curl}\n\nThe inbox's page: {page}"));
    Ok(())
}

/// The first request that the inbox records.
async fn arrival(client: &Client, inbox: &str) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        if let Some(first) = inbox::requests(client, inbox, 0).await?.into_iter().next() {
            return Ok(first);
        }
        ensure!(began.elapsed() < PATIENCE, "no webhook arrived within {} s", PATIENCE.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Checks the signature here, as a receiver would, with the secret that only the owner has.
fn verify(request: &Value, credentials: &Credentials) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let keys = SigningKeys::parse(&[WebhookSecret::in_force(credentials.webhook_secret.clone(), now)], &[])?;
    let headers = inbox::headers(request);
    let headers: SignatureHeaders<'_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body = request["body"].as_str().unwrap_or_default();
    let verdict = keys.check(&headers, body.as_bytes(), now);
    ensure!(
        verdict.verdict == SignatureState::Verified,
        "the webhook's signature is wrong: {}",
        verdict.detail
    );
    Ok(())
}

fn farewell(server: &Server, printer: Printer, data_dir: &Path) {
    printer.data(&format!(
        "\nThe server goes on at {}. Other commands reach it with --url {} --data-dir {}\nStop it with Ctrl-C.",
        server.public_url,
        server.public_url,
        data_dir.display()
    ));
}
