//! Entering new namespaces, and what to do on machines that do not let one.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{getgid, getuid};
use thiserror::Error;

/// Why the namespaces could not be entered.
#[derive(Debug, Error)]
pub enum EnterError {
    /// unshare(2) failed.
    #[error("this machine does not let {who} make a user namespace ({error})\n{remedy}")]
    Unshare {
        /// Who asked.
        who: String,
        /// The system's answer.
        error: io::Error,
        /// What to do.
        remedy: String,
    },
    /// The id maps could not be written.
    #[error("{path} cannot be written: {error}")]
    Map {
        /// The file.
        path: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

/// Settings of the kernel that decide whether a user namespace can be made; none where the kernel has no such
/// setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `user.max_user_namespaces`
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone` (Debian, Arch)
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu)
    pub apparmor_restrict: Option<u64>,
}

impl Limits {
    /// Reads them.
    pub fn read() -> Self {
        let setting = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        Self {
            max_user_namespaces: setting("/proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: setting("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restrict: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    /// What an administrator can do about a refused user namespace.
    pub fn remedy(self) -> String {
        if self.max_user_namespaces == Some(0) {
            "run as root: sysctl -w user.max_user_namespaces=10000".into()
        } else if self.unprivileged_userns_clone == Some(0) {
            "run as root: sysctl -w kernel.unprivileged_userns_clone=1".into()
        } else if self.apparmor_restrict == Some(1) {
            "AppArmor restricts them here (Ubuntu); give credgate a profile with `userns,`, or run as root: \
             sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                .into()
        } else {
            "inside a container its seccomp or AppArmor profile may forbid it: permit unshare(2) and mount(2) there"
                .into()
        }
    }
}

/// Enters new user, network, mount, PID and IPC namespaces; ids are mapped to themselves. The calling process must
/// have one thread (unshare(2), EINVAL). The PID namespace is that of its children.
pub fn enter() -> Result<(), EnterError> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC;
    unshare(namespaces).map_err(|errno| EnterError::Unshare {
        who: if uid == 0 { "root".into() } else { format!("uid {uid}") },
        error: errno.into(),
        remedy: Limits::read().remedy(),
    })?;
    // Without it an unprivileged process may not map its group (user_namespaces(7)).
    map("/proc/self/setgroups", "deny")?;
    map("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    map("/proc/self/gid_map", &format!("{gid} {gid} 1"))
}

fn map(path: &'static str, text: &str) -> Result<(), EnterError> {
    fs::write(path, text).map_err(|error| EnterError::Map { path, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_the_setting_that_is_in_the_way() {
        let free = Limits { max_user_namespaces: Some(90_000), ..Limits::default() };
        for (limits, expected) in [
            (Limits { max_user_namespaces: Some(0), ..free }, "user.max_user_namespaces"),
            (Limits { unprivileged_userns_clone: Some(0), ..free }, "kernel.unprivileged_userns_clone=1"),
            (Limits { apparmor_restrict: Some(1), ..free }, "apparmor_restrict_unprivileged_userns=0"),
            (free, "inside a container"),
        ] {
            assert!(limits.remedy().contains(expected), "{limits:?}: {}", limits.remedy());
        }
    }
}
