//! A connection that changed its protocol, such as to WebSocket: bytes in both directions, until either side
//! closes, nothing moves for too long, or the exchange is stopped.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::StatusCode;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use queue::limits::TUNNEL_IDLE_LIMIT;
use queue::web::{self, Answer, Visitor};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::client::{headers, innermost};
use super::exchange::{End, Told};

/// Time for the other side to close as well.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// When a byte last moved.
#[derive(Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns once nothing has moved for too long.
    async fn is_over(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + TUNNEL_IDLE_LIMIT;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Joins the two connections.
pub(super) async fn dig(
    mut answer: http::Response<Incoming>,
    up: web::Body,
    visitor: &dyn Visitor,
    stop: &CancellationToken,
) -> End {
    let upgraded = match hyper::upgrade::on(&mut answer).await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return End::Broken(innermost(&error)),
    };
    let moved = Moved(Arc::new(Mutex::new(Instant::now())));
    let (read, write) = tokio::io::split(upgraded);
    let at_read = moved.clone();
    let down = ReaderStream::new(read).inspect(move |_| at_read.now()).boxed();
    let stop = stop.child_token();
    let (down, mut ended) = Told::new(down, None, stop.clone());
    visitor.answer(Answer {
        status: StatusCode::SWITCHING_PROTOCOLS.as_u16(),
        headers: headers(answer.headers()),
        length: None,
        body: down.boxed(),
    });
    let closing = async {
        // Whoever stops sending has usually closed; the other side has a while to say goodbye.
        let _ = pump(up, write, &moved).await;
        sleep(CLOSE_LIMIT).await;
    };
    tokio::select! {
        how = &mut ended => match how {
            // However a conversation ends, it ends.
            Ok(_) => End::Told(StatusCode::SWITCHING_PROTOCOLS),
            Err(_) => End::Gone,
        },
        () = closing => {
            stop.cancel();
            End::Told(StatusCode::SWITCHING_PROTOCOLS)
        }
        () = moved.is_over() => {
            stop.cancel();
            End::Told(StatusCode::SWITCHING_PROTOCOLS)
        }
    }
}

async fn pump(mut up: web::Body, mut write: impl AsyncWrite + Unpin, moved: &Moved) -> io::Result<()> {
    while let Some(bytes) = up.next().await {
        write.write_all(&bytes?).await?;
        moved.now();
    }
    write.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_conversation_is_over_once_nothing_has_moved_for_so_long() {
        let moved = Moved(Arc::new(Mutex::new(Instant::now())));
        let began = Instant::now();
        let speaks = async {
            sleep(TUNNEL_IDLE_LIMIT / 2).await;
            moved.now();
        };
        tokio::join!(speaks, moved.is_over());
        assert_eq!(began.elapsed().as_secs(), (TUNNEL_IDLE_LIMIT + TUNNEL_IDLE_LIMIT / 2).as_secs());
    }
}
