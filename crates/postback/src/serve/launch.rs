//! How processes of users are started: supervised, and contained as far as was asked for and can be.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use queue::contain::{Sandbox, Tier};
use worker::{Containment, Lack, Lifeline, Machine, examine};

use crate::print::WithHint;

/// What starting a process takes.
pub(crate) struct Launch {
    pub(crate) lifeline: Lifeline,
    /// Put before every command.
    pub(crate) supervisor: Vec<OsString>,
    pub(crate) containment: Containment,
}

impl Launch {
    /// Opens the lifeline, and finds out by trying what the machine offers.
    ///
    /// # Errors
    /// When less is to be had than was asked for.
    pub(crate) fn prepare(sandbox: Sandbox, scratch: &Path, open_files: Option<u64>) -> anyhow::Result<Self> {
        let lifeline = Lifeline::open().context("failed to open the lifeline of replicas")?;
        let lifeline = lifeline.with_open_files(open_files);
        let program = std::env::current_exe().context("failed to find this program's own file")?;
        let supervisor = lifeline.prefix(&program);
        let machine = Machine {
            supervisor: supervisor.clone(),
            search_path: search_path(),
            scratch: scratch.to_owned(),
        };
        let containment = examine(sandbox, &machine);
        if sandbox == Sandbox::Strict && containment.tier < Tier::S2 {
            let lack = containment.lacks.first();
            let (what, remedy) = lack.map_or(("", ""), |lack| (lack.what.as_str(), lack.remedy.as_str()));
            return Err(WithHint::new(
                format!(
                    "`--sandbox=strict` needs {}, and this machine has {}: {what}",
                    Tier::S2,
                    containment.tier
                ),
                format!("{remedy}; or start with `--sandbox=auto`. `postback doctor` shows more"),
            )
            .into());
        }
        Ok(Self { lifeline, supervisor, containment })
    }

    /// One line for whoever starts the server.
    pub(crate) fn summary(&self) -> String {
        summary(&self.containment)
    }
}

/// The tier, what it means, and why it is not a higher one.
pub(crate) fn summary(containment: &Containment) -> String {
    let Containment { tier, lacks, .. } = containment;
    let why = |lack: &Lack| {
        // What is missing of the tier that it is has no higher one to name.
        if lack.tier > *tier {
            format!("; not {}: {}", lack.tier, lack.what)
        } else {
            format!("; {}", lack.what)
        }
    };
    let why = lacks.first().map(why).unwrap_or_default();
    format!("apps are contained by tier {tier} ({}){why}", tier.means())
}

/// Where programs are looked for.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}
