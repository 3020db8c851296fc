//! `credgate run`: the proxy outside, the program inside, and the two stages that build the sandbox around it.
//!
//! ```text
//! credgate run          outside: policy, secrets, proxy
//!   └ __enter           new user, network, mount, PID and IPC namespaces; binds the listeners, hands them out
//!       └ __init        process 1 inside: view, privileges, Landlock; reaps and passes signals on
//!           └ CMD
//! ```
//! Each stage is `/proc/self/exe` started anew: one thread, no secret in its memory. Its standard input is the
//! channel to the stage above; the user's own standard input travels over it as a descriptor.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use credgate_landlock::{
    Access, Confinement, Enforcement, Home, HomeMode, PlacedFile, effective_home, privileges,
};
use credgate_netns::handoff::Channel;
use credgate_netns::supervise::{Signals, SpawnError, die_with_parent, init as supervise_init, relay};
use credgate_netns::{Listeners, Plan, enter as enter_namespaces, lo};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UdpSocket};

use super::proxy::{self, start_app};
use super::{Failure, RUN_FAILED, complain};
use crate::account::{Account, of_user};
use crate::app::App;
use crate::cli::Run;
use crate::config::settings::{HomeAccess, Requirement, SandboxSettings, WorkdirAccess};
use crate::environment::{self, CaFiles};
use crate::hardening;
use crate::secret::process_environment;
use crate::serve::{self, Server};
use crate::watch;

/// Port of the explicit listener inside, unless the configuration names another.
const EXPLICIT_PORT: u16 = 3128;
/// How long connections may go on after the program has ended: nobody reads them any more.
const AFTERMATH: Duration = Duration::from_millis(100);
/// The CA and the bundle inside.
const CA_FILE: &str = "/run/credgate/ca.pem";
const BUNDLE_FILE: &str = "/run/credgate/bundle.pem";
/// The stub resolver, as resolv.conf(5).
const RESOLV_CONF: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n";
/// Status of a program that is there but cannot be executed, and of one that is not there (POSIX shell, §2.8.2).
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What the first stage is told.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    parent: u32,
    plan: Plan,
}

/// What the second stage is told.
#[derive(Debug, Serialize, Deserialize)]
struct Go {
    confinement: Confinement,
    command: Vec<Vec<u8>>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{what}: {error}"))
}

/// The parent: outside.
pub(super) fn run(arguments: &Run) -> Result<u8, Failure> {
    let environment_of_user: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    hardening::protect_memory().map_err(|error| failed("this process cannot be protected", error))?;
    let app = start_app(arguments.request(), "warn")?;
    let generation = app.generation();
    let sandbox = &generation.settings.sandbox;
    let account = of_user(sandbox.user).map_err(Failure::new)?;
    if account.is_root_without_choice {
        complain(
            "warning: the program runs as uid 0, stripped of every capability; set sandbox.user to choose another",
        );
    }
    let workdir = std::env::current_dir().map_err(|error| failed("the working directory", error))?;
    let explicit = match generation.settings.proxy.listen.port() {
        0 => EXPLICIT_PORT,
        port => port,
    };
    let plan =
        Plan::new(explicit, generation.policy.ports(), true).map_err(|error| failed("the policy", error))?;
    let confinement = confinement(&app, sandbox, &account, workdir, &environment_of_user);
    let ca = CaFiles { ca: CA_FILE.into(), bundle: BUNDLE_FILE.into() };
    let pointing =
        environment::pointing_at(plan.explicit[0], &generation.policy, Some(&ca), &process_environment);
    let secrets = generation.secret_variables();
    let mut variables = environment::of_program(environment_of_user, &secrets, pointing);
    variables.insert("HOME".into(), confinement.home.path.clone().into());
    account.add_names(&mut variables);
    drop(generation);

    let mut signals = Signals::register().map_err(|error| failed("signals", error))?;
    let (mut channel, far) = Channel::pair().map_err(|error| failed("the sandbox", error))?;
    let mut stage = stage("__enter", far);
    stage.env_clear().envs(&variables);
    if let Some((uid, gid)) = account.switch_to {
        stage.uid(uid).gid(gid);
    }
    let mut child = stage.spawn().map_err(|error| failed("the sandbox cannot be started", error))?;
    let command = arguments.command.iter().map(|word| word.as_encoded_bytes().to_vec()).collect();
    let start = Start { parent: std::process::id(), plan };
    let runtime = match hand_over(&app, &mut channel, &start, Go { confinement, command }) {
        Ok(runtime) => runtime,
        Err(failure) => return abandoned(&mut child, failure),
    };
    let reload = || {
        let app = app.clone();
        runtime.0.spawn(async move { proxy::reload(&app).await });
    };
    let status =
        relay(&mut child, &mut signals, Some(&reload)).map_err(|error| failed("the sandbox", error))?;
    let (runtime, server) = runtime;
    runtime.block_on(server.drain(AFTERMATH));
    runtime.shutdown_timeout(AFTERMATH);
    app.audit.flush();
    Ok(status)
}

/// The stage has said why on stderr, and exits with the status for it.
fn abandoned(child: &mut Child, failure: Failure) -> Result<u8, Failure> {
    match child.wait() {
        Ok(status) if status.code() == Some(i32::from(RUN_FAILED)) => Ok(RUN_FAILED),
        Ok(_) | Err(_) => Err(failure),
    }
}

/// Starts the first stage, takes the listeners over, serves them, and lets the program go.
fn hand_over(
    app: &Arc<App>,
    channel: &mut Channel,
    start: &Start,
    go: Go,
) -> Result<(tokio::runtime::Runtime, Server), Failure> {
    let channel_failed = |error| failed("the sandbox", error);
    let stdin = io::stdin();
    channel.send(start, &[]).map_err(channel_failed)?;
    let listeners = channel.receive_listeners().map_err(channel_failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| failed("the runtime does not start", error))?;
    let server = {
        let _inside = runtime.enter();
        let listeners = adopt(listeners).map_err(|error| failed("the sandbox's listeners", error))?;
        tokio::spawn(watch::watch(app.clone()));
        Server::start(app, listeners)
    };
    // A closed standard input is passed on as /dev/null.
    let null;
    let descriptor = match rustix::fs::fstat(&stdin) {
        Ok(_) => stdin.as_fd(),
        Err(_) => {
            null = std::fs::File::open("/dev/null").map_err(|error| failed("/dev/null", error))?;
            null.as_fd()
        }
    };
    channel.send(&go, &[descriptor]).map_err(channel_failed)?;
    Ok((runtime, server))
}

/// Gives the listeners to the runtime.
fn adopt(listeners: Listeners) -> io::Result<serve::Listeners> {
    let streams = |all: Vec<std::net::TcpListener>| {
        all.into_iter().map(TcpListener::from_std).collect::<io::Result<Vec<_>>>()
    };
    Ok(serve::Listeners {
        explicit: streams(listeners.explicit)?,
        captured: streams(listeners.captured)?,
        dns_udp: listeners.dns_udp.into_iter().map(UdpSocket::from_std).collect::<io::Result<_>>()?,
        dns_tcp: streams(listeners.dns_tcp)?,
    })
}

fn confinement(
    app: &App,
    sandbox: &SandboxSettings,
    account: &Account,
    workdir: PathBuf,
    variables: &[(OsString, OsString)],
) -> Confinement {
    let mode = match sandbox.home {
        HomeAccess::Private => HomeMode::Private,
        HomeAccess::ReadOnly => HomeMode::ReadOnly,
        HomeAccess::ReadWrite => HomeMode::ReadWrite,
    };
    let home = Home { path: effective_home(&account.home, mode), mode };
    let authority = app.leaves.authority();
    let placed = |path: &str, contents: String| PlacedFile { path: path.into(), contents };
    let mut files =
        vec![placed(CA_FILE, authority.pem().to_owned()), placed(BUNDLE_FILE, authority.bundle())];
    if mode == HomeMode::Private
        && let Some(contents) = git_identity(account)
    {
        files.push(PlacedFile { path: home.path.join(".gitconfig"), contents });
    }
    let path = variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    Confinement {
        workdir,
        workdir_access: match sandbox.workdir {
            WorkdirAccess::ReadWrite => Access::ReadWrite,
            WorkdirAccess::ReadOnly => Access::ReadOnly,
        },
        home,
        path_dirs: path.map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
        read_only: sandbox.read_only.clone(),
        read_write: sandbox.read_write.clone(),
        enforcement: match sandbox.landlock {
            Requirement::Required => Enforcement::Required,
            Requirement::BestEffort => Enforcement::BestEffort,
        },
        files,
        resolv_conf: RESOLV_CONF.into(),
    }
}

/// The user's name and address for commits: the one thing of a private home that is carried over.
fn git_identity(account: &Account) -> Option<String> {
    let value = |key: &str| {
        let mut git = Command::new("git");
        git.args(["config", "--global", "--get", key]).env("HOME", &account.home).stderr(Stdio::null());
        if let Some((uid, gid)) = account.switch_to {
            git.uid(uid).gid(gid);
        }
        let output = git.stdin(Stdio::null()).output().ok()?;
        let value = String::from_utf8(output.stdout).ok()?;
        let value = value.trim().replace('\\', r"\\").replace('"', "\\\"");
        (output.status.success() && !value.is_empty() && !value.contains('\n')).then_some(value)
    };
    let lines = [("name", value("user.name")), ("email", value("user.email"))];
    let lines: Vec<String> =
        lines.into_iter().filter_map(|(key, value)| Some(format!("\t{key} = \"{}\"\n", value?))).collect();
    (!lines.is_empty()).then(|| format!("[user]\n{}", lines.concat()))
}

/// This binary anew, with a channel as its standard input.
fn stage(name: &str, channel: OwnedFd) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("credgate").arg(name).stdin(Stdio::from(channel));
    command
}

/// The first stage: enters the namespaces and waits for the second.
pub(super) fn enter() -> Result<u8, Failure> {
    enter_stage().or_else(|failure| {
        complain(&failure.cause);
        Ok(RUN_FAILED)
    })
}

fn enter_stage() -> Result<u8, Failure> {
    let sandbox = |error: &dyn std::fmt::Display| failed("the sandbox", error);
    let mut signals = Signals::register().map_err(|error| failed("signals", error))?;
    let mut above = Channel::of_stdin().map_err(|error| sandbox(&error))?;
    let (start, _) = above.receive::<Start>().map_err(|_| not_for_users())?;
    if !die_with_parent(start.parent).map_err(|error| sandbox(&error))? {
        return Err(Failure::new("the parent has ended"));
    }
    enter_namespaces().map_err(|error| Failure::new(error.to_string()))?;
    lo::bring_up().map_err(|error| sandbox(&error))?;
    let listeners = Listeners::bind(&start.plan).map_err(|error| Failure::new(error.to_string()))?;
    above.send_listeners(&listeners).map_err(|error| sandbox(&error))?;
    // From here on the listeners live outside alone: nothing inside can accept their connections.
    drop(listeners);
    let (go, descriptors) = above.receive::<Go>().map_err(|error| sandbox(&error))?;
    drop(above);
    let (mut below, far) = Channel::pair().map_err(|error| sandbox(&error))?;
    privileges::raise_ambient().map_err(|error| sandbox(&error))?;
    let mut child = stage("__init", far).spawn().map_err(|error| sandbox(&error))?;
    let stdin: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    below.send(&go, &stdin).map_err(|error| sandbox(&error))?;
    drop((below, descriptors));
    relay(&mut child, &mut signals, None).map_err(|error| sandbox(&error))
}

fn not_for_users() -> Failure {
    Failure::new("this is a stage of `credgate run`, not a command of its own")
}

/// The second stage: process 1 inside.
pub(super) fn init() -> Result<u8, Failure> {
    init_stage().or_else(|failure| {
        complain(&failure.cause);
        Ok(RUN_FAILED)
    })
}

fn init_stage() -> Result<u8, Failure> {
    let mut signals = Signals::register().map_err(|error| failed("signals", error))?;
    let mut above = Channel::of_stdin().map_err(|error| failed("the sandbox", error))?;
    let (go, descriptors) = above.receive::<Go>().map_err(|_| not_for_users())?;
    drop(above);
    // The parent is outside the PID namespace: to this process it is 0 (getppid(2), pid_namespaces(7)).
    if !die_with_parent(0).map_err(|error| failed("the sandbox", error))? {
        return Err(not_for_users());
    }
    let report = go.confinement.apply().map_err(|error| Failure::new(error.to_string()))?;
    for remark in &report.remarks {
        complain(&format!("note: {remark}"));
    }
    if !report.landlock {
        complain("warning: this kernel has no Landlock: the filesystem is restricted by mounts alone");
    }
    let mut words = go.command.into_iter().map(word);
    let name = words.next().ok_or_else(|| Failure::new("no command"))?;
    let mut command = Command::new(&name);
    command.args(words).current_dir(&go.confinement.workdir);
    if let Some(stdin) = descriptors.into_iter().next() {
        command.stdin(Stdio::from(stdin));
    }
    let status = match supervise_init(&mut command, &mut signals) {
        Ok(status) => status,
        Err(error) => {
            complain(&format!("{}: {error}", Path::new(&name).display()));
            match error {
                SpawnError::NotFound => NOT_FOUND,
                SpawnError::NotExecutable(_) => NOT_EXECUTABLE,
                SpawnError::Other(_) => RUN_FAILED,
            }
        }
    };
    let _ = io::stderr().flush();
    Ok(status)
}

fn word(octets: Vec<u8>) -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    OsString::from_vec(octets)
}
