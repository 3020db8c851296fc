//! `credgate proxy`: the proxy alone.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{DONE, Failure, complain, logging, say};
use crate::app::App;
use crate::audit::Audit;
use crate::cli::ConfigFlag;
use crate::config::Request;
use crate::hardening;
use crate::reload::{ReloadError, Reloader};
use crate::secret::process_environment;
use crate::serve::{Listeners, Server};
use crate::tls::authority::Authority;
use crate::tls::leaf_cache::LeafCache;
use crate::watch;

pub(super) fn run(arguments: &ConfigFlag) -> Result<u8, Failure> {
    hardening::protect_memory().map_err(|error| Failure::new(error.to_string()))?;
    let app = start_app(arguments.request(), "info")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("the runtime does not start: {error}")))?;
    runtime.block_on(serve(&app))?;
    // Connections that outlived the drain end here.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    app.audit.flush();
    Ok(DONE)
}

/// Loads the configuration and builds what serves by it.
pub(super) fn start_app(request: Request, default_level: &str) -> Result<Arc<App>, Failure> {
    let compiled = request.load(&process_environment)?;
    for warning in &compiled.warnings {
        complain(warning.trim_end());
    }
    logging::start(compiled.settings.log.format, default_level);
    let compile = move || request.load(&process_environment).map_err(|error| error.to_string());
    let (generation, reloader) = Reloader::start(Box::new(compile)).map_err(|error| match error {
        ReloadError::Config(cause) => Failure::config(cause),
        ReloadError::Generation(error) => Failure::config(error.to_string()),
    })?;
    let authority = match &generation.settings.ca.dir {
        Some(dir) => Authority::load_or_create(dir),
        None => Authority::ephemeral(),
    };
    let authority = authority.map_err(|error| Failure::new(format!("interception CA: {error}")))?;
    let audit = match &generation.settings.log.audit {
        None => Audit::none(),
        Some(path) => Audit::to_file(path)
            .map_err(|error| Failure::new(format!("audit log {}: {error}", path.display())))?,
    };
    Ok(Arc::new(App::new(generation, LeafCache::new(authority), audit, reloader)))
}

async fn serve(app: &Arc<App>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(error.to_string());
    let settings = app.generation().settings.proxy.clone();
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        Failure::new(format!("{}: {error}\nanother port: proxy.listen, or CREDGATE_LISTEN", settings.listen))
    })?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let server = Server::start(app, Listeners { explicit: vec![listener], ..Listeners::default() });
    tokio::spawn(watch::watch(app.clone()));
    say(&format!("listening on http://{address}\n"))?;
    notify(&[sd_notify::NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(app).await,
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("draining");
    if !server.drain(settings.drain_timeout).await {
        tracing::warn!("connections were still open after {} s", settings.drain_timeout.as_secs_f32());
    }
    Ok(())
}

/// Reloads on request. Failures are logged where they happen.
pub(super) async fn reload(app: &Arc<App>) {
    let app = app.clone();
    let _ = tokio::task::spawn_blocking(move || app.reload().is_ok()).await;
}

/// systemd's notify protocol, sd_notify(3); without a supervisor it does nothing.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the supervisor cannot be notified");
    }
}
