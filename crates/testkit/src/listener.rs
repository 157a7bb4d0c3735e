//! The receiving end of HTTP/1: connections are accepted, and each request goes to whoever asked for them.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Answers every request with what `answer` says, until the listener fails. Meant to be spawned.
pub async fn serve<Answer>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
) where
    Answer: Future<Output = Response<Empty<Bytes>>> + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            // A connection that breaks shows as requests that are missing.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
