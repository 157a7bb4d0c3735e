//! Bodies that must keep coming.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// A request body that fails when it stalls, or when it comes slower than a minimum rate.
pub struct Paced<B> {
    body: B,
    stall_limit: Duration,
    rate_min: u32,
    received: u64,
    /// Runs only while a frame is waited for, so that a body that is there at once costs no timer.
    began: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// The body stalled, or came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
pub struct TooSlow;

impl<B> Paced<B> {
    /// `stall_limit` between two frames, and `rate_min` bytes per second in all beyond that grace.
    pub fn new(body: B, stall_limit: Duration, rate_min: u32) -> Self {
        Self { body, stall_limit, rate_min, received: 0, began: None, deadline: None }
    }

    fn next_deadline(&mut self) -> Instant {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        let earned = Duration::from_secs(self.received / u64::from(self.rate_min.max(1)));
        (began + self.stall_limit + earned).min(now + self.stall_limit)
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.deadline = None;
                if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                    self.received += data.map_or(0, |data| data.len() as u64);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                if self.deadline.is_none() {
                    let at = self.next_deadline();
                    self.deadline = Some(Box::pin(tokio::time::sleep_until(at)));
                }
                match self.deadline.as_mut().map(|deadline| deadline.as_mut().poll(cx)) {
                    Some(Poll::Ready(())) => Poll::Ready(Some(Err(Box::new(TooSlow)))),
                    _ => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
