//! Measures everything side by side in one sitting: postback, the physical limits, and with `--peers` the other servers.
//!
//! `cargo xtask bench [PIECE…] [--peers] [--quick] [--rounds N] [--binary FILE] [--out FOLDER]`. Without pieces all
//! of them are measured. Rounds are interleaved: each system is started anew for each measurement, in an order that
//! changes from round to round, and ended after it. The report has the median of the rounds with the least and the
//! most; `--out` gets it as `report.md`, `figures.json` and `chart.svg`. Load, receivers and servers share the machine.
//!
//! Two more have options of their own: [`hanging`] asks what the others feel of one receiver that hangs, and
//! [`instructions`] counts what a run costs.

mod callgrind;
mod chart;
mod disk;
mod fill;
mod floors;
mod hanging;
mod instructions;
mod load;
mod pages;
mod peers;
mod pieces;
mod processes;
mod releases;
mod report;
mod scale;
mod sink;
mod stage;
mod systems;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use chart::Panel;
use floors::Floor;
use load::Until;
use pages::Listed;
use report::Report;
use scale::Grown;
use stage::release_binary;
use systems::{Call, System};

/// A measurement of one system that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(900);
/// The same for what fills directories with millions of runs.
const LONG_LIMIT: Duration = Duration::from_secs(7_200);

/// What can be measured, with what it is.
const PIECES: [(&str, &str); 15] = [
    ("limits", "what disk, SQLite and loopback can do"),
    ("sync-1", "calls per second over one connection, with their answers"),
    ("sync-64", "the same over 64 connections"),
    ("ack-64", "durable acknowledgements per second while nobody works"),
    ("e2e-64", "call, run, webhook: webhooks per second, all of them accounted for"),
    ("e2e-low", "from the call to the webhook at 20 calls per second"),
    ("payload", "bodies and results of 1 KiB, 100 KiB and 5 MiB"),
    ("fan-out", "1,000 receivers, and the same with 10 that hang"),
    ("backlog", "a million queued runs: accepted, started with, worked off"),
    ("restart", "the start on a directory with a million finished runs"),
    ("idle", "memory and CPU at rest, start to first answer, replica from zero"),
    ("deploy", "a new version of the delay example, whose environment is there"),
    ("cold", "the first answer of an app that has no replica"),
    (
        "pages",
        "the dashboard's pages, and its list of runs narrowed in every way, beside a million finished runs",
    ),
    ("growth", "e2e-64 beside 0, 1 and 10 million finished runs"),
];

const PANELS: [Panel; 3] = [
    Panel {
        title: "Calls answered per second, 64 connections, one worker",
        piece: "sync-64",
        figure: "calls",
    },
    Panel {
        title: "Webhooks per second, from call to receiver, nothing lost",
        piece: "e2e-64",
        figure: "webhooks",
    },
    Panel { title: "Acknowledgements per second, durable", piece: "ack-64", figure: "acknowledgements" },
];

/// How much of everything.
pub(crate) struct Sizes {
    /// Of closed loops over a time.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) webhooks: usize,
    pub(crate) webhooks_of_peers: usize,
    pub(crate) gentle_calls: usize,
    /// Bytes sent with each size of body, about.
    pub(crate) payload_bytes: usize,
    pub(crate) backlog: usize,
    pub(crate) drain: Duration,
    pub(crate) queued: usize,
    pub(crate) finished: [usize; 3],
    pub(crate) page_views: usize,
    /// Runs beside which the list of runs is narrowed; beside the last number all pages are opened.
    pub(crate) listed: [usize; 2],
    pub(crate) idle: Duration,
}

impl Sizes {
    fn new(quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            return Self {
                warm_up: Duration::from_millis(300),
                measured: seconds(1),
                webhooks: 2_000,
                webhooks_of_peers: 200,
                gentle_calls: 40,
                payload_bytes: 64 << 20,
                backlog: 10_000,
                drain: seconds(10),
                queued: 2_000,
                finished: [0, 10_000, 50_000],
                page_views: 50,
                listed: [2_000, 10_000],
                idle: seconds(2),
            };
        }
        Self {
            warm_up: Duration::from_millis(500),
            measured: seconds(4),
            webhooks: 20_000,
            webhooks_of_peers: 2_000,
            gentle_calls: 200,
            payload_bytes: 1 << 30,
            backlog: 1_000_000,
            drain: seconds(120),
            queued: 100_000,
            finished: [0, 1_000_000, 10_000_000],
            page_views: 200,
            listed: [100_000, 1_000_000],
            idle: seconds(10),
        }
    }

    /// The closed loops' time.
    pub(crate) fn time(&self) -> Until {
        Until::Over { warm_up: self.warm_up, measured: self.measured }
    }
}

struct Wanted {
    pieces: Vec<String>,
    peers: bool,
    quick: bool,
    rounds: usize,
    binary: Option<PathBuf>,
    out: Option<PathBuf>,
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut wanted =
            Self { pieces: Vec::new(), peers: false, quick: false, rounds: 0, binary: None, out: None };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("`{name}` has no value"));
            match name.as_str() {
                "--peers" => wanted.peers = true,
                "--quick" => wanted.quick = true,
                "--rounds" => wanted.rounds = value()?.parse().context("`--rounds N`")?,
                "--binary" => wanted.binary = Some(PathBuf::from(value()?).canonicalize()?),
                "--out" => wanted.out = Some(value()?.into()),
                piece if PIECES.iter().any(|(known, _)| *known == piece) => wanted.pieces.push(name),
                _ => bail!(
                    "`{name}` is neither an option nor a piece; there are --peers, --quick, --rounds N, --binary FILE and --out \
                     FOLDER, and the pieces\n{}",
                    PIECES.map(|(name, what)| format!("  {name:<8} {what}")).join("\n")
                ),
            }
        }
        if wanted.rounds == 0 {
            wanted.rounds = if wanted.quick { 1 } else { 3 };
        }
        if wanted.pieces.is_empty() {
            wanted.pieces = PIECES.map(|(name, _)| name.to_owned()).into();
        }
        Ok(wanted)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let measured = async {
        if arguments.next_if_eq(floors::ARGUMENT).is_some() {
            floors::serve(arguments).await
        } else if arguments.next_if_eq("instructions").is_some() {
            instructions::run(arguments).await
        } else if arguments.next_if_eq("hanging").is_some() {
            hanging::run(arguments).await
        } else {
            let _ = arguments.next_if_eq("bench");
            measure(Wanted::read(arguments)?).await
        }
    };
    // Given up half-way, it takes down what it started.
    tokio::select! {
        done = measured => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
async fn measure(wanted: Wanted) -> anyhow::Result<()> {
    let binary = wanted.binary.clone().map_or_else(release_binary, Ok)?;
    let mut report = Report::default();
    let mut systems = vec![System::Postback(binary.clone())];
    systems.extend(floors::ALL.map(System::Floor));
    if wanted.peers {
        for peer in &peers::ALL {
            match peer.install() {
                Ok(()) => {
                    println!("{}: {}", peer.name, peer.versions());
                    systems.push(System::Peer(peer));
                }
                Err(error) => report.skip("all", peer.name, &format!("it cannot be installed: {error:#}")),
            }
        }
    }
    let mut run = Run {
        sizes: Sizes::new(wanted.quick),
        binary,
        systems,
        grown: Grown::default(),
        listed: Listed::default(),
    };
    for round in 0..wanted.rounds {
        for piece in &wanted.pieces {
            println!("round {} of {}: {piece}", round + 1, wanted.rounds);
            run.piece(&mut report, piece, round).await;
        }
    }
    println!("\n{}", report.table());
    if let Some(out) = &wanted.out {
        std::fs::create_dir_all(out)?;
        std::fs::write(out.join("report.md"), report.table())?;
        std::fs::write(out.join("figures.json"), format!("{:#}\n", report.json()))?;
        let floors = floors::ALL.map(|floor| System::Floor(floor).name());
        if let Some(chart) = chart::draw(&report, &PANELS, &floors) {
            std::fs::write(out.join("chart.svg"), chart)?;
        }
    }
    ensure!(!run.failed(&report), "a measurement of postback failed; the lines with SKIP say which and why");
    Ok(())
}

/// What the rounds share.
struct Run {
    sizes: Sizes,
    binary: PathBuf,
    systems: Vec<System>,
    grown: Grown,
    listed: Listed,
}

impl Run {
    /// One piece of one round; what fails is said in the report, and the rest goes on.
    async fn piece(&mut self, report: &mut Report, piece: &str, round: usize) {
        let call = match piece {
            "sync-1" | "sync-64" | "idle" => Call::Sync,
            "ack-64" => Call::Promise,
            _ => Call::Webhook,
        };
        let alone =
            ["limits", "payload", "fan-out", "backlog", "restart", "deploy", "cold", "pages", "growth"]
                .contains(&piece);
        let mut order = self.systems.clone();
        if alone {
            order.truncate(1);
        } else {
            order
                .retain(|system| system.can(&call) || (piece == "idle" && matches!(system, System::Peer(_))));
            let turns = round % order.len();
            order.rotate_left(turns);
        }
        let limit = if alone { LONG_LIMIT } else { LIMIT };
        for system in order {
            let measured = tokio::time::timeout(limit, self.one(report, piece, &system)).await;
            let result = measured.unwrap_or_else(|_| bail!("it took longer than {limit:?}"));
            if let Err(error) = result {
                report.skip(piece, system.name(), &format!("{error:#}"));
            }
        }
    }

    async fn one(&mut self, report: &mut Report, piece: &str, system: &System) -> anyhow::Result<()> {
        let sizes = &self.sizes;
        match piece {
            "limits" => pieces::limits(report, sizes, &System::Floor(Floor::Http)).await,
            "sync-1" => pieces::sync(report, sizes, system, 1).await,
            "sync-64" => pieces::sync(report, sizes, system, pieces::CONNECTIONS).await,
            "ack-64" => pieces::acks(report, sizes, system).await,
            "e2e-64" => pieces::end_to_end(report, sizes, system).await,
            "e2e-low" => pieces::gentle(report, sizes, system).await,
            "payload" => pieces::payload(report, sizes, system).await,
            "fan-out" => pieces::fan_out(report, sizes, system).await,
            "backlog" => scale::backlog(report, sizes, &self.binary).await,
            "restart" => scale::start(report, sizes, &self.binary).await,
            "idle" => pieces::idle(report, sizes, system).await,
            "deploy" => releases::deploys(report, &self.binary),
            "cold" => releases::cold(report, &self.binary).await,
            "pages" => self.listed.measure(report, sizes, &self.binary).await,
            "growth" => self.grown.measure(report, sizes, system, &self.binary).await,
            _ => bail!("there is no piece `{piece}`"),
        }
    }

    /// Whether something of postback's own could not be measured.
    fn failed(&self, report: &Report) -> bool {
        let ours = System::Postback(self.binary.clone());
        report.skipped_of(ours.name())
    }
}
