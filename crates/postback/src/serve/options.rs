//! What a server is told by flags and environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gateway::RateLimits;
use gateway::listener::ListenerOptions;
use ipnet::IpNet;
use queue::contain::Sandbox;

/// A server's options, resolved: no environment is read below this point.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where the data lies.
    pub(crate) data_dir: PathBuf,
    /// How to open the store there.
    pub(crate) store: store::Options,
    /// Where what can be fetched again lies.
    pub(crate) cache_dir: PathBuf,
    /// The address people and webhooks use; from the listener when `None`.
    pub(crate) public_url: Option<String>,
    /// Private networks that webhooks may go to.
    pub(crate) allow_private_webhooks: Vec<IpNet>,
    /// Webhooks may use plain HTTP.
    pub(crate) allow_http_webhooks: bool,
    /// Ports beside 443 and 80 that webhooks may go to.
    pub(crate) allow_webhook_ports: Vec<u16>,
    /// Deliveries under way at once.
    pub(crate) delivery_caps: delivery::Caps,
    /// How far code of apps and builds is contained.
    pub(crate) sandbox: Sandbox,
    /// Folders of this machine that apps may read and write, beside their own.
    pub(crate) shared_with_apps: Vec<PathBuf>,
    /// Builds may install Debian packages.
    pub(crate) install_apt_packages: bool,
    /// Apps whose GPUs are not there run on CPUs.
    pub(crate) cpu_fallback: bool,
    /// `disable_auth = true` in an app's config is honoured.
    pub(crate) allow_open_apps: bool,
    /// Proxies whose `X-Forwarded-*` is believed.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call apps; empty means any.
    pub(crate) cors_origins: Vec<String>,
    /// What connections may cost.
    pub(crate) listener: ListenerOptions,
    /// How often one caller may ask.
    pub(crate) rates: RateLimits,
    /// Time for runs under way after SIGTERM.
    pub(crate) drain_timeout: Duration,
}
