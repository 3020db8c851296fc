//! Accepting: a place for each connection, a fast refusal when there is none, and no end at EMFILE.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::http::refuse;
use crate::policy::Refusal;
use crate::session::Session;

/// Pause after an error of accept(2) that another try would meet at once (EMFILE, ENFILE, ENOBUFS, ENOMEM).
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that has no place may take to read why.
const PARTING: Duration = Duration::from_secs(1);

/// What every listener of the process shares.
#[derive(Clone)]
pub struct Door {
    app: Arc<App>,
    places: Arc<Semaphore>,
    limit: usize,
    drain: watch::Receiver<bool>,
}

/// Which protocol a connection without a place is refused in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// It gets a 503.
    Answer,
    /// It is closed: nobody knows what it speaks.
    Close,
}

impl Door {
    /// A door with `max_connections` places.
    pub fn new(app: Arc<App>, drain: watch::Receiver<bool>) -> Self {
        let limit = app.generation().settings.proxy.max_connections.min(Semaphore::MAX_PERMITS);
        Self { app, places: Arc::new(Semaphore::new(limit)), limit, drain }
    }

    /// The process.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Resolves when no connection is open.
    pub async fn empty(&self) {
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let _ = self.places.acquire_many(all).await;
    }

    /// Accepts connections until the drain begins, and serves each in a task of its own.
    pub async fn accept<S, F>(self, listener: TcpListener, full: Full, serve: S)
    where
        S: Fn(Arc<Session>, TcpStream) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut drain = self.drain.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = drain.wait_for(|draining| *draining) => return,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            // Without it small messages wait 40 ms for an acknowledgement.
            let _ = stream.set_nodelay(true);
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                let session = Session::new(self.app.clone(), client, place, self.drain.clone());
                tokio::spawn(serve(session, stream));
            } else if full == Full::Answer {
                tokio::spawn(timeout(PARTING, turn_away(stream, self.limit)));
            }
        }
    }
}

async fn turn_away(mut stream: TcpStream, limit: usize) -> io::Result<()> {
    let answer = refuse::raw_response(&Refusal::TooManyConnections(limit));
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with unread bytes would reset the connection before the answer is read.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

async fn pause_after(error: &io::Error) {
    // The errors of one connection that went away before it was accepted: accept(2), "Error handling".
    let of_one = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !of_one {
        tracing::error!(%error, "no connection can be accepted");
        sleep(EXHAUSTED_PAUSE).await;
    }
}
