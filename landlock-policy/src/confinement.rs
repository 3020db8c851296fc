//! What is asked for, and all of it applied.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::baseline::{self, BaselineError};
use crate::mounts::{self, MountError};
use crate::privileges::{self, PrivilegeError};
use crate::ruleset::{self, RulesetError};
use crate::view::{self, Facts, ViewError};

/// Where the private home is when the user has none of their own.
const HOME_OF_THE_HOMELESS: &str = "/tmp/home";

/// What a program may touch. Travels as JSON to the process that confines itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Confinement {
    /// The working directory, absolute.
    pub workdir: PathBuf,
    /// Whether the program may write there.
    pub workdir_access: Access,
    /// The user's home.
    pub home: Home,
    /// The entries of PATH.
    pub path_dirs: Vec<PathBuf>,
    /// Further paths to read and execute.
    pub read_only: Vec<PathBuf>,
    /// Further paths to write.
    pub read_write: Vec<PathBuf>,
    /// What the kernel must provide.
    pub enforcement: Enforcement,
    /// Files that the program is given.
    pub files: Vec<PlacedFile>,
    /// What the program sees as /etc/resolv.conf.
    pub resolv_conf: String,
}

/// Read, or also write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read and execute.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// The home directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Where it is; see [`effective_home`].
    pub path: PathBuf,
    /// What the program sees there.
    pub mode: HomeMode,
}

/// What the program sees in place of the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HomeMode {
    /// An empty directory that ends with the run.
    Private,
    /// The user's own, to read.
    ReadOnly,
    /// The user's own.
    ReadWrite,
}

/// What happens on a kernel without Landlock, or with an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcement {
    /// Nothing is run.
    Required,
    /// What there is is used.
    BestEffort,
}

/// A file that exists only inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Where, absolute: below /run or below a private home.
    pub path: PathBuf,
    /// What.
    pub contents: String,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether Landlock restricts the filesystem, wholly or in part.
    pub landlock: bool,
    /// What could not be done, in words; nothing of it weakens what was required.
    pub remarks: Vec<String>,
}

/// Why the program is not run.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// What is asked for contradicts itself.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The filesystem could not be arranged.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A path that the user named is missing.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// Privileges could not be dropped.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Landlock is not what it must be.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
}

impl Confinement {
    /// Confines this process and everything it will start. Called once, by process 1 of new user, mount and PID
    /// namespaces, before it has a second thread.
    pub fn apply(&self) -> Result<Report, ConfineError> {
        let mut report = Report::default();
        self.check_named()?;
        let steps = view::plan(self, &Facts::read(geteuid().is_root()))?;
        mounts::apply(&steps, &mut report)?;
        privileges::drop_all()?;
        let grants = baseline::grants(self, &|path: &Path| path.exists());
        report.landlock = ruleset::restrict(&grants, self.enforcement)?;
        Ok(report)
    }

    /// Paths that the user named must be there; those of the baseline need not.
    fn check_named(&self) -> Result<(), BaselineError> {
        let named = [&self.workdir].into_iter().chain(&self.read_only).chain(&self.read_write);
        match named.into_iter().find(|path| !path.exists()) {
            Some(missing) => Err(BaselineError::Missing(missing.clone())),
            None => Ok(()),
        }
    }
}

/// Where the program's home is: the user's own place when that is a directory that can be covered, otherwise one
/// below the private /tmp. For the caller, who sets HOME.
pub fn effective_home(own: &Path, mode: HomeMode) -> PathBuf {
    match mode {
        HomeMode::ReadOnly | HomeMode::ReadWrite => own.to_owned(),
        HomeMode::Private if own.is_absolute() && own != Path::new("/") && own.is_dir() => own.to_owned(),
        HomeMode::Private => PathBuf::from(HOME_OF_THE_HOMELESS),
    }
}
