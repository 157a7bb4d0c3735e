//! `postback doctor`: what this machine gives a server, and the command that mends what is missing.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use queue::contain::{Sandbox, Tier};
use queue::limits;
use serde_json::{Value, json};

use super::{Context, ExitStatus, serve};
use crate::print::Colour;
use crate::serve::{Launch, search_path};

/// A server with less room would soon stop accepting.
const ROOM_BYTES: u64 = 1 << 30;
/// Syncs that are timed, of which the middle one counts.
const SYNCS: usize = 5;
/// A slower disk makes every acknowledgement slow.
const SLOW_SYNC: Duration = Duration::from_millis(50);
/// Prints version, real path and prefix.
const PROBE: &str =
    "import os,sys;print('%d.%d.%d'%sys.version_info[:3]);print(os.path.realpath(sys.executable))";
/// Oldest Python that the runner works with.
const OLDEST: (u32, u32) = (3, 8);

/// Arguments of `postback doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The exit status is 1 when a server would not work, or not as it was asked to.")]
pub(crate) struct Args {
    #[command(flatten)]
    isolation: serve::Isolation,
    /// Show the table of limits, too
    #[arg(long)]
    limits: bool,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Good,
    /// It works, and could be better.
    Fair,
    Bad,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Fair => "could be better",
            Self::Bad => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    about: &'static str,
    grade: Grade,
    what: String,
    /// What to do about it.
    remedy: Option<String>,
}

impl Finding {
    fn good(about: &'static str, what: impl Into<String>) -> Self {
        Self { about, grade: Grade::Good, what: what.into(), remedy: None }
    }

    fn with(about: &'static str, grade: Grade, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about, grade, what: what.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything that a server needs.
///
/// # Errors
/// When there is no place to look at.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let (data_dir, sandbox) = (context.data_dir()?, Sandbox::from(args.isolation.sandbox));
    let findings = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<Finding>> {
        let mut findings = containment(sandbox)?;
        findings.extend([python(), uv()]);
        findings.extend(data(&data_dir));
        Ok(findings)
    })
    .await??;
    let printer = context.printer;
    if printer.wants_json() {
        printer.json(&as_json(&findings, args.limits));
    } else {
        for Finding { about, grade, what, remedy } in &findings {
            let colour = match grade {
                Grade::Good => Colour::Green,
                Grade::Fair => Colour::Yellow,
                Grade::Bad => Colour::Red,
            };
            printer.data(&format!("{about:<12} {}: {what}", printer.paint(colour, grade.word())));
            if let Some(remedy) = remedy {
                printer.data(&format!("{:<12} {} {remedy}", "", printer.paint(Colour::Cyan, "→")));
            }
        }
        if args.limits {
            printer.data("");
            let rows: Vec<Vec<String>> = limits::TABLE
                .iter()
                .map(|limit| vec![limit.what.to_owned(), limit.value.to_owned(), limit.beyond.to_owned()])
                .collect();
            printer.table(&["LIMIT", "VALUE", "BEYOND IT"], &rows);
        } else {
            printer.note("`postback doctor --limits` shows every bound");
        }
    }
    let bad = findings.iter().any(|finding| finding.grade == Grade::Bad);
    Ok(if bad { ExitStatus::Failure } else { ExitStatus::Success })
}

fn as_json(findings: &[Finding], with_limits: bool) -> Value {
    let findings: Vec<_> = findings
        .iter()
        .map(|Finding { about, grade, what, remedy }| {
            json!({"about": about, "grade": grade.word(), "what": what, "remedy": remedy})
        })
        .collect();
    let mut all = json!({"findings": findings});
    if with_limits {
        let limits = limits::TABLE.iter();
        all["limits"] = limits
            .map(|limit| json!({"what": limit.what, "value": limit.value, "beyond": limit.beyond}))
            .collect();
    }
    all
}

fn containment(sandbox: Sandbox) -> anyhow::Result<Vec<Finding>> {
    let scratch =
        tempfile::Builder::new().prefix("postback-doctor-").tempdir().context("no temporary folder")?;
    // A server that asks for too much does not start; here that is a finding.
    let auto = if sandbox == Sandbox::Strict { Sandbox::Auto } else { sandbox };
    let found = Launch::prepare(auto, scratch.path(), None)?.containment;
    let enough = sandbox != Sandbox::Strict || found.tier >= Tier::S2;
    let grade = match found.tier {
        _ if !enough => Grade::Bad,
        Tier::S0 => Grade::Fair,
        _ => Grade::Good,
    };
    let what = format!("tier {}: {}", found.tier, found.tier.means());
    let mut findings = vec![Finding { about: "containment", grade, what, remedy: None }];
    for lack in found.lacks {
        let what =
            if lack.tier > found.tier { format!("not {}: {}", lack.tier, lack.what) } else { lack.what };
        let grade = if enough { Grade::Fair } else { Grade::Bad };
        findings.push(Finding::with("", grade, what, lack.remedy));
    }
    if let Some(groups) = &found.groups {
        groups.remove();
    }
    if found.identities {
        findings.push(Finding::good("", "every app runs as a user of its own"));
    }
    Ok(findings)
}

fn python() -> Finding {
    let install = "install it: `apt install python3`, version 3.8 or later";
    let mut old = None;
    for program in search_path().iter().map(|folder| folder.join("python3")).filter(|path| path.is_file()) {
        let Some(said) = answer(Command::new(&program).args(["-I", "-S", "-c", PROBE])) else { continue };
        let mut lines = said.lines();
        let (Some(version), Some(path)) = (lines.next(), lines.next()) else { continue };
        let mut parts = version.split('.').filter_map(|part| part.parse().ok());
        let what = format!("python {version} at {path}");
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST {
            return Finding::good("python", what);
        }
        old.get_or_insert(what);
    }
    let what = old.unwrap_or_else(|| "there is no python3 on the PATH".to_owned());
    Finding::with("python", Grade::Bad, what, install)
}

fn uv() -> Finding {
    let there = search_path().iter().map(|folder| folder.join("uv")).find(|path| path.is_file());
    let said = there.as_ref().and_then(|path| answer(Command::new(path).arg("--version")));
    match (there, said) {
        (Some(path), Some(version)) => {
            Finding::good("uv", format!("{} at {}", version.trim(), path.display()))
        }
        _ => Finding::good("uv", "not on the PATH; the first build installs one with the machine's pip"),
    }
}

fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn data(data_dir: &Path) -> Vec<Finding> {
    let there = data_dir.ancestors().find(|folder| folder.exists()).map(PathBuf::from).unwrap_or_default();
    let mut findings = Vec::new();
    match rustix::fs::statvfs(&there) {
        Ok(room) => {
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            let what = format!("{} has {:.1} GiB free", data_dir.display(), free as f64 / f64::from(1 << 30));
            findings.push(if free >= ROOM_BYTES {
                Finding::good("data", what)
            } else {
                Finding::with("data", Grade::Fair, what, "make room, or name another place with `--data-dir`")
            });
        }
        Err(error) => findings.push(Finding::with(
            "data",
            Grade::Bad,
            format!("{} cannot be looked at: {error}", data_dir.display()),
            "name another place with `--data-dir`",
        )),
    }
    findings.push(match sync_time(&there) {
        Ok(took) if took <= SLOW_SYNC => {
            Finding::good("disk", format!("a sync takes {:.1} ms", took.as_secs_f64() * 1e3))
        }
        Ok(took) => Finding::with(
            "disk",
            Grade::Fair,
            format!("a sync takes {:.1} ms, and so does every acknowledgement", took.as_secs_f64() * 1e3),
            "put the data directory on a faster disk",
        ),
        Err(error) => Finding::with(
            "disk",
            Grade::Bad,
            format!("{} cannot be written to: {error}", there.display()),
            "run as its owner, or name another place with `--data-dir`",
        ),
    });
    findings.push(match store::check(data_dir) {
        None => Finding::good("store", "there is none yet; the first start makes it"),
        Some(health) if health.complaints.is_empty() => {
            Finding::good("store", format!("whole, {} KiB", health.bytes.div_ceil(1024)))
        }
        Some(health) => Finding::with(
            "store",
            Grade::Bad,
            format!("damaged: {}", health.complaints.join("; ")),
            "stop the server, keep a copy of the data directory, and run `sqlite3 postback.db .recover` on another copy",
        ),
    });
    findings
}

/// How long the disk takes to keep a page, usually.
fn sync_time(folder: &Path) -> std::io::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; 4_096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times[SYNCS / 2])
}
