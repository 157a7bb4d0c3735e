//! Where the result goes: to the caller, to a webhook, or both.

use std::borrow::Cow;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName};
use queue::app::{AppConfig, Function};
use queue::limits::{CALLER_SECRET_BYTES_MAX, WEBHOOK_URL_BYTES_MAX, WEBHOOKS_PER_RUN_MAX};
use queue::run::{EndpointUrl, Generation};
use queue::signature::{CALLER_SECRET_HEADER, CallerSecret};
use queue::webhook::{self, EventFilter, Metadata, Schedule, WebhookHeaders};

use super::Form;
use crate::Gateway;
use crate::problem::{Answer, Problem, clip};
use crate::scan::{Said, WEBHOOK_ENDPOINT, WEBHOOK_EVENTS, WEBHOOK_METADATA, WebhookField};

/// Headers that deliveries carry beside ours: a JSON object.
const HEADERS_HEADER: HeaderName = HeaderName::from_static("x-webhook-headers");
/// What endpoints are told: words.
const EVENTS_HEADER: HeaderName = HeaderName::from_static("x-webhook-events-filter");
const EVENTS_PARAMETER: &str = "webhookEventsFilter";
/// When deliveries are tried again: waits.
const SCHEDULE_HEADER: HeaderName = HeaderName::from_static("x-webhook-schedule");
/// What is told back: a JSON object.
const METADATA_HEADER: HeaderName = HeaderName::from_static("x-metadata");

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Plan {
    /// The answer, now.
    Wait(Told),
    /// The answer now, and the same to these endpoints.
    WaitAndTell(Told),
    /// A run id now, the result to these endpoints.
    Acknowledge(Told),
}

/// Checked endpoints, and all that goes with them.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) endpoints: Vec<EndpointUrl>,
    /// The body named them as a list.
    pub(crate) listed: bool,
    /// They are those of the app: the request named none.
    pub(crate) of_app: bool,
    /// What the caller should know about them.
    pub(crate) warning: Option<String>,
    /// The caller's own, for the deliveries.
    pub(crate) secret: Option<CallerSecret>,
    pub(crate) headers: Option<WebhookHeaders>,
    pub(crate) events: EventFilter,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) metadata: Option<Metadata>,
}

/// What a request says about its webhooks, in all its places.
#[derive(Debug)]
pub(crate) struct Asked<'r> {
    pub(crate) query: Query<'r>,
    pub(crate) body: InBody<'r>,
    pub(crate) brought: Brought,
}

/// The query parameters of v4.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'q> {
    asynchronous: bool,
    webhooks: Vec<Cow<'q, str>>,
    events: Option<EventFilter>,
}

impl<'q> Query<'q> {
    /// Whether it asks for a run that is kept.
    pub(crate) fn is_asked(&self) -> bool {
        self.asynchronous || !self.webhooks.is_empty()
    }

    /// Reads the query of a v4 path; older paths have none.
    pub(crate) fn read(form: Form, query: Option<&'q str>) -> Answer<Self> {
        let mut read = Self::default();
        let (Generation::V4, Some(query)) = (form.generation(), query) else { return Ok(read) };
        let mut async_seen = false;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "async" if async_seen => return Err(doubled("async")),
                "async" => {
                    async_seen = true;
                    read.asynchronous = switch(&value)?;
                }
                "webhookEndpoint" => read.webhooks.push(value),
                EVENTS_PARAMETER if read.events.is_some() => return Err(doubled(EVENTS_PARAMETER)),
                EVENTS_PARAMETER => read.events = Some(events(EVENTS_PARAMETER, value.split(','))?),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// The keys of the body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InBody<'b> {
    endpoints: Vec<Cow<'b, str>>,
    listed: bool,
    events: Option<EventFilter>,
    metadata: Option<Metadata>,
}

impl<'b> InBody<'b> {
    /// Reads them where the body is the place for them: on v4 a key belongs to a function that declares a
    /// parameter of that name.
    pub(crate) fn read(form: Form, function: &Function, said: Said<'b>) -> Answer<Self> {
        let ours = |name| {
            form.generation() != Generation::V4
                || !function.parameters.iter().any(|parameter| parameter.name == name)
        };
        let mut read = Self::default();
        match said.endpoint {
            _ if !ours(WEBHOOK_ENDPOINT) => {}
            WebhookField::Absent => {}
            WebhookField::Address(address) => read.endpoints.push(address),
            WebhookField::List(json) => {
                let addresses: Vec<String> =
                    serde_json::from_str(json).map_err(|_| not_addresses("a list"))?;
                if addresses.is_empty() {
                    return Err(not_addresses("an empty list"));
                }
                read.endpoints.extend(addresses.into_iter().map(Cow::Owned));
                read.listed = true;
            }
            WebhookField::NotText(found) => return Err(not_addresses(found)),
        }
        if let Some(json) = said.events.filter(|_| ours(WEBHOOK_EVENTS)) {
            let words: Vec<String> = serde_json::from_str(json).map_err(|_| {
                Problem::unprocessable(
                    "webhook_events_filter",
                    format!("`{WEBHOOK_EVENTS}` is a list of texts such as [\"start\",\"completed\"]"),
                )
            })?;
            read.events = Some(events(WEBHOOK_EVENTS, words.iter().map(String::as_str))?);
        }
        if let Some(json) = said.metadata.filter(|_| ours(WEBHOOK_METADATA)) {
            read.metadata = Some(
                Metadata::parse(json).map_err(|why| refused("webhook_metadata", WEBHOOK_METADATA, &why))?,
            );
        }
        Ok(read)
    }
}

fn not_addresses(found: &str) -> Problem {
    Problem::unprocessable(
        "webhook_endpoint",
        format!(
            "`webhook_endpoint` is {found}; send an address as a string, or a list of such, or leave the key out"
        ),
    )
}

/// What the request's headers say.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    secret: Option<CallerSecret>,
    headers: Option<WebhookHeaders>,
    events: Option<EventFilter>,
    schedule: Option<Schedule>,
    metadata: Option<Metadata>,
}

impl Brought {
    /// Reads them.
    pub(crate) fn read(headers: &HeaderMap) -> Answer<Self> {
        let mut read = Self { secret: secret(headers)?, ..Self::default() };
        if let Some(text) = text(headers, &HEADERS_HEADER, "X-Webhook-Headers")? {
            let headers = WebhookHeaders::parse(text);
            read.headers =
                Some(headers.map_err(|why| refused("webhook_headers", "X-Webhook-Headers", &why))?);
        }
        if let Some(text) = text(headers, &EVENTS_HEADER, "X-Webhook-Events-Filter")? {
            read.events = Some(events("X-Webhook-Events-Filter", text.split(','))?);
        }
        if let Some(text) = text(headers, &SCHEDULE_HEADER, "X-Webhook-Schedule")? {
            let schedule = text.parse();
            read.schedule =
                Some(schedule.map_err(|why| refused("webhook_schedule", "X-Webhook-Schedule", &why))?);
        }
        if let Some(text) = text(headers, &METADATA_HEADER, "X-Metadata")? {
            read.metadata =
                Some(Metadata::parse(text).map_err(|why| refused("metadata", "X-Metadata", &why))?);
        }
        Ok(read)
    }
}

/// The text of a header that may stand there once.
fn text<'h>(headers: &'h HeaderMap, header: &HeaderName, name: &str) -> Answer<Option<&'h str>> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let message = format!("the request has `{name}` twice; send it once");
        return Err(Problem::bad_request("duplicate_header", message));
    }
    std::str::from_utf8(value.as_bytes())
        .map(Some)
        .map_err(|_| Problem::bad_request("invalid_header", format!("`{name}` is not UTF-8")))
}

fn events<'w>(place: &str, words: impl IntoIterator<Item = &'w str>) -> Answer<EventFilter> {
    EventFilter::parse(words.into_iter().map(str::trim))
        .map_err(|why| refused("webhook_events_filter", place, &why))
}

fn refused(code: &'static str, place: &str, why: &webhook::Invalid) -> Problem {
    Problem::unprocessable(code, format!("`{place}` {why}"))
}

fn switch(value: &str) -> Answer<bool> {
    if value.eq_ignore_ascii_case("true") || value == "1" {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") || value == "0" || value.is_empty() {
        Ok(false)
    } else {
        Err(Problem::unprocessable(
            "invalid_parameter",
            format!("`async` is `true` or `false`, not `{}`", clip(value)),
        ))
    }
}

fn doubled(name: &str) -> Problem {
    Problem::bad_request("duplicate_parameter", format!("the query has `{name}` twice; send it once"))
}

/// The secret that a call brings for its deliveries.
fn secret(headers: &HeaderMap) -> Answer<Option<CallerSecret>> {
    let mut secrets = headers.get_all(CALLER_SECRET_HEADER).iter();
    let Some(secret) = secrets.next() else { return Ok(None) };
    if secrets.next().is_some() {
        let message = "the request has `X-Webhook-Secret` twice; send it once";
        return Err(Problem::bad_request("duplicate_header", message));
    }
    if !(1..=CALLER_SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(Problem::unprocessable(
            "webhook_secret",
            format!("`X-Webhook-Secret` is 1 to {CALLER_SECRET_BYTES_MAX} bytes; make it long and random"),
        ));
    }
    Ok(Some(CallerSecret::new(secret.as_bytes())))
}

/// Checks the addresses and says what to do.
pub(crate) async fn plan(
    gateway: &Gateway,
    form: Form,
    config: &AppConfig,
    asked: Asked<'_>,
) -> Answer<Plan> {
    let Asked { query, body, brought } = asked;
    let acknowledge = !body.endpoints.is_empty() || query.asynchronous;
    let mut told = Told { metadata: brought.metadata.or(body.metadata), ..Told::default() };
    let named = body.endpoints.len() + query.webhooks.len();
    if named > WEBHOOKS_PER_RUN_MAX {
        let message = format!(
            "the request names {named} webhook endpoints; a run tells {WEBHOOKS_PER_RUN_MAX} at most"
        );
        return Err(Problem::unprocessable("too_many_webhooks", message));
    }
    if named == 0 {
        if !query.asynchronous || config.webhook_endpoints.is_empty() {
            return Ok(if acknowledge { Plan::Acknowledge(told) } else { Plan::Wait(told) });
        }
        // They were checked when the app was deployed, and are again at each connect.
        told.endpoints = config.webhook_endpoints.iter().map(|url| EndpointUrl::checked(url)).collect();
        told.of_app = true;
    } else {
        told.listed = body.listed;
        let in_body = body.endpoints.iter().map(|address| (address, WEBHOOK_ENDPOINT));
        let in_query = query.webhooks.iter().map(|address| (address, "webhookEndpoint"));
        // Side by side: each may take as long as a resolver is waited for.
        let checks = in_body.chain(in_query).map(|(address, field)| check(gateway, address, field));
        for admitted in join_all(checks).await {
            let admitted = admitted?;
            if !told.endpoints.contains(&admitted.url) {
                told.endpoints.push(admitted.url);
                told.warning = told.warning.or(admitted.warning);
            }
        }
    }
    told.secret = brought.secret;
    told.headers = match (brought.headers, &config.webhook_headers) {
        (Some(own), Some(of_app)) => Some(own.over(of_app)),
        (own, of_app) => own.or_else(|| of_app.clone()),
    };
    let filter = brought.events.or(query.events).or(body.events).or(config.webhook_events_filter);
    told.events = filter.unwrap_or_default();
    told.schedule = brought.schedule.or_else(|| config.webhook_schedule.clone());
    debug_assert!(
        acknowledge || form.generation() == Generation::V4,
        "older paths wait only without a webhook"
    );
    Ok(if acknowledge { Plan::Acknowledge(told) } else { Plan::WaitAndTell(told) })
}

async fn check(gateway: &Gateway, address: &str, field: &str) -> Answer<queue::port::Admitted> {
    if address.len() > WEBHOOK_URL_BYTES_MAX {
        return Err(Problem::unprocessable(
            "too_long",
            format!("`{field}` is longer than {WEBHOOK_URL_BYTES_MAX} bytes"),
        ));
    }
    let refused = |refused: queue::port::AddressRefused| {
        Problem::unprocessable(refused.rule, format!("`{field}` is refused: {}", refused.message))
    };
    gateway.guard.check(address).await.map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Answer<Query<'_>> {
        Query::read(Form::V4, Some(query))
    }

    #[test]
    fn the_query_counts_on_v4_only() {
        let query = "async=true&webhookEndpoint=https%3A%2F%2Fa%2F%3Fx%3D1&other=2";
        assert_eq!(
            read(query).unwrap(),
            Query { asynchronous: true, webhooks: vec!["https://a/?x=1".into()], events: None }
        );
        assert_eq!(Query::read(Form::V3, Some(query)).unwrap(), Query::default());
    }

    #[test]
    fn a_secret_is_taken_as_it_is_or_refused() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CALLER_SECRET_HEADER, http::HeaderValue::from_bytes(value).unwrap());
            }
            secret(&headers)
        };
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[b"a b\xff"]).unwrap(), Some(CallerSecret::new(b"a b\xff")));
        assert_eq!(read(&[b"a", b"b"]).unwrap_err().status.as_u16(), 400);
        for refused in [b"".as_slice(), &[b'x'; CALLER_SECRET_BYTES_MAX + 1]] {
            assert_eq!(read(&[refused]).unwrap_err().status.as_u16(), 422);
        }
    }

    #[test]
    fn async_is_what_clients_of_many_languages_write() {
        for yes in ["true", "True", "1"] {
            assert!(read(&format!("async={yes}")).unwrap().asynchronous);
        }
        for no in ["false", "False", "0", ""] {
            assert!(!read(&format!("async={no}")).unwrap().asynchronous);
        }
        assert_eq!(read("async=maybe").unwrap_err().status.as_u16(), 422);
        assert_eq!(read("async=1&async=0").unwrap_err().status.as_u16(), 400);
        assert_eq!(read("webhookEndpoint=a&webhookEndpoint=b").unwrap().webhooks, ["a", "b"]);
        let filter = read("webhookEventsFilter=start,%20completed").unwrap().events.unwrap();
        assert_eq!(filter.to_string(), "start,completed");
        assert_eq!(read("webhookEventsFilter=end").unwrap_err().status.as_u16(), 422);
        assert_eq!(
            read("webhookEventsFilter=start&webhookEventsFilter=logs").unwrap_err().status.as_u16(),
            400
        );
    }
}
