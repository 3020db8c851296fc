//! The relay of a tunnel: both directions until both are done, half-close kept, idle memory small.
//!
//! Small messages are copied; once reads fill the buffer, the direction switches to splice(2), which moves pages
//! through a pipe and never into this process. While nothing comes, a direction holds neither buffer nor pipe.

mod pipe;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::pipe::{SpliceFlags, splice as splice_pages};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use pipe::Pipe;

/// 16 KiB: one TLS record (RFC 8446 §5.1), so that a record that fits is passed on whole.
const BUFFER: usize = 16 * 1024;

/// What a relay has moved, and how it ended.
#[derive(Debug)]
pub struct Transfer {
    /// Octets from the client.
    pub up: u64,
    /// Octets to the client.
    pub down: u64,
    /// Why it is over.
    pub ended: Ended,
}

/// Why a relay is over.
#[derive(Debug)]
pub enum Ended {
    /// Both sides are done.
    Closed,
    /// No octet in either direction for this long.
    Idle(Duration),
    /// One side failed.
    Failed(io::Error),
}

impl Transfer {
    /// What went wrong, if anything.
    pub fn failure(&self) -> Option<String> {
        match &self.ended {
            Ended::Closed => None,
            Ended::Idle(limit) => Some(format!("idle for {} s", limit.as_secs_f32())),
            Ended::Failed(error) => Some(error.to_string()),
        }
    }
}

/// Counts octets and remembers when the last one moved.
struct Progress {
    up: AtomicU64,
    down: AtomicU64,
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { up: zero(), down: zero(), began: Instant::now(), last: zero() }
    }

    fn moved(&self, counter: &AtomicU64, octets: usize) {
        counter.fetch_add(octets as u64, Ordering::Relaxed);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Resolves when nothing has moved for `limit`. One timer, set anew only when it fires.
    async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let deadline = self.began + last + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    fn transfer(&self, ended: Ended) -> Transfer {
        Transfer { up: self.up.load(Ordering::Relaxed), down: self.down.load(Ordering::Relaxed), ended }
    }
}

/// Relays a tunnel. `early` was read from the client already and goes first.
pub async fn splice(client: TcpStream, upstream: TcpStream, early: Bytes, idle: Duration) -> Transfer {
    let progress = Progress::new();
    let up = async {
        write_all(&upstream, &early).await?;
        progress.moved(&progress.up, early.len());
        drop(early);
        pump(&client, &upstream, |octets| progress.moved(&progress.up, octets)).await
    };
    let down = pump(&upstream, &client, |octets| progress.moved(&progress.down, octets));
    let ended = tokio::select! {
        outcome = async { tokio::try_join!(up, down) } => match outcome {
            Ok(((), ())) => Ended::Closed,
            Err(error) => Ended::Failed(error),
        },
        () = progress.idle(idle) => Ended::Idle(idle),
    };
    progress.transfer(ended)
}

/// Moves one direction until its source ends, then ends the other side's reading.
async fn pump(from: &TcpStream, to: &TcpStream, moved: impl Fn(usize)) -> io::Result<()> {
    let mut bulk = false;
    loop {
        from.readable().await?;
        let step =
            if bulk { move_pages(from, to, &moved).await? } else { copy_once(from, to, &moved).await? };
        match step {
            Step::Ended => break,
            Step::Moved { full } => bulk = full,
            Step::Nothing => bulk = false,
        }
    }
    match SockRef::from(to).shutdown(std::net::Shutdown::Write) {
        // The other side is gone already: its own direction says so.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}

/// What one step of a direction did.
enum Step {
    /// Moved something; `full` when there is likely much more.
    Moved {
        /// The buffer was filled.
        full: bool,
    },
    /// Readiness was spurious.
    Nothing,
    /// The source has ended.
    Ended,
}

async fn copy_once(from: &TcpStream, to: &TcpStream, moved: &impl Fn(usize)) -> io::Result<Step> {
    let mut buffer = Vec::with_capacity(BUFFER);
    match from.try_read_buf(&mut buffer) {
        Ok(0) => Ok(Step::Ended),
        Ok(octets) => {
            write_all(to, &buffer).await?;
            moved(octets);
            Ok(Step::Moved { full: octets == BUFFER })
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Nothing),
        Err(error) => Err(error),
    }
}

/// Fills a pipe from one socket and empties it into the other, as long as the first has something.
///
/// The pipe is empty before every fill, so that EAGAIN there can only mean the socket; it is not empty before every
/// drain, so that EAGAIN there can only mean the other socket. Were both at once, a wait for the wrong one would
/// hang.
async fn move_pages(from: &TcpStream, to: &TcpStream, moved: &impl Fn(usize)) -> io::Result<Step> {
    let Some(pipe) = Pipe::take() else { return copy_once(from, to, moved).await };
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    loop {
        let fill = || Ok(splice_pages(from, None, &pipe.write, None, pipe.size, flags)?);
        let mut held = match from.try_io(Interest::READABLE, fill) {
            Ok(0) => {
                pipe.put_back();
                return Ok(Step::Ended);
            }
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipe.put_back();
                return Ok(Step::Moved { full: true });
            }
            Err(error) => return Err(error),
        };
        let full = held >= BUFFER;
        while held > 0 {
            let drain = || Ok(splice_pages(&pipe.read, None, to, None, held, flags)?);
            match to.try_io(Interest::WRITABLE, drain) {
                Ok(octets) => {
                    held -= octets;
                    moved(octets);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                // An error drops the pipe with what it holds: only an empty one goes back to the pool.
                Err(error) => return Err(error),
            }
        }
        if !full {
            pipe.put_back();
            return Ok(Step::Moved { full: false });
        }
    }
}

async fn write_all(to: &TcpStream, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        match to.try_write(octets) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => octets = &octets[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Relays streams that are not sockets: the two sides of an upgraded connection. Has no idle limit: a WebSocket may
/// be silent for hours.
pub async fn relay<A, B>(client: A, upstream: B) -> Transfer
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let progress = Progress::new();
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let up = copy(&mut client_read, &mut upstream_write, |octets| progress.moved(&progress.up, octets));
    let down = copy(&mut upstream_read, &mut client_write, |octets| progress.moved(&progress.down, octets));
    let ended = match tokio::try_join!(up, down) {
        Ok(((), ())) => Ended::Closed,
        Err(error) => Ended::Failed(error),
    };
    progress.transfer(ended)
}

async fn copy<R, W>(from: &mut R, to: &mut W, moved: impl Fn(usize)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let octets = from.read(&mut buffer).await?;
        if octets == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..octets]).await?;
        to.flush().await?;
        moved(octets);
    }
}

#[cfg(test)]
mod tests;
