//! The other servers, each with one worker and the same trivial function, installed from PyPI into environments of
//! their own below `target/`, with their versions pinned.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::floors::peers_folder;
use crate::processes::Group;

/// What an installation takes at most.
const INSTALL_SECONDS: &str = "600";

/// One other server.
#[derive(Debug)]
pub(crate) struct Peer {
    /// As the report names it.
    pub(crate) name: &'static str,
    /// The folder of its environment; peers with the same one share it.
    environment: &'static str,
    packages: &'static [&'static str],
    /// Arguments of Python that start its server; `PORT` stands for the port.
    server: &'static [&'static str],
    /// Arguments of Python that start its worker, where that is a program of its own.
    worker: &'static [&'static str],
    /// Variables; `PORT` likewise.
    variables: &'static [(&'static str, &'static str)],
    pub(crate) path: &'static str,
    /// Bodies are `{"input": …}`.
    pub(crate) wraps_input: bool,
    /// What is done with a webhook.
    pub(crate) webhook: Webhook,
    /// The status with which it says that it is busy.
    pub(crate) busy: Option<u16>,
}

/// How a webhook is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Webhook {
    /// Not at all: it answers only.
    None,
    /// `webhook_endpoint` in the body, and nothing is answered but that.
    Only,
    /// `webhook` beside the input, with `Prefer: respond-async`.
    AsCog,
}

const FASTAPI: [&str; 4] = ["fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"];
// kombu imports `packaging` and does not name it.
const CELERY: [&str; 8] = [
    FASTAPI[0],
    FASTAPI[1],
    FASTAPI[2],
    FASTAPI[3],
    "celery==5.7.0",
    "redis==8.1.0",
    "httpx==0.28.1",
    "packaging==25.0",
];
// arq refuses the redis-py that Celery needs.
const ARQ: [&str; 7] =
    [FASTAPI[0], FASTAPI[1], FASTAPI[2], FASTAPI[3], "arq==0.28.0", "redis==5.3.1", "httpx==0.28.1"];

macro_rules! uvicorn {
    ($app:literal) => {
        &[
            "-m",
            "uvicorn",
            $app,
            "--host",
            "127.0.0.1",
            "--port",
            "PORT",
            "--log-level",
            "warning",
            "--no-access-log",
        ]
    };
}

const PLAIN: Peer = Peer {
    name: "",
    environment: "",
    packages: &[],
    server: &[],
    worker: &[],
    variables: &[],
    path: "/predict",
    wraps_input: false,
    webhook: Webhook::None,
    busy: None,
};

/// All of them.
pub(crate) const ALL: [Peer; 8] = [
    Peer {
        name: "FastAPI, async def",
        environment: "fastapi",
        packages: &FASTAPI,
        server: uvicorn!("plain_fastapi:app"),
        path: "/async-def",
        ..PLAIN
    },
    Peer {
        name: "FastAPI, def",
        environment: "fastapi",
        packages: &FASTAPI,
        server: uvicorn!("plain_fastapi:app"),
        path: "/def",
        ..PLAIN
    },
    Peer {
        name: "RunPod SDK",
        environment: "runpod",
        packages: &["runpod==1.12.0"],
        server: &[
            "with_runpod.py",
            "--rp_serve_api",
            "--rp_api_port",
            "PORT",
            "--rp_api_host",
            "127.0.0.1",
            "--rp_log_level",
            "ERROR",
        ],
        path: "/runsync",
        wraps_input: true,
        ..PLAIN
    },
    Peer {
        name: "Cog",
        environment: "cog",
        packages: &["cog==0.23.1"],
        server: &["-m", "cog.server.http", "--host", "127.0.0.1"],
        variables: &[
            ("PORT", "PORT"),
            ("COG_PREDICT_TYPE_STUB", "with_cog.py:Predictor"),
            ("COG_MAX_CONCURRENCY", "64"),
            ("COG_LOG_LEVEL", "error"),
            ("RUST_LOG", "error"),
        ],
        path: "/predictions",
        wraps_input: true,
        webhook: Webhook::AsCog,
        busy: Some(409),
        ..PLAIN
    },
    Peer {
        name: "LitServe",
        environment: "litserve",
        packages: &["litserve==0.2.19"],
        server: &["with_litserve.py", "PORT"],
        ..PLAIN
    },
    Peer {
        name: "BentoML",
        environment: "bentoml",
        packages: &["bentoml==1.4.39"],
        server: &["-m", "bentoml", "serve", "with_bentoml:Bench", "--host", "127.0.0.1", "--port", "PORT"],
        variables: &[("BENTOML_DO_NOT_TRACK", "True")],
        ..PLAIN
    },
    Peer {
        name: "FastAPI + Celery + Redis",
        environment: "celery",
        packages: &CELERY,
        server: uvicorn!("with_celery:app"),
        worker: &[
            "-m",
            "celery",
            "-A",
            "with_celery:tasks",
            "worker",
            "-c",
            "1",
            "--loglevel",
            "error",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ],
        webhook: Webhook::Only,
        ..PLAIN
    },
    Peer {
        name: "FastAPI + arq + Redis",
        environment: "arq",
        packages: &ARQ,
        server: uvicorn!("with_arq:app"),
        worker: &["-m", "arq", "with_arq.Worker"],
        webhook: Webhook::Only,
        ..PLAIN
    },
];

impl Peer {
    /// Whether its webhooks come from a program of its own, which can be left out.
    pub(crate) fn has_worker(&self) -> bool {
        !self.worker.is_empty()
    }

    /// Makes its environment if it is not there.
    ///
    /// # Errors
    /// With the reason why the peer cannot be measured.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        if self.has_worker() {
            let redis = Command::new("redis-server").arg("--version").output();
            redis.context("it needs `redis-server`; install the package `redis-server`")?;
        }
        let folder = self.folder()?;
        let stamp = folder.join("packages.txt");
        let wanted = self.packages.join("\n");
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new("timeout");
        pip.arg(INSTALL_SECONDS).arg(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary"]);
        succeed(pip.args(self.packages))?;
        std::fs::write(&stamp, wanted)?;
        Ok(())
    }

    /// The pinned versions, for the report.
    pub(crate) fn versions(&self) -> String {
        self.packages.join(" ")
    }

    fn folder(&self) -> anyhow::Result<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        std::fs::create_dir_all(root.join("bench-peers"))?;
        Ok(root.canonicalize()?.join("bench-peers").join(self.environment))
    }

    /// Starts its server on the port, and with `works` its worker; Redis where it needs one, which syncs each write.
    pub(crate) fn start(&self, port: u16, works: bool, folder: &Path) -> anyhow::Result<Vec<Group>> {
        let mut groups = Vec::new();
        let mut redis_url = String::new();
        if self.has_worker() {
            let port = free_port()?;
            redis_url = format!("redis://127.0.0.1:{port}");
            let mut redis = Command::new("redis-server");
            redis.args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--loglevel",
                "warning",
            ]);
            redis.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(folder);
            groups.push(Group::start(&mut redis, &folder.join("redis.log"))?);
            wait_for_port(port)?;
        }
        let python = self.folder()?.join("bin/python");
        // Some start their workers as whatever `python` is.
        let path = format!(
            "{}:{}",
            self.folder()?.join("bin").display(),
            std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into())
        );
        let set = |text: &str| if text == "PORT" { port.to_string() } else { text.to_owned() };
        let start = |arguments: &[&str], log: &str| {
            let mut command = Command::new(&python);
            command.args(arguments.iter().map(|text| set(text))).current_dir(peers_folder());
            command.env("PYTHONDONTWRITEBYTECODE", "1").env("REDIS_URL", &redis_url).env("HOME", folder);
            command.env("PYTHONPATH", peers_folder()).env("PATH", &path);
            command.envs(self.variables.iter().map(|(name, value)| (name, set(value))));
            Group::start(&mut command, &folder.join(log))
        };
        // The server last: its answer is what readiness is told by.
        if works && self.has_worker() {
            groups.push(start(self.worker, "worker.log")?);
        }
        groups.push(start(self.server, "server.log")?);
        Ok(groups)
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn wait_for_port(port: u16) -> anyhow::Result<()> {
    for _ in 0..1_000 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    bail!("nobody listens on port {port}")
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.lines().last().unwrap_or("it failed and said nothing"));
    Ok(())
}
