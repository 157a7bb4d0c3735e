//! One attempt: guard, sign, connect, send, read, under one deadline.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use queue::clock::Timestamp;
use queue::delivery::{DueDelivery, Timings};
use queue::run::Receiver;
use queue::signature::{
    CEREBRIUM_ID_HEADER, CEREBRIUM_SIGNATURE_HEADER, CEREBRIUM_TIMESTAMP_HEADER, ID_HEADER, SIGNATURE_HEADER,
    SigningKeys, TIMESTAMP_HEADER,
};
use queue::webhook::WebhookHeaders;
use tokio::time::Instant;
use url::{Position, Url};

use crate::connect::Connector;
use crate::failure::Failure;
use crate::guard::Guard;
use crate::keys::Keys;
use crate::pool::Pool;
use crate::verdict::Seen;
use crate::wire::{Unsent, Wire};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("postback/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) struct Sender {
    pub(crate) guard: Arc<Guard>,
    pub(crate) connector: Connector,
    pub(crate) pool: Arc<Pool>,
    pub(crate) keys: Keys,
    pub(crate) limit: Duration,
}

impl Sender {
    /// Makes the attempt. Every request on the wire is one attempt: nothing is sent twice in here.
    pub(crate) async fn attempt(&self, due: &DueDelivery, receiver: &Receiver, at: Timestamp) -> Seen {
        let mut timings = Timings::default();
        let seen = self.try_attempt(due, receiver, at, &mut timings).await;
        Seen { timings, ..seen.unwrap_or_else(Seen::failed) }
    }

    async fn try_attempt(
        &self,
        due: &DueDelivery,
        receiver: &Receiver,
        at: Timestamp,
        timings: &mut Timings,
    ) -> Result<Seen, Failure> {
        let deadline = Instant::now() + self.limit;
        let address = self.guard.readmit(&due.url).await?;
        let keys = self.keys.get(&due.project, deadline).await.ok_or(Failure::NoSigningKey)?;
        let mut request = request(due, &address.url, &keys, at).ok_or(Failure::AddressNotAllowed)?;
        while let Some(mut wire) = self.pool.take(receiver, Instant::now()) {
            match wire.exchange(request, deadline, timings).await {
                Ok(seen) => {
                    timings.reused_connection = true;
                    self.pool.keep(receiver, wire, Instant::now());
                    return Ok(seen);
                }
                // The receiver closed the connection before anything was written.
                Err(Unsent(same)) => request = same,
            }
        }
        let mut wire = Wire::new(self.connector.connect(&address, deadline, timings).await?).await?;
        match wire.exchange(request, deadline, timings).await {
            Ok(seen) => {
                self.pool.keep(receiver, wire, Instant::now());
                Ok(seen)
            }
            Err(Unsent(_)) => Err(Failure::Reset),
        }
    }
}

fn request(
    due: &DueDelivery,
    url: &Url,
    keys: &SigningKeys,
    at: Timestamp,
) -> Option<Request<Full<bytes::Bytes>>> {
    let id = if crate::mutant::shows("id-per-attempt") {
        format!("{}_{}", due.id.webhook_id(), due.attempt)
    } else {
        due.id.webhook_id()
    };
    let signature = keys.sign(&id, at, &due.body);
    let own = due.caller_secret.as_ref().map(|secret| secret.sign(due.id.run, at, &due.body));
    let authority = &url[Position::BeforeHost..Position::AfterPort];
    let mut request = Request::post(&url[Position::BeforePath..])
        .header(HOST, authority)
        .header(CONTENT_TYPE, JSON)
        .header(USER_AGENT, AGENT)
        .header(ID_HEADER, id)
        .header(TIMESTAMP_HEADER, at.as_secs())
        .header(SIGNATURE_HEADER, signature);
    if let Some(own) = own {
        request = request
            .header(CEREBRIUM_ID_HEADER, due.id.run.encode(&mut [0; 36]))
            .header(CEREBRIUM_TIMESTAMP_HEADER, at.as_secs())
            .header(CEREBRIUM_SIGNATURE_HEADER, own);
    }
    let mut request = request.body(Full::new(due.body.clone())).ok()?;
    for (name, value) in due.headers.iter().flat_map(WebhookHeaders::iter) {
        let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        if let (Ok(name), Ok(mut value)) = header {
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
    }
    Some(request)
}
