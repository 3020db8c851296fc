//! The baseline: what ordinary programs need, and no more. Pure: existence is asked of the caller.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::confinement::{Access, Confinement, HomeMode};

/// The system's programs, libraries and configuration.
const SYSTEM: [&str; 16] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/snap",
    "/var/lib/ca-certificates",
    "/var/cache/fontconfig",
    "/proc",
    "/sys",
];
/// Ours, inside: made by the view.
const PRIVATE_READ: [&str; 1] = ["/run"];
/// Ours, inside, to write.
const PRIVATE_WRITE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// Devices of which every program may use one: pty(7) in /dev/ptmx and /dev/pts (an editor server allocates
/// terminals there), random(4), null(4), tty(4).
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// What may be done below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Read and execute.
    Read,
    /// Everything that is done to files and directories.
    Write,
    /// Read, write and control a device.
    Device,
    /// Read the directory itself: `ls /dev`.
    List,
}

/// One permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The path and what is below it.
    pub path: PathBuf,
    /// What may be done.
    pub class: Class,
}

/// What the user named is not there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BaselineError {
    /// Of `workdir`, `read_only` or `read_write`.
    #[error("{} does not exist, but it was named for the sandbox", .0.display())]
    Missing(PathBuf),
}

/// Directories of tools that are on PATH, wherever they are, and what these tools load.
///
/// Tools find their own files next to them: `bin` brings `lib`, `lib64` and `libexec` (Node, Python), `shims` brings
/// the version manager that they start (pyenv, rbenv, asdf), and rustup's `cargo` brings the toolchains. A directory
/// that holds settings or credentials, such as ~/.cargo or ~/.local/share, is never among them.
pub fn tool_directories(confinement: &Confinement) -> Vec<PathBuf> {
    let home = &confinement.home.path;
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in &confinement.path_dirs {
        let usable = directory.is_absolute() && directory.parent().is_some() && !home.starts_with(directory);
        let Some(parent) = directory.parent().filter(|_| usable) else { continue };
        directories.push(directory.clone());
        match directory.file_name().and_then(|name| name.to_str()) {
            Some("bin" | "sbin") if parent != home => {
                directories.extend(["lib", "lib64", "libexec"].map(|sibling| parent.join(sibling)));
                if parent.ends_with(".cargo") {
                    directories.extend(parent.parent().map(|above| above.join(".rustup")));
                    directories.retain(|found| !(found.starts_with(parent) && *found != parent.join("bin")));
                }
            }
            Some("shims") if !home.starts_with(parent) => directories.push(parent.to_owned()),
            Some(_) | None => {}
        }
    }
    directories
}

/// All permissions; of the baseline only what exists.
pub fn grants(confinement: &Confinement, exists: &dyn Fn(&Path) -> bool) -> Vec<Grant> {
    let mut grants = Vec::new();
    let mut grant = |path: PathBuf, class| {
        if exists(&path) {
            grants.push(Grant { path, class });
        }
    };
    for path in SYSTEM.into_iter().chain(PRIVATE_READ) {
        grant(path.into(), Class::Read);
    }
    for path in PRIVATE_WRITE {
        grant(path.into(), Class::Write);
    }
    for path in DEVICES {
        grant(path.into(), Class::Device);
    }
    grant("/dev".into(), Class::List);
    for path in tool_directories(confinement) {
        grant(path, Class::Read);
    }
    match confinement.home.mode {
        HomeMode::Private => {
            // What was brought back below it is mounted read-only where it must be: see `view`.
            grant(confinement.home.path.clone(), Class::Write);
        }
        HomeMode::ReadOnly => grant(confinement.home.path.clone(), Class::Read),
        HomeMode::ReadWrite => grant(confinement.home.path.clone(), Class::Write),
    }
    for path in &confinement.read_only {
        grant(path.clone(), Class::Read);
    }
    for path in &confinement.read_write {
        grant(path.clone(), Class::Write);
    }
    let class = match confinement.workdir_access {
        Access::ReadOnly => Class::Read,
        Access::ReadWrite => Class::Write,
    };
    grant(confinement.workdir.clone(), class);
    grants
}
