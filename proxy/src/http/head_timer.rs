//! Times request heads: from the first byte of a head to its last, and how long a connection may wait for one.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a kept connection may wait for its next request. Longer than the pools of common clients keep one (Node
/// 5 s, Go and Python up to 90 s), so that the client closes first and no request meets a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// What the connection is in the middle of, shared between the stream and the service that answers requests.
#[derive(Clone, Debug)]
pub struct Heads {
    header_timeout: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The number of the request in the upper bits, one of the phases below in the lowest two. One word, so that
    /// the end of one request never undoes the beginning of the next.
    state: AtomicU64,
    timed_out: AtomicBool,
}

/// Nothing was there yet: the client has `header_timeout` for its first head.
const FIRST: u64 = 0;
/// A request is being read or answered.
const SERVING: u64 = 1;
/// It is over; nothing of the next head is there.
const IDLE: u64 = 2;
/// Some of the next head is there.
const HEAD: u64 = 3;
/// Bits of a phase.
const PHASE: u64 = 3;

/// Held by a request's body and its answer's: when the last is dropped, the request is over.
#[derive(Clone, Debug)]
pub struct InFlight(#[expect(dead_code, reason = "held for its Drop")] Arc<Serving>);

#[derive(Debug)]
struct Serving {
    state: u64,
    shared: Arc<Shared>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let idle = self.state & !PHASE | IDLE;
        let _ = self.shared.state.compare_exchange(self.state, idle, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Heads {
    /// For a new connection.
    pub fn new(header_timeout: Duration) -> Self {
        let shared = Shared { state: AtomicU64::new(FIRST), timed_out: AtomicBool::new(false) };
        Self { header_timeout, shared: Arc::new(shared) }
    }

    /// A head is complete: its request is served until what this returns is dropped.
    pub fn request_began(&self) -> InFlight {
        let state = (self.shared.state.load(Ordering::Acquire) & !PHASE) + (PHASE + 1) | SERVING;
        self.shared.state.store(state, Ordering::Release);
        InFlight(Arc::new(Serving { state, shared: self.shared.clone() }))
    }

    /// Whether the connection ended because a head did not arrive in time.
    pub fn timed_out(&self) -> bool {
        self.shared.timed_out.load(Ordering::Acquire)
    }

    fn phase(&self) -> u64 {
        self.shared.state.load(Ordering::Acquire) & PHASE
    }

    /// How long a phase may last, if it has a limit.
    fn limit(&self, phase: u64) -> Option<Duration> {
        match phase {
            FIRST | HEAD => Some(self.header_timeout),
            IDLE => Some(KEEP_ALIVE.max(self.header_timeout)),
            _ => None,
        }
    }

    /// Bytes came: after a request that is over, they begin the next head.
    fn bytes_came(&self) {
        let state = self.shared.state.load(Ordering::Acquire);
        if state & PHASE == IDLE {
            let head = state & !PHASE | HEAD;
            let _ = self.shared.state.compare_exchange(state, head, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

/// A stream whose reads end with an error when a head takes too long.
#[derive(Debug)]
pub struct HeadTimer<IO> {
    io: IO,
    heads: Heads,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The phase that the timer was set in.
    armed: u64,
}

impl<IO> HeadTimer<IO> {
    /// Times the heads that are read from `io`.
    pub fn new(io: IO, heads: Heads) -> Self {
        Self { io, heads, sleep: None, armed: SERVING }
    }

    /// The stream itself.
    pub fn into_inner(self) -> IO {
        self.io
    }

    /// Whether the time for what is being read is up.
    fn poll_expired(&mut self, context: &mut Context<'_>) -> bool {
        let phase = self.heads.phase();
        let Some(limit) = self.heads.limit(phase) else {
            self.armed = phase;
            return false;
        };
        if self.armed != phase || self.sleep.is_none() {
            self.armed = phase;
            match &mut self.sleep {
                Some(timer) => timer.as_mut().reset(Instant::now() + limit),
                None => self.sleep = Some(Box::pin(sleep(limit))),
            }
        }
        self.sleep.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for HeadTimer<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(context, buffer) {
            Poll::Pending => {
                if !this.poll_expired(context) {
                    return Poll::Pending;
                }
                // An idle connection is closed without a word, a head that began gets its answer.
                if this.armed != IDLE {
                    this.heads.shared.timed_out.store(true, Ordering::Release);
                }
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(outcome) => {
                if buffer.filled().len() > before {
                    this.heads.bytes_came();
                }
                Poll::Ready(outcome)
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for HeadTimer<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
