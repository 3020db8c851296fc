//! The filesystem as the program sees it: from what is asked for to mounts, in order. Pure but for [`Facts::read`].

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::baseline;
use crate::confinement::{Access, Confinement, HomeMode};

/// Directories that are empty and private inside. /run holds the sockets of services that act for their caller:
/// D-Bus, systemd, docker, nscd, systemd-resolved; a network namespace does not stop pathname sockets (unix(7)).
const PRIVATE: [(&str, u32); 5] =
    [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/dev/shm", 0o1777), ("/run", 0o755), ("/var/run", 0o755)];
/// Entries of /etc that are looked at for masking.
const MOST_ENTRIES: usize = 20_000;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Changes from here on stay in this namespace.
    MakePrivate,
    /// Holds on to a tree that a later step covers.
    Keep(PathBuf),
    /// Covers a directory with an empty one.
    Cover {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Brings a kept tree back to where it was.
    Restore {
        /// Where.
        path: PathBuf,
        /// Read-only as a mount: Landlock adds rights up along a path, so that inside a writable home or /tmp it
        /// could not take the right to write away again.
        read_only: bool,
    },
    /// Makes a tree read-only where it is.
    Protect(PathBuf),
    /// A /proc of this PID namespace.
    Proc,
    /// Terminals of this sandbox alone.
    Terminals,
    /// Writes a file.
    Place {
        /// Where.
        path: PathBuf,
        /// What.
        contents: String,
    },
    /// Shows a text in place of a file.
    Replace {
        /// The file.
        path: PathBuf,
        /// What.
        contents: String,
    },
    /// Shows nothing in place of a file or a directory.
    Mask(PathBuf),
}

/// What is asked for contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ViewError {
    /// The working directory is the home, or above it.
    #[error(
        "the working directory {} holds your home directory, which is to stay private\n\
         go into a project's directory first, or set home = \"read-write\" in [sandbox.filesystem]",
        .0.display()
    )]
    WorkdirHoldsHome(PathBuf),
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of the private directories, those that exist and are no links.
    pub directories: Vec<PathBuf>,
    /// Where /etc/resolv.conf leads; none when it is missing.
    pub resolv_conf: Option<PathBuf>,
    /// Entries of /etc that not everyone may read, when the program runs as uid 0, which owns them.
    pub unreadable: Vec<PathBuf>,
}

impl Facts {
    /// Looks.
    pub fn read(is_root: bool) -> Self {
        let is_directory = |path: &&Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let directories = PRIVATE.iter().map(|(path, _)| Path::new(*path)).filter(is_directory);
        let resolv_conf = Path::new("/etc/resolv.conf");
        let link = fs::read_link(resolv_conf).map(|target| Path::new("/etc").join(target));
        let mut unreadable = Vec::new();
        if is_root {
            find_unreadable(Path::new("/etc"), &mut unreadable, &mut 0);
        }
        Self {
            directories: directories.map(Path::to_owned).collect(),
            resolv_conf: resolv_conf
                .canonicalize()
                .ok()
                .or_else(|| link.ok().map(|target| without_dots(&target))),
            unreadable,
        }
    }
}

fn find_unreadable(directory: &Path, into: &mut Vec<PathBuf>, looked_at: &mut usize) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        *looked_at += 1;
        if *looked_at > MOST_ENTRIES {
            return;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let mode = metadata.permissions().mode();
        if metadata.is_symlink() {
            continue;
        }
        if metadata.is_dir() && mode & 0o005 == 0o005 {
            find_unreadable(&entry.path(), into, looked_at);
        } else if mode & 0o004 == 0 && (metadata.is_dir() || metadata.is_file()) {
            into.push(entry.path());
        }
    }
}

/// A dangling link's target without `..`.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Plans the steps.
pub fn plan(confinement: &Confinement, facts: &Facts) -> Result<Vec<Step>, ViewError> {
    let home = &confinement.home;
    let private_home = home.mode == HomeMode::Private;
    if private_home && home.path.starts_with(&confinement.workdir) {
        return Err(ViewError::WorkdirHoldsHome(confinement.workdir.clone()));
    }
    let mut covers: Vec<(PathBuf, u32)> = PRIVATE
        .iter()
        .map(|(path, mode)| (PathBuf::from(path), *mode))
        .filter(|(path, _)| facts.directories.contains(path))
        .collect();
    if private_home {
        covers.push((home.path.clone(), 0o700));
    }
    // Outer ones first: a home below /tmp is covered in the private /tmp.
    covers.sort_by_key(|(path, _)| path.components().count());
    let kept = kept(confinement, &covers);
    let mut steps = vec![Step::MakePrivate];
    steps.extend(kept.iter().cloned().map(Step::Keep));
    steps.extend(covers.into_iter().map(|(path, mode)| Step::Cover { path, mode }));
    let protected: Vec<Step> = protected(confinement, &kept).collect();
    steps.extend(kept.into_iter().map(|path| {
        let read_only = !is_writable(confinement, &path);
        Step::Restore { path, read_only }
    }));
    steps.extend(protected);
    steps.extend([Step::Proc, Step::Terminals]);
    let place = |file: &crate::confinement::PlacedFile| Step::Place {
        path: file.path.clone(),
        contents: file.contents.clone(),
    };
    steps.extend(confinement.files.iter().map(place));
    steps.extend(resolv_conf(confinement, facts));
    steps.extend(facts.unreadable.iter().cloned().map(Step::Mask));
    Ok(steps)
}

/// What lies below something that is covered and must stay: shallow ones first, those inside another left out.
fn kept(confinement: &Confinement, covers: &[(PathBuf, u32)]) -> Vec<PathBuf> {
    let named =
        [&confinement.workdir].into_iter().chain(&confinement.read_only).chain(&confinement.read_write);
    let mut kept: Vec<PathBuf> = named.cloned().chain(baseline::tool_directories(confinement)).collect();
    kept.retain(|path| covers.iter().any(|(cover, _)| path.starts_with(cover) && path != cover));
    kept.sort_by_key(|path| (path.components().count(), path.clone()));
    let mut outermost: Vec<PathBuf> = Vec::new();
    for path in kept {
        let enclosing = outermost.iter().rev().find(|outer| path.starts_with(outer));
        let same = |outer: &PathBuf| is_writable(confinement, outer) == is_writable(confinement, &path);
        if !enclosing.is_some_and(same) {
            outermost.push(path);
        }
    }
    outermost
}

/// Whether the program may write at a path: the most specific of what was named decides, and nothing else is.
fn is_writable(confinement: &Confinement, path: &Path) -> bool {
    let depth = |roots: &mut dyn Iterator<Item = PathBuf>| {
        roots.filter(|root| path.starts_with(root)).map(|root| root.components().count()).max()
    };
    let read_only = confinement.read_only.iter().cloned().chain(baseline::tool_directories(confinement));
    depth(&mut writable(confinement).cloned()) > depth(&mut read_only.into_iter())
        || writable(confinement).any(|root| root == path)
}

fn writable(confinement: &Confinement) -> impl Iterator<Item = &PathBuf> {
    let workdir = Some(&confinement.workdir).filter(|_| confinement.workdir_access == Access::ReadWrite);
    workdir.into_iter().chain(&confinement.read_write)
}

/// Read-only paths inside something that is writable become mounts of their own, for the same reason as restored
/// ones.
fn protected(confinement: &Confinement, kept: &[PathBuf]) -> impl Iterator<Item = Step> {
    let named = confinement.read_only.iter().cloned().chain(baseline::tool_directories(confinement));
    let inside = named.filter(|path| {
        writable(confinement).any(|root| path.starts_with(root))
            && !is_writable(confinement, path)
            && !kept.contains(path)
    });
    inside.map(Step::Protect)
}

/// A file is covered by ours; a link into the private /run, or elsewhere that is covered, gets its target made there.
fn resolv_conf(confinement: &Confinement, facts: &Facts) -> Option<Step> {
    let path = facts.resolv_conf.clone()?;
    let contents = confinement.resolv_conf.clone();
    if facts.directories.iter().any(|directory| path.starts_with(directory)) {
        return Some(Step::Place { path, contents });
    }
    Some(Step::Replace { path, contents })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confinement::{Enforcement, Home, PlacedFile};

    fn confinement(workdir: &str, home: &str) -> Confinement {
        Confinement {
            workdir: workdir.into(),
            workdir_access: Access::ReadWrite,
            home: Home { path: home.into(), mode: HomeMode::Private },
            path_dirs: vec![],
            read_only: vec![],
            read_write: vec![],
            enforcement: Enforcement::Required,
            files: vec![PlacedFile { path: "/run/credgate/ca.pem".into(), contents: String::new() }],
            resolv_conf: "nameserver 127.0.0.1\n".into(),
        }
    }

    fn facts() -> Facts {
        let directories = ["/tmp", "/run", "/dev/shm"].map(PathBuf::from).into();
        Facts { directories, resolv_conf: Some("/etc/resolv.conf".into()), ..Facts::default() }
    }

    /// One word and a path for each step, without those that are always the same.
    fn words(confinement: &Confinement, facts: &Facts) -> Vec<String> {
        let steps = plan(confinement, facts).unwrap();
        let words = steps.iter().filter_map(|step| match step {
            Step::Keep(path) => Some(format!("keep {}", path.display())),
            Step::Cover { path, .. } => Some(format!("cover {}", path.display())),
            Step::Restore { path, read_only: true } => Some(format!("restore {} read-only", path.display())),
            Step::Restore { path, read_only: false } => Some(format!("restore {}", path.display())),
            Step::Protect(path) => Some(format!("protect {}", path.display())),
            Step::Replace { path, .. } => Some(format!("replace {}", path.display())),
            Step::Mask(path) => Some(format!("mask {}", path.display())),
            Step::Place { path, .. } if !path.ends_with("ca.pem") => {
                Some(format!("place {}", path.display()))
            }
            Step::Place { .. } | Step::MakePrivate | Step::Proc | Step::Terminals => None,
        });
        words.collect()
    }

    #[test]
    fn a_project_below_a_private_home_is_kept() {
        let mut confinement = confinement("/home/u/src/app", "/home/u");
        confinement.path_dirs = vec!["/usr/bin".into(), "/home/u/.local/bin".into()];
        confinement.read_only = vec!["/home/u/src/app/vendor".into(), "/opt/tools".into()];
        assert_eq!(
            words(&confinement, &facts()),
            [
                "keep /home/u/.local/bin",
                "keep /home/u/.local/lib",
                "keep /home/u/.local/lib64",
                "keep /home/u/.local/libexec",
                "keep /home/u/src/app",
                "keep /home/u/src/app/vendor",
                "cover /tmp",
                "cover /run",
                "cover /dev/shm",
                "cover /home/u",
                "restore /home/u/.local/bin read-only",
                "restore /home/u/.local/lib read-only",
                "restore /home/u/.local/lib64 read-only",
                "restore /home/u/.local/libexec read-only",
                "restore /home/u/src/app",
                "restore /home/u/src/app/vendor read-only",
                "replace /etc/resolv.conf",
            ]
        );
    }

    #[test]
    fn what_is_read_only_inside_what_is_writable_stays_so_and_the_other_way_round() {
        let mut confinement = confinement("/home/u/src/app", "/home/u");
        confinement.read_only = vec!["/home/u/src".into(), "/data/keep".into()];
        confinement.read_write = vec!["/data".into()];
        let words = words(&confinement, &facts());
        let restored: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .filter(|word| !word.starts_with("cover") && !word.starts_with("keep"))
            .collect();
        assert_eq!(
            restored,
            [
                "restore /home/u/src read-only",
                "restore /home/u/src/app",
                "protect /data/keep",
                "replace /etc/resolv.conf",
            ]
        );
    }

    #[test]
    fn a_working_directory_below_tmp_is_kept() {
        let words = words(&confinement("/tmp/build/x", "/home/u"), &facts());
        assert!(
            words.contains(&"keep /tmp/build/x".to_owned())
                && words.contains(&"restore /tmp/build/x".to_owned())
        );
    }

    #[test]
    fn a_working_directory_that_holds_the_home_is_refused() {
        for workdir in ["/home/u", "/home", "/"] {
            let error = plan(&confinement(workdir, "/home/u"), &facts()).unwrap_err();
            assert_eq!(error, ViewError::WorkdirHoldsHome(workdir.into()));
        }
        let mut open = confinement("/home/u", "/home/u");
        open.home.mode = HomeMode::ReadWrite;
        assert!(plan(&open, &facts()).is_ok());
    }

    #[test]
    fn a_resolv_conf_that_leads_into_run_is_made_there() {
        let facts = Facts {
            resolv_conf: Some("/run/systemd/resolve/stub-resolv.conf".into()),
            unreadable: vec!["/etc/shadow".into()],
            ..facts()
        };
        let words = words(&confinement("/srv/x", "/home/u"), &facts);
        assert_eq!(
            words[words.len() - 2..],
            ["place /run/systemd/resolve/stub-resolv.conf", "mask /etc/shadow"]
        );
    }
}
