//! The one place that accounts: a JSON line per connection and per request, written behind a bounded queue.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Lines that may wait for the disk. A disk that is slower than that loses lines, which are counted, and never
/// holds traffic up.
const QUEUE: usize = 8192;

/// How long the end of the process waits for the disk.
const FLUSH: Duration = Duration::from_secs(1);

/// One audit line. Holds names, never values: no header, no query, no body.
#[derive(Debug, Serialize)]
pub struct Record<'r> {
    /// When it ended, RFC 3339.
    pub time: String,
    /// Generation of the policy that decided.
    pub generation: u64,
    /// Number of the connection in this process.
    pub session: u64,
    /// The client's address.
    pub client: &'r str,
    /// How it arrived: `connect`, `absolute`, `captured`, or `request` inside an intercepted connection.
    pub arrival: &'static str,
    /// Host and port; absent when the target was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<&'r str>,
    /// `tunnel`, `intercept`, `forward`, `refuse`.
    pub outcome: &'static str,
    /// The rule, as file:line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'r str>,
    /// Name of the credential that was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<&'r str>,
    /// Request method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'r str>,
    /// Request path without the query, which may hold secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'r str>,
    /// Response status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it was refused or how it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'r str>,
    /// Octets from the client.
    pub bytes_up: u64,
    /// Octets to the client.
    pub bytes_down: u64,
    /// From arrival to end, milliseconds.
    pub duration_ms: u64,
}

/// The time of a record: now.
pub fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// What the writer is told.
enum Message {
    Line(Vec<u8>),
    /// Answer when everything before this is in the file.
    Flush(SyncSender<()>),
}

/// Where audit lines go.
#[derive(Debug)]
pub struct Audit {
    queue: Option<SyncSender<Message>>,
    lost: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    /// Writes nowhere.
    pub fn none() -> Self {
        Self { queue: None, lost: AtomicU64::new(0), writer: Mutex::new(None) }
    }

    /// Appends to a file, which is made readable by its owner alone.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let (queue, lines) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("audit".into()).spawn(move || write(file, &lines))?;
        Ok(Self { queue: Some(queue), lost: AtomicU64::new(0), writer: Mutex::new(Some(writer)) })
    }

    /// Queues a line; loses and counts it when the queue is full.
    pub fn record(&self, record: &Record<'_>) {
        let Some(queue) = &self.queue else { return };
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            queue.try_send(Message::Line(line))
            && self.lost.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::error!("the audit log cannot keep up: lines are lost");
        }
    }

    /// Waits until what was recorded so far is in the file, a second at most.
    pub fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, written) = sync_channel(1);
        if queue.send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH);
        }
    }

    /// Lines lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.get_mut().ok().and_then(Option::take) {
            let _ = writer.join();
        }
    }
}

fn write(file: File, lines: &Receiver<Message>) {
    let mut file = BufWriter::new(file);
    let mut report = |outcome: io::Result<()>| {
        if let Err(error) = outcome {
            tracing::error!(%error, "the audit log cannot be written");
        }
    };
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        let mut waiting = Vec::new();
        // What follows at once goes into the same write.
        while let Some(message) = next {
            match message {
                Message::Line(line) => report(file.write_all(&line)),
                Message::Flush(done) => waiting.push(done),
            }
            next = lines.try_recv().ok();
        }
        report(file.flush());
        for done in waiting {
            let _ = done.send(());
        }
    }
}
