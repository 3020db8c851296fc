//! Applies the steps of a view with mount(2), open_tree(2) and move_mount(2).

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, StatVfsMountFlags, statvfs};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree,
};
use thiserror::Error;

use crate::confinement::Report;
use crate::view::Step;

/// Ours, in the private /run.
const OWN_DIRECTORY: &str = "/run/credgate";

/// Why the filesystem is not as planned.
#[derive(Debug, Error)]
pub enum MountError {
    /// /proc may not be mounted: parts of the one here are hidden, as in most containers.
    #[error(
        "a private /proc cannot be mounted ({0})\n\
         in a container, parts of /proc are masked; run it with an unmasked /proc (docker: --security-opt systempaths=unconfined)"
    )]
    Proc(#[source] io::Error),
    /// Another step failed.
    #[error("the sandbox's {} cannot be set up ({what}): {error}", path.display())]
    Step {
        /// Where.
        path: PathBuf,
        /// Doing what.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

/// Applies steps in order.
pub(crate) fn apply(steps: &[Step], report: &mut Report) -> Result<(), MountError> {
    let mut kept: HashMap<&Path, OwnedFd> = HashMap::new();
    for step in steps {
        match step {
            Step::MakePrivate => {
                let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                done(Path::new("/"), "private mounts", mount_change("/", flags).map_err(Into::into))?;
            }
            Step::Keep(path) => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_RECURSIVE;
                match open_tree(CWD, path, flags) {
                    Ok(tree) => {
                        kept.insert(path, tree);
                    }
                    // Of PATH: what the user named has been looked for already.
                    Err(rustix::io::Errno::NOENT) => {}
                    Err(error) => return done(path, "keeping it", Err(error.into())),
                }
            }
            Step::Cover { path, mode } => done(path, "an empty directory", cover(path, *mode))?,
            Step::Restore { path, read_only } => {
                if let Some(tree) = kept.remove(path.as_path()) {
                    done(path, "bringing it back", restore(path, &tree))?;
                    if *read_only {
                        done(path, "read-only", make_read_only(path))?;
                    }
                }
            }
            Step::Protect(path) if path.exists() => {
                done(path, "read-only", protect(path))?;
            }
            Step::Protect(_) => {}
            Step::Proc => {
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                mount("proc", "/proc", "proc", flags, None)
                    .map_err(|error| MountError::Proc(error.into()))?;
            }
            Step::Terminals => {
                if let Err(error) = terminals() {
                    report.remarks.push(format!("terminals are shared with the outside: {error}"));
                }
            }
            Step::Place { path, contents } => done(path, "a file", place(path, contents))?,
            Step::Replace { path, contents } => done(path, "our text", replace(path, contents))?,
            Step::Mask(path) => done(path, "hiding it", mask(path))?,
        }
    }
    Ok(())
}

fn done(path: &Path, what: &'static str, outcome: io::Result<()>) -> Result<(), MountError> {
    outcome.map_err(|error| MountError::Step { path: path.to_owned(), what, error })
}

fn cover(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let options = std::ffi::CString::new(format!("mode={mode:o}"))?;
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))?;
    Ok(())
}

fn restore(path: &Path, tree: &OwnedFd) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    let metadata = rustix::fs::fstat(tree)?;
    if rustix::fs::FileType::from_raw_mode(metadata.st_mode).is_dir() {
        fs::create_dir_all(path)?;
    } else {
        OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    }
    move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

fn protect(path: &Path) -> io::Result<()> {
    mount_bind_recursive(path, path)?;
    make_read_only(path)
}

/// A remount must repeat the flags that the mount came with: in a user namespace they are locked
/// (mount_namespaces(7)).
fn make_read_only(path: &Path) -> io::Result<()> {
    let there = statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (is, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if there.contains(is) {
            flags |= flag;
        }
    }
    mount_remount(path, flags, "")?;
    Ok(())
}

/// An instance of devpts of our own: the user's other terminals are not in it.
fn terminals() -> io::Result<()> {
    let options = c"newinstance,ptmxmode=0666,mode=620";
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "/dev/pts", "devpts", flags, Some(options))?;
    if !fs::symlink_metadata("/dev/ptmx")?.is_symlink() {
        mount_bind("/dev/pts/ptmx", "/dev/ptmx")?;
    }
    Ok(())
}

fn place(path: &Path, contents: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(contents.as_bytes())
}

fn replace(path: &Path, contents: &str) -> io::Result<()> {
    let name = path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy());
    let ours = Path::new(OWN_DIRECTORY).join(&*name);
    place(&ours, contents)?;
    mount_bind(&ours, path)?;
    Ok(())
}

fn mask(path: &Path) -> io::Result<()> {
    let empty = if path.is_dir() {
        let empty = Path::new(OWN_DIRECTORY).join("empty.d");
        fs::create_dir_all(&empty)?;
        empty
    } else {
        let empty = Path::new(OWN_DIRECTORY).join("empty");
        if !empty.exists() {
            place(&empty, "")?;
        }
        empty
    };
    mount_bind(&empty, path)?;
    Ok(())
}
