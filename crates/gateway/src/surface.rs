//! The whole HTTP surface, as one service.
//!
//! Calls of functions are by far the most of what is asked, and their paths say at a glance what they are. They
//! pass the router by: on the way through it a request is boxed, cloned and looked up several times, which costs more
//! than all that is done to accept it. Whatever is not plainly such a call goes through the router, and the
//! answers are the same either way.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use tower::Service;

use crate::{Gateway, edge, inference};

/// Answers every request. Cloning it costs two reference counts.
#[derive(Clone)]
pub struct Surface {
    gateway: Gateway,
    router: Router,
}

impl Surface {
    pub(crate) fn new(gateway: Gateway, router: Router) -> Self {
        Self { gateway, router }
    }

    async fn answer(mut self, request: Request) -> Response {
        match inference::Direct::of(&request) {
            Some(call) => call.answer(self.gateway, request).await,
            None if inference::web::is_meant(&request) => {
                inference::web::answer_or(&self.gateway, self.router, request).await
            }
            None => self.router.call(request).await.unwrap_or_else(|never| match never {}),
        }
    }
}

impl Service<http::Request<Body>> for Surface {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let gateway = this.gateway.clone();
            Ok(edge::surround(&gateway, request, |request| this.answer(request)).await)
        })
    }
}
