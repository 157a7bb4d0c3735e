//! Recorded requests, sent once more because a person asks for it: judged, bounded and read as an attempt of a
//! delivery is, on a connection of their own, and without a word about the receiver's health.

use async_trait::async_trait;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use queue::delivery::Timings;
use queue::inbox::CapturedRequest;
use queue::port::Replays;
use queue::replay::{NotReplayed, Replayed, headers_sent};
use queue::run::EndpointUrl;
use tokio::time::Instant;
use url::{Position, Url};

use crate::engine::{Handle, Shared};
use crate::failure::Failure;
use crate::verdict::Seen;
use crate::wire::{Unsent, Wire};

#[async_trait]
impl Replays for Handle {
    async fn replay(&self, request: &CapturedRequest, url: &str) -> Result<Replayed, NotReplayed> {
        let shared = &self.shared;
        let _place = shared.replays.try_acquire().map_err(|_| NotReplayed::Busy)?;
        let method = Method::from_bytes(request.method.as_bytes()).ok().filter(|one| one != Method::CONNECT);
        let method = method.ok_or_else(|| NotReplayed::Method(request.method.clone()))?;
        let url = shared.guard.admit(url).await?.url;
        let (began, mut timings, mut headers) = (Instant::now(), Timings::default(), Vec::new());
        let seen = shared.replay(method, request, &url, &mut timings, &mut headers).await;
        let seen = seen.unwrap_or_else(Seen::failed);
        let replayed = Replayed {
            headers,
            status_code: seen.status,
            response: seen.response,
            // Whatever the receiver says is an answer.
            reason: seen
                .failure
                .filter(|failure| !matches!(failure, Failure::HttpStatus | Failure::Redirect))
                .map(|failure| failure.reason().into_owned()),
            duration: began.elapsed(),
            timings,
            url,
        };
        tracing::info!(
            receiver = replayed.url.receiver().as_str(),
            http.status = replayed.status_code,
            reason = replayed.reason.as_deref(),
            duration_ms = replayed.duration.as_millis(),
            "a recorded request was sent once more"
        );
        Ok(replayed)
    }
}

impl Shared {
    async fn replay(
        &self,
        method: Method,
        recorded: &CapturedRequest,
        url: &EndpointUrl,
        timings: &mut Timings,
        headers: &mut Vec<(String, String)>,
    ) -> Result<Seen, Failure> {
        let deadline = Instant::now() + self.sender.limit;
        let address = self.guard.readmit(url).await?;
        let request = request(method, recorded, &address.url).ok_or(Failure::AddressNotAllowed)?;
        let mut wire = Wire::new(self.sender.connector.connect(&address, deadline, timings).await?).await?;
        let answer = match wire.ask(request, deadline, timings).await {
            Ok(answer) => answer?,
            Err(Unsent(_)) => return Err(Failure::Reset),
        };
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.extend(answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))));
        Ok(wire.see(answer, deadline).await)
    }
}

fn request(method: Method, recorded: &CapturedRequest, url: &Url) -> Option<Request<Full<Bytes>>> {
    let authority = &url[Position::BeforeHost..Position::AfterPort];
    let request = Request::builder().method(method).uri(&url[Position::BeforePath..]).header(HOST, authority);
    let mut request = request.body(Full::new(recorded.body.clone())).ok()?;
    for (name, value) in headers_sent(&recorded.headers) {
        let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        if let (Ok(name), Ok(value)) = header {
            request.headers_mut().append(name, value);
        }
    }
    Some(request)
}
