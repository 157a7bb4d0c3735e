//! `postback serve`

mod edge;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ipnet::IpNet;

pub(crate) use edge::Edge;
use queue::contain::{Sandbox, Tier};

use super::{Context, ExitStatus};
use crate::print::LogLines;
use crate::serve::{EXIT_PART_FAILED, EXIT_STORE_FAILED, Options, Server, Stopped};
use crate::system;

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:4100 or 0.0.0.0:4100")
}

/// Arguments of `postback serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on
    #[arg(long, env = "POSTBACK_LISTEN", default_value = "127.0.0.1:4100", value_name = "ADDRESS",
          value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Address under which people and webhooks reach this server, such as https://models.example.com
    #[arg(long, env = "POSTBACK_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    #[command(flatten)]
    pub(crate) key_file: KeyFile,
    #[command(flatten)]
    pub(crate) policy: Policy,
    #[command(flatten)]
    pub(crate) edge: Edge,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
    /// Let builds install the Debian packages that apps ask for; the server must be root
    #[arg(long, env = "POSTBACK_INSTALL_APT_PACKAGES")]
    pub(crate) install_apt_packages: bool,
    /// Take apps that ask for GPUs which this machine does not have, and run them on its CPUs
    #[arg(long, env = "POSTBACK_CPU_FALLBACK")]
    pub(crate) cpu_fallback: bool,
    /// Seconds that runs under way get to finish after SIGTERM
    #[arg(long, env = "POSTBACK_DRAIN_TIMEOUT", default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_timeout: u64,
    /// Which log lines to write, such as `info` or `warn,worker=debug`
    #[arg(long, env = "POSTBACK_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
    /// Write log lines as JSON
    #[arg(long, env = "POSTBACK_LOG_JSON")]
    pub(crate) log_json: bool,
}

/// How the server uses the machine.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Tuning {
    /// Threads that answer calls; as many as cores when not given
    #[arg(long, env = "POSTBACK_THREADS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Changes that a transaction waits for, so that counting instructions repeats. It makes everything slower.
    #[arg(long, env = "POSTBACK_STORE_BATCH_FILL", hide = true, value_name = "COUNT")]
    pub(crate) store_batch_fill: Option<usize>,
}

/// How far code of users is kept from the rest of the machine; shared with `quickstart` and `doctor`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Isolation {
    /// How far code of apps is contained: as far as the machine can (auto), at least with namespaces or not
    /// at all (strict), or not (off); `postback doctor` shows what this machine can
    #[arg(long, env = "POSTBACK_SANDBOX", default_value = "auto", value_name = "HOW")]
    pub(crate) sandbox: How,
    /// Folders of this machine that apps may read and write, beside their own
    #[arg(long, env = "POSTBACK_SHARE_WITH_APPS", value_delimiter = ',', value_name = "DIR,…")]
    pub(crate) share_with_apps: Vec<PathBuf>,
}

/// The words of `--sandbox`.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum How {
    #[default]
    Auto,
    Strict,
    Off,
    /// For tests: no more than this tier.
    #[value(hide = true)]
    S1,
    #[value(hide = true)]
    S2,
}

impl From<How> for Sandbox {
    fn from(how: How) -> Self {
        match how {
            How::Auto => Self::Auto,
            How::Strict => Self::Strict,
            How::Off => Self::Off,
            How::S1 => Self::AtMost(Tier::S1),
            How::S2 => Self::AtMost(Tier::S2),
        }
    }
}

/// Where the key file lies; shared with `keys rotate`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct KeyFile {
    /// File with the key that secrets in the database are encrypted with [default: secret.key in the data
    /// directory]
    #[arg(long, env = "POSTBACK_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

impl KeyFile {
    /// How to open the store of a data directory.
    pub(crate) fn store_options(&self, data_dir: PathBuf) -> store::Options {
        let mut options = store::Options::new(data_dir);
        if let Some(file) = &self.key_file {
            options.key_file.clone_from(file);
        }
        options
    }
}

/// What the server allows; shared with the quickstart.
#[derive(Debug, clap::Args)]
pub(crate) struct Policy {
    /// Private networks that webhooks may go to, such as 127.0.0.0/8
    #[arg(long, env = "POSTBACK_ALLOW_PRIVATE_WEBHOOKS", value_delimiter = ',', value_name = "CIDR,…")]
    pub(crate) allow_private_webhooks: Vec<IpNet>,
    /// Let webhooks use plain HTTP
    #[arg(long, env = "POSTBACK_ALLOW_HTTP_WEBHOOKS")]
    pub(crate) allow_http_webhooks: bool,
    /// Ports beside 443 (and 80) that webhooks may go to
    #[arg(long, env = "POSTBACK_ALLOW_WEBHOOK_PORTS", value_delimiter = ',', value_name = "PORT,…")]
    pub(crate) allow_webhook_ports: Vec<u16>,
    /// Webhooks under way at once
    #[arg(long, env = "POSTBACK_DELIVERIES_IN_FLIGHT", default_value_t = 512, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) deliveries_in_flight: u16,
    /// Webhooks under way at once to one receiver that answers well
    #[arg(long, env = "POSTBACK_DELIVERIES_PER_RECEIVER", default_value_t = 64, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) deliveries_per_receiver: u16,
    /// Honour `disable_auth = true` in an app's config: such apps can be called without a key
    #[arg(long, env = "POSTBACK_ALLOW_OPEN_APPS")]
    pub(crate) allow_open_apps: bool,
    /// Proxies whose X-Forwarded-* headers are believed
    #[arg(long, env = "POSTBACK_TRUSTED_PROXY", value_delimiter = ',', value_name = "CIDR,…")]
    pub(crate) trusted_proxy: Vec<IpNet>,
    /// Origins whose pages may call apps from a browser; any, when not given
    #[arg(long, env = "POSTBACK_CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGIN,…")]
    pub(crate) cors_origins: Vec<String>,
}

impl Args {
    /// The server's options, with `data_dir` from the global flag or its default.
    ///
    /// # Errors
    /// When an address is malformed or no directory can be found.
    pub(crate) fn options(self, data_dir: Option<PathBuf>) -> anyhow::Result<Options> {
        let data_dir = data_dir.map_or_else(system::default_data_dir, Ok)?;
        let public_url = self.public_url.map(|url| origin(&url)).transpose()?;
        let data_dir =
            std::path::absolute(&data_dir).with_context(|| format!("`{}` is no path", data_dir.display()))?;
        let rates = self.edge.rates();
        let listener = self.edge.listener(self.policy.trusted_proxy.clone());
        Ok(Options {
            listener,
            rates,
            listen: self.listen,
            store: store::Options {
                batch_fill: self.tuning.store_batch_fill,
                ..self.key_file.store_options(data_dir.clone())
            },
            data_dir,
            cache_dir: system::default_cache_dir()?,
            public_url,
            allow_private_webhooks: self.policy.allow_private_webhooks,
            allow_http_webhooks: self.policy.allow_http_webhooks,
            allow_webhook_ports: self.policy.allow_webhook_ports,
            delivery_caps: delivery::Caps {
                in_flight: self.policy.deliveries_in_flight.into(),
                per_receiver: self.policy.deliveries_per_receiver.into(),
                ..delivery::Caps::default()
            },
            sandbox: self.isolation.sandbox.into(),
            shared_with_apps: shared(self.isolation.share_with_apps)?,
            install_apt_packages: self.install_apt_packages,
            cpu_fallback: self.cpu_fallback,
            allow_open_apps: self.policy.allow_open_apps,
            trusted_proxies: self.policy.trusted_proxy,
            cors_origins: self.policy.cors_origins,
            drain_timeout: Duration::from_secs(self.drain_timeout),
        })
    }
}

/// Folders that are there, by their real and absolute paths.
fn shared(folders: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let real = |folder: PathBuf| {
        let real = folder.canonicalize();
        real.with_context(|| {
            format!("`--share-with-apps {}` names no folder that is there", folder.display())
        })
    };
    folders.into_iter().map(real).collect()
}

/// `https://models.example.com`, without a path and without a slash at its end.
fn origin(text: &str) -> anyhow::Result<String> {
    let url = url::Url::parse(text).with_context(|| format!("`--public-url {text}` is no URL"))?;
    ensure!(
        matches!(url.scheme(), "http" | "https") && url.path() == "/" && url.query().is_none(),
        "`--public-url {text}` must be `http://…` or `https://…` with host and port only"
    );
    Ok(url.origin().ascii_serialization())
}

/// Serves until a signal comes.
///
/// # Errors
/// When the server cannot start.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    log_to_stderr(&args.log, args.log_json)?;
    let mut server = Server::start(args.options(context.global.data_dir.clone())?).await?;
    let printer = &context.printer;
    tracing::info!("listening on {}", server.address);
    printer.note(&format!("postback is serving at {}", server.public_url));
    if let Some(credentials) = &server.credentials {
        printer.note(&format!("project {}; its keys: `postback keys show`", credentials.project_id));
        let base = server.public_url.trim_end_matches('/');
        printer.note(&format!("dashboard: {base}/dashboard, opened with the private key"));
    }
    printer.note(&server.containment);
    printer.note("stop it with Ctrl-C");
    let stopped = server.wait().await;
    match stopped {
        Stopped::Asked => {
            server.stop().await;
            Ok(ExitStatus::Success)
        }
        Stopped::PartFailed(reason) => {
            tracing::error!("stopping at once, so that a fresh start takes up what is left: {reason}");
            Ok(ExitStatus::Code(EXIT_PART_FAILED))
        }
        Stopped::StoreFailed(reason) => {
            tracing::error!("stopping at once, since the disk refused a commit: {reason}");
            Ok(ExitStatus::Code(EXIT_STORE_FAILED))
        }
    }
}

/// Log lines go to standard error: a sentence and its fields.
///
/// # Errors
/// When the filter is malformed.
pub(crate) fn log_to_stderr(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("`--log {filter}` is no log filter; try `info` or `warn,worker=debug`"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal());
    if json {
        lines.with_writer(std::io::stderr).json().init();
    } else {
        lines.with_writer(|| LogLines(std::io::stderr())).compact().with_target(false).init();
    }
    Ok(())
}
