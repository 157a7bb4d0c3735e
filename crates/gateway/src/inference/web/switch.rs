//! The caller's side of a connection that speaks another protocol from now on, such as WebSocket: what it sends goes
//! to the web server, what that sends comes back, until either is done.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use queue::web;
use tokio::io::{AsyncWriteExt as _, split};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

/// Pieces on their way to the server; beyond them the caller waits.
const PIECES_MAX: usize = 2;

/// The caller's connection, once it is free.
pub(super) struct Client {
    upgrade: OnUpgrade,
    up: mpsc::Sender<io::Result<Bytes>>,
}

/// What the caller is going to send, and the connection it will send it on.
pub(super) fn begin(upgrade: OnUpgrade) -> (web::Body, Client) {
    let (up, pieces) = mpsc::channel(PIECES_MAX);
    let pieces = stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)));
    (pieces.boxed(), Client { upgrade, up })
}

/// Joins the caller's connection with what comes from the server.
pub(super) fn join(client: Client, down: web::Body) {
    tokio::spawn(async move {
        let Client { upgrade, up } = client;
        let connection = match upgrade.await {
            Ok(connection) => TokioIo::new(connection),
            Err(error) => {
                tracing::debug!(error.message = %error, "a caller went away before it could switch protocols");
                return;
            }
        };
        let (read, mut write) = split(connection);
        let sends = async {
            let mut pieces = ReaderStream::new(read);
            while let Some(piece) = pieces.next().await {
                if up.send(piece).await.is_err() {
                    return;
                }
            }
            // The server learns that nothing more comes.
            drop(up);
            std::future::pending::<()>().await;
        };
        let takes = async {
            let mut down = down;
            while let Some(Ok(piece)) = down.next().await {
                if write.write_all(&piece).await.is_err() {
                    return;
                }
            }
            let _ = write.shutdown().await;
        };
        tokio::select! {
            () = takes => {}
            () = sends => {}
        }
    });
}
