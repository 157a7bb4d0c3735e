//! Landlock: which files a contained process may touch, whatever its user could.
//!
//! It asks the kernel for the newest rules and takes what the kernel has; [`is_there`] tells whether that
//! is anything. Signals and abstract sockets are scoped to the process and what it starts, where the kernel
//! can.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use queue::contain::Policy;

use super::folders;

const NEWEST: ABI = ABI::V6;

/// Whether the kernel can keep a process from files.
pub(super) fn is_there() -> bool {
    let wanted = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1));
    wanted.is_ok_and(|rules| rules.create().is_ok())
}

/// From here on this process and what it starts touch nothing but what the policy says.
pub(super) fn restrict(policy: &Policy, program: &Path, is_root: bool) -> Result<(), String> {
    let rules = rules(policy, program, is_root).map_err(|error| error.to_string())?;
    let status = rules.restrict_self().map_err(|error| error.to_string())?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel has no Landlock".to_owned()),
        _ => Ok(()),
    }
}

fn rules(policy: &Policy, program: &Path, is_root: bool) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let paths = |texts: &[String]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
    let programs = paths(&policy.programs);
    let programs = programs.iter().map(PathBuf::as_path).chain([program]);
    let installed: Vec<_> = programs.flat_map(folders::of_program).collect();
    for (paths, access) in [
        (folders::system(), read),
        (installed, read),
        (paths(&policy.read), read),
        (folders::settings(is_root), look),
        (folders::resolver(), look),
        (vec![PathBuf::from("/proc"), PathBuf::from("/sys")], look),
        (folders::devices(), all),
        (paths(&policy.write), all),
        (policy.tmp.iter().chain(&policy.storage).map(PathBuf::from).collect(), all),
        // Where there are namespaces these are its own.
        (if policy.tier >= super::Tier::S2 { own_places() } else { Vec::new() }, all),
    ] {
        for path in paths {
            rules = allow(rules, &path, access)?;
        }
    }
    Ok(rules)
}

fn own_places() -> Vec<PathBuf> {
    ["/tmp", super::STORAGE, "/dev/pts", "/dev/ptmx"].map(PathBuf::from).into()
}

/// What is not there needs no rule.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(place) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    rules.add_rule(PathBeneath::new(place, access))
}
