//! Whom the sandboxed program runs as.

use std::fs;
use std::path::PathBuf;

use rustix::process::{getgid, getuid};

use crate::config::settings::SandboxUser;
use crate::environment::Variables;
use crate::secret::process_environment;

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Name, where the machine knows one.
    pub name: Option<String>,
    /// Home directory.
    pub home: PathBuf,
    /// User and group to become first; none: it is who we are.
    pub switch_to: Option<(u32, u32)>,
    /// Root started us and nobody said whom to become.
    pub is_root_without_choice: bool,
}

impl Account {
    /// Sets USER and LOGNAME, when another user runs the program than the one whose environment it gets.
    pub fn add_names(&self, variables: &mut Variables) {
        if self.switch_to.is_none() {
            return;
        }
        for variable in ["USER", "LOGNAME"] {
            match &self.name {
                Some(name) => variables.insert(variable.into(), name.into()),
                None => variables.remove(std::ffi::OsStr::new(variable)),
            };
        }
    }
}

/// Started by a user: that user. Started by root: `sandbox.user`, else who called sudo, else root itself.
pub fn of_user(configured: Option<SandboxUser>) -> Result<Account, String> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let number = |name: &str| process_environment(name).and_then(|value| value.to_str()?.parse::<u32>().ok());
    let sudo = number("SUDO_UID").zip(number("SUDO_GID")).map(|(uid, gid)| SandboxUser { uid, gid });
    let chosen = if uid == 0 { configured.or(sudo) } else { configured };
    match chosen {
        Some(user) if (user.uid, user.gid) != (uid, gid) && uid != 0 => Err(format!(
            "sandbox.user is {}:{}, but only root can run programs as others",
            user.uid, user.gid
        )),
        Some(user) if user.uid != uid => {
            let (name, home) = look_up(user.uid);
            let home = home.unwrap_or_else(|| PathBuf::from("/"));
            Ok(Account { name, home, switch_to: Some((user.uid, user.gid)), is_root_without_choice: false })
        }
        Some(_) | None => {
            let (name, home) = look_up(uid);
            let own = process_environment("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
            let home = own.or(home).unwrap_or_else(|| PathBuf::from("/"));
            let is_root_without_choice = uid == 0 && chosen.is_none();
            Ok(Account { name, home, switch_to: None, is_root_without_choice })
        }
    }
}

/// Name and home from passwd(5).
fn look_up(uid: u32) -> (Option<String>, Option<PathBuf>) {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).and_then(|field| field.parse::<u32>().ok()) == Some(uid));
    match entry.as_deref() {
        Some([name, _, _, _, _, home, ..]) => (Some((*name).to_owned()), Some(PathBuf::from(home))),
        Some(_) | None => (None, None),
    }
}
