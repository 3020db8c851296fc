//! Message bodies: streamed as they come, counted, and a report when they end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::head_timer::InFlight;

/// The body of a message that leaves, either way.
#[derive(Debug)]
pub enum Body {
    /// Known bytes: refusals.
    Full(Option<Bytes>),
    /// Passed on from the other side.
    Streamed(Counted),
}

/// A body that counts its data octets.
#[derive(Debug)]
pub struct Counted {
    body: Incoming,
    octets: Arc<AtomicU64>,
    /// Dropped with the body: whoever accounts for it learns that it has ended.
    #[expect(dead_code, reason = "held for its Drop")]
    ended: Option<Ended>,
    /// Likewise: the request that it belongs to is not over before.
    #[expect(dead_code, reason = "held for its Drop")]
    in_flight: Option<InFlight>,
}

/// Runs its function when the body that holds it is done or dropped.
pub struct Ended(Option<Box<dyn FnOnce() + Send>>);

impl Ended {
    /// Calls `report` once, at the end.
    pub fn new(report: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(report)))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(report) = self.0.take() {
            report();
        }
    }
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ended")
    }
}

impl Body {
    /// No octets.
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// These octets.
    pub fn full(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }

    /// Another side's body, counted into `octets`.
    pub fn counted(body: Incoming, octets: Arc<AtomicU64>, ended: Option<Ended>) -> Self {
        Self::Streamed(Counted { body, octets, ended, in_flight: None })
    }

    /// Keeps a request in flight until this body has ended.
    #[must_use]
    pub fn holding(mut self, in_flight: InFlight) -> Self {
        if let Self::Streamed(counted) = &mut self {
            counted.in_flight = Some(in_flight);
        }
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(counted) => {
                let frame = ready!(Pin::new(&mut counted.body).poll_frame(context));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    counted.octets.fetch_add(data.remaining() as u64, Ordering::Relaxed);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Streamed(counted) => counted.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(counted) => counted.body.size_hint(),
        }
    }
}
