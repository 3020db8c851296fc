//! Reload: a new generation is built whole and swapped in; on any error the old one stays.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::app::{App, Generation, GenerationError};
use crate::config::Compiled;
use crate::secret::{FileStamp, process_environment};

/// Compiles the configuration anew; the text of its errors is ready to print.
pub type Compile = Box<dyn Fn() -> Result<Compiled, String> + Send + Sync>;

/// Why a reload kept the old generation.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The configuration does not compile.
    #[error("{0}")]
    Config(String),
    /// It compiles, but a secret or a CA file is missing or unusable.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// Builds generations from the same sources as the first.
pub struct Reloader {
    compile: Compile,
    watched: Mutex<Watched>,
}

/// The files that a generation was made from, as they were at the last attempt.
struct Watched {
    files: Vec<PathBuf>,
    stamps: Vec<Option<FileStamp>>,
}

impl Watched {
    fn new(files: Vec<PathBuf>) -> Self {
        let stamps = stamps(&files);
        Self { files, stamps }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<FileStamp>> {
    files.iter().map(|path| FileStamp::of(path).ok()).collect()
}

impl Reloader {
    /// Compiles and builds the first generation.
    pub fn start(compile: Compile) -> Result<(Generation, Self), ReloadError> {
        let compiled = compile().map_err(ReloadError::Config)?;
        let watched = Watched::new(compiled.files.clone());
        let generation = Generation::build(1, compiled, &process_environment)?;
        Ok((generation, Self { compile, watched: Mutex::new(watched) }))
    }

    /// The files to watch.
    pub fn files(&self) -> Vec<PathBuf> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).files.clone()
    }
}

impl App {
    /// Reloads whatever has changed or not. Blocks on files; one reload at a time.
    pub fn reload(&self) -> Result<u64, ReloadError> {
        let mut watched = self.reloader.watched.lock().unwrap_or_else(PoisonError::into_inner);
        self.reload_locked(&mut watched)
    }

    /// Reloads if a watched file is another than at the last attempt. `None`: nothing has changed.
    pub fn reload_if_changed(&self) -> Option<Result<u64, ReloadError>> {
        let mut watched = self.reloader.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps(&watched.files) == watched.stamps {
            return None;
        }
        Some(self.reload_locked(&mut watched))
    }

    fn reload_locked(&self, watched: &mut Watched) -> Result<u64, ReloadError> {
        // Taken before anything is read: what changes while it is read counts as a change.
        watched.stamps = stamps(&watched.files);
        let outcome = self.build_next(watched);
        match &outcome {
            Ok(number) => tracing::info!(generation = number, "reloaded"),
            Err(error) => {
                let kept = self.generation().number;
                tracing::error!(
                    generation = kept,
                    "reload failed, generation {kept} stays in force: {error}"
                );
            }
        }
        outcome
    }

    fn build_next(&self, watched: &mut Watched) -> Result<u64, ReloadError> {
        let compiled = (self.reloader.compile)().map_err(ReloadError::Config)?;
        if compiled.files != watched.files {
            *watched = Watched::new(compiled.files.clone());
        }
        let number = self.generation().number + 1;
        let next = Generation::build(number, compiled, &process_environment)?;
        self.swap(next);
        Ok(number)
    }

    /// The generation for a request that needs a secret from a file: if the file was replaced since it was read,
    /// the replacement is loaded first. That a watcher would notice a moment later is not soon enough for "the next
    /// request".
    pub async fn fresh(self: &Arc<Self>, generation: Arc<Generation>) -> Arc<Generation> {
        let app = self.clone();
        match tokio::task::spawn_blocking(move || app.reload_if_changed()).await {
            Ok(Some(Ok(_))) => self.generation(),
            Ok(None) => self.generation(),
            // The old secret stays in force, as with every failed reload.
            Ok(Some(Err(_))) | Err(_) => generation,
        }
    }
}
