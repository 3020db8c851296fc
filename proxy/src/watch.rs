//! Watches the files that a generation was made from, and reloads when one of them is another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::app::App;

/// Events of one change (truncate, write, write, close; or the renames of a ConfigMap) come within this time.
const QUIET: Duration = Duration::from_millis(100);
/// Network file systems give no events: look this often whatever happens.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);

/// Reloads on changes, for as long as the process lives.
pub async fn watch(app: Arc<App>) {
    let (events, mut changes) = mpsc::channel(1);
    // Directories are watched, not files: a file that is renamed over, or a ConfigMap whose `..data` is swapped,
    // is another inode afterwards.
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = events.try_send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "file changes are noticed late: the kernel gives no events");
            None
        }
    };
    let mut watched = BTreeSet::new();
    let mut timer = interval(LOOK_ANYWAY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(watcher) = &mut watcher {
            follow(watcher, &mut watched, &app.reloader.files());
        }
        tokio::select! {
            Some(()) = changes.recv() => sleep(QUIET).await,
            _ = timer.tick() => {}
        }
        while changes.try_recv().is_ok() {}
        let app = app.clone();
        // A failed reload has been logged.
        let _ = tokio::task::spawn_blocking(move || app.reload_if_changed()).await;
    }
}

/// Watches the directories of these files, both where their paths say and where symbolic links lead.
fn follow(watcher: &mut RecommendedWatcher, watched: &mut BTreeSet<PathBuf>, files: &[PathBuf]) {
    let directories: BTreeSet<PathBuf> = files
        .iter()
        .flat_map(|file| [Some(file.clone()), file.canonicalize().ok()])
        .flatten()
        .filter_map(|file| file.parent().map(Path::to_owned))
        .collect();
    for gone in watched.difference(&directories) {
        let _ = watcher.unwatch(gone);
    }
    for new in directories.difference(watched) {
        if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, directory = %new.display(), "changes here are noticed late");
        }
    }
    *watched = directories;
}
