//! Landlock: the grants as a ruleset, on the highest ABI that the running kernel has.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use thiserror::Error;

use crate::baseline::{Class, Grant};
use crate::confinement::Enforcement;

/// Without truncate(2) in hand (ABI 3, Linux 6.2) a program could empty files that it may not write: not a baseline
/// that one can require.
const FLOOR: ABI = ABI::V3;
/// The newest whose meaning we know. What a kernel lacks of it is left out.
const NEWEST: ABI = ABI::V7;

/// Why the program is not restricted as it must be.
#[derive(Debug, Error)]
pub enum RulesetError {
    /// The kernel has no Landlock, or an old one.
    #[error(
        "this kernel's Landlock does not suffice: {0}\n\
         Linux 6.2 with lsm=landlock is needed; or set landlock = \"best-effort\" in [sandbox.filesystem]"
    )]
    Insufficient(#[source] landlock::RulesetError),
    /// A path could not be opened.
    #[error("{} cannot be opened for a Landlock rule: {error}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What landlock says.
        error: String,
    },
    /// The ruleset is not in force.
    #[error("Landlock is not in force although it is required")]
    NotEnforced,
}

/// Restricts this thread and all it will start. Returns whether Landlock is in force.
pub fn restrict(grants: &[Grant], enforcement: Enforcement) -> Result<bool, RulesetError> {
    let required = match enforcement {
        Enforcement::Required => CompatLevel::HardRequirement,
        Enforcement::BestEffort => CompatLevel::BestEffort,
    };
    let mut ruleset = Ruleset::default()
        .set_compatibility(required)
        .handle_access(AccessFs::from_all(FLOOR))
        .map_err(RulesetError::Insufficient)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(RulesetError::Insufficient)?;
    for grant in grants {
        let failed = |error: &dyn std::fmt::Display| RulesetError::Path {
            path: grant.path.clone(),
            error: error.to_string(),
        };
        let descriptor = PathFd::new(&grant.path).map_err(|error| failed(&error))?;
        let rule = PathBeneath::new(descriptor, rights(grant));
        ruleset = ruleset.add_rule(rule).map_err(|error| failed(&error))?;
    }
    for terminal in own_terminals() {
        let rule = PathBeneath::new(terminal, device());
        ruleset = ruleset.add_rule(rule).map_err(RulesetError::Insufficient)?;
    }
    let status = ruleset.restrict_self().map_err(RulesetError::Insufficient)?;
    match (status.ruleset, enforcement) {
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _) => Ok(true),
        (RulesetStatus::NotEnforced, Enforcement::BestEffort) => Ok(false),
        (RulesetStatus::NotEnforced, Enforcement::Required) => Err(RulesetError::NotEnforced),
    }
}

fn rights(grant: &Grant) -> BitFlags<AccessFs> {
    let all = match grant.class {
        Class::Read => AccessFs::from_read(NEWEST),
        Class::Write => AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock),
        Class::Device if grant.path.is_dir() => device() | AccessFs::ReadDir,
        Class::Device => device(),
        Class::List => AccessFs::ReadDir.into(),
    };
    // A right that only directories have makes landlock_add_rule(2) fail on a file.
    if grant.path.is_dir() { all } else { all & AccessFs::from_file(NEWEST) }
}

fn device() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev
}

/// The terminal that the program has as its output: /dev/stdout and /dev/stderr open it anew, by a path that the
/// private /dev/pts covers.
fn own_terminals() -> Vec<PathFd> {
    let open = [(io::stdout().is_terminal(), 1), (io::stderr().is_terminal(), 2)];
    let open = open.into_iter().filter(|(terminal, _)| *terminal);
    open.filter_map(|(_, number)| PathFd::new(format!("/proc/self/fd/{number}")).ok()).collect()
}
