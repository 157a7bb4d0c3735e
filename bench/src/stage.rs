//! The server under measure, driven from outside, with the app of the benchmarks.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use hyper::header::AUTHORIZATION;
use testkit::server::{Home, Keys, Server};

use crate::load::Connection;

/// The binary as users run it, built by cargo when it is not there.
pub(crate) fn release_binary() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "postback"])
        .current_dir(&root)
        .status()?;
    ensure!(status.success(), "the release binary could not be built");
    Ok(root.join("target/release/postback"))
}

/// Deploys the folder as the app `bench`.
pub(crate) fn deploy(home: &Home, from: &Path) -> anyhow::Result<()> {
    deploy_as(home, from, "bench")
}

/// Deploys the folder as the app of this name.
pub(crate) fn deploy_as(home: &Home, from: &Path, name: &str) -> anyhow::Result<()> {
    let output = home.command().current_dir(from).args(["deploy", name]).output()?;
    ensure!(output.status.success(), "deploy failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The app of the benchmarks: a function that does nothing, and one that never comes back.
pub(crate) fn app_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("app")
}

/// A server with that app. Dropping it kills the server.
pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) server: Server,
    keys: Keys,
}

impl Stage {
    /// On a fresh data directory.
    pub(crate) fn start(binary: &Path) -> anyhow::Result<Self> {
        Self::on(Home::new(binary))
    }

    /// On a directory that may have been filled, and may have the app.
    pub(crate) fn on(home: Home) -> anyhow::Result<Self> {
        let stage = Self::on_deployed(home);
        deploy(&stage.home, &app_folder())?;
        Ok(stage)
    }

    /// On a directory that has the app.
    pub(crate) fn on_deployed(home: Home) -> Self {
        let server = home.start();
        let keys = home.keys();
        Self { home, server, keys }
    }

    pub(crate) fn path(&self, function: &str) -> String {
        format!("/v4/{}/bench/{function}", self.keys.project_id)
    }

    pub(crate) fn key(&self) -> &str {
        &self.keys.public_key
    }

    pub(crate) fn private_key(&self) -> &str {
        &self.keys.private_key
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let address = self.home.url().trim_start_matches("http://").to_owned();
        Connection::open(&address, &[(AUTHORIZATION, self.key().parse()?)]).await
    }
}

/// Resident memory of a process, in MB.
pub(crate) fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    figure_mb(pid, "VmRSS:")
}

/// The most memory that a process had since [`reset_peak`], in MB.
pub(crate) fn peak_mb(pid: u32) -> anyhow::Result<f64> {
    figure_mb(pid, "VmHWM:")
}

/// Begins to watch the peak anew.
pub(crate) fn reset_peak(pid: u32) -> anyhow::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the kernel keeps no peak of memory")
}

fn figure_mb(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).context("the kernel tells no figure")?;
    let kibibytes: f64 = line.split_whitespace().next().context("no figure")?.parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}
