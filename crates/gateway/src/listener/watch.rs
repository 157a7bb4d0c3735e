//! One connection's clock: tells a slow header from an idle connection and from a working one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ListenerOptions;

/// No header is under way; nothing waits to be taken.
const NONE: u64 = u64::MAX;

/// What a connection is doing, and since when. Times are milliseconds since it was opened.
pub(super) struct Watch {
    opened: Instant,
    header_limit: Duration,
    idle_limit: Duration,
    stall_limit: Duration,
    rate_min: u64,
    /// Requests whose answer has not begun.
    active: AtomicUsize,
    /// The last byte in either direction.
    moved_at: AtomicU64,
    /// When the header under way began; the first one begins with the connection.
    header_since: AtomicU64,
    /// Frames of HTTP/2 are not headers; its own bounds apply.
    is_h2: AtomicBool,
    /// Since when the peer has had something to take, and the bytes it has taken since.
    waiting_since: AtomicU64,
    taken: AtomicU64,
    /// The connection is gone, whoever had it.
    closed: CancellationToken,
    /// The connection is to go without a word.
    reset: CancellationToken,
}

impl Watch {
    pub(super) fn new(options: &ListenerOptions) -> Self {
        Self {
            opened: Instant::now(),
            header_limit: options.header_limit,
            idle_limit: options.idle_limit,
            stall_limit: options.body_stall_limit,
            rate_min: options.body_rate_min.max(1).into(),
            active: AtomicUsize::new(0),
            moved_at: AtomicU64::new(0),
            header_since: AtomicU64::new(0),
            is_h2: AtomicBool::new(false),
            waiting_since: AtomicU64::new(NONE),
            taken: AtomicU64::new(0),
            closed: CancellationToken::new(),
            reset: CancellationToken::new(),
        }
    }

    /// Asks for the end of the connection as if this machine had died: with a reset, not in good order.
    pub(super) fn reset(&self) {
        self.reset.cancel();
    }

    /// Returns once that was asked for.
    pub(super) async fn was_reset(&self) {
        self.reset.cancelled().await;
    }

    /// Returns once the connection is gone, also one that was given to somebody else.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The connection, watched.
    pub(super) fn over(self: &Arc<Self>, stream: TcpStream) -> Watched {
        Watched { stream, watch: Arc::clone(self) }
    }

    /// A header is complete. The request counts until the guard is dropped.
    pub(super) fn request_began(self: &Arc<Self>, version: Version) -> Busy {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.header_since.store(NONE, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.is_h2.store(true, Ordering::Relaxed);
        }
        Busy(Arc::clone(self))
    }

    /// Returns once a limit is exceeded.
    pub(super) async fn exceeded(&self) {
        // Coarse on purpose: one timer per connection, not one per request.
        let step =
            (self.header_limit.min(self.idle_limit).min(self.stall_limit) / 2).max(Duration::from_millis(5));
        while !self.is_exceeded() {
            tokio::time::sleep(step).await;
        }
    }

    fn is_exceeded(&self) -> bool {
        if self.is_read_too_slowly() {
            return true;
        }
        if self.active.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let now = self.now();
        let since = |at: u64| Duration::from_millis(now.saturating_sub(at));
        let header_since = self.header_since.load(Ordering::Relaxed);
        since(self.moved_at.load(Ordering::Relaxed)) > self.idle_limit
            || (header_since != NONE && since(header_since) > self.header_limit)
    }

    /// Whoever asks and does not take the answer holds memory for as long as it likes.
    fn is_read_too_slowly(&self) -> bool {
        let since = self.waiting_since.load(Ordering::Relaxed);
        let earned = Duration::from_secs(self.taken.load(Ordering::Relaxed) / self.rate_min);
        since != NONE
            && Duration::from_millis(self.now().saturating_sub(since))
                > self.stall_limit.saturating_add(earned)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NONE - 1)
    }

    fn read(&self) {
        let now = self.now();
        self.moved_at.store(now, Ordering::Relaxed);
        let in_header = self.active.load(Ordering::Relaxed) == 0 && !self.is_h2.load(Ordering::Relaxed);
        if in_header && self.header_since.load(Ordering::Relaxed) == NONE {
            self.header_since.store(now, Ordering::Relaxed);
        }
    }

    fn wrote(&self) {
        self.moved_at.store(self.now(), Ordering::Relaxed);
    }

    /// The peer's window took some bytes, or is full.
    fn offered(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(count)) if *count > 0 => {
                self.wrote();
                if self.waiting_since.load(Ordering::Relaxed) != NONE {
                    self.taken.fetch_add(*count as u64, Ordering::Relaxed);
                }
            }
            Poll::Pending if self.waiting_since.load(Ordering::Relaxed) == NONE => {
                self.taken.store(0, Ordering::Relaxed);
                self.waiting_since.store(self.now(), Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Everything that was there to write has been taken.
    fn emptied(&self) {
        self.waiting_since.store(NONE, Ordering::Relaxed);
    }
}

/// A request under way.
pub(super) struct Busy(Arc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.wrote();
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that tells its watch of every byte.
pub(super) struct Watched {
    stream: TcpStream,
    watch: Arc<Watch>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.watch.reset.is_cancelled()
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(error.message = %error, "the connection was gone before it was reset");
        }
        self.watch.closed.cancel();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.watch.read();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch.offered(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch.offered(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.watch.emptied();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
