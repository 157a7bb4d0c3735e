//! Where the result goes: to the caller, to a webhook, or both.

use std::borrow::Cow;

use http::HeaderMap;
use queue::app::Function;
use queue::limits::{CALLER_SECRET_BYTES_MAX, WEBHOOK_URL_BYTES_MAX};
use queue::run::{EndpointUrl, Generation};
use queue::signature::{CALLER_SECRET_HEADER, CallerSecret};

use super::Form;
use crate::Gateway;
use crate::problem::{Answer, Problem, clip};
use crate::scan::{WEBHOOK_ENDPOINT, WebhookField};

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Plan {
    /// The answer, now.
    Wait,
    /// The answer now, and the same to these endpoints.
    WaitAndTell(Told),
    /// A run id now, the result to these endpoints.
    Acknowledge(Told),
}

/// Checked endpoints, and what the caller should know about them.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) endpoints: Vec<EndpointUrl>,
    pub(crate) warning: Option<String>,
    /// The caller's own, for the deliveries.
    pub(crate) secret: Option<CallerSecret>,
}

/// The query parameters of v4.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'q> {
    asynchronous: bool,
    webhook: Option<Cow<'q, str>>,
}

impl<'q> Query<'q> {
    /// Reads the query of a v4 path; older paths have none.
    pub(crate) fn read(form: Form, query: Option<&'q str>) -> Answer<Self> {
        let mut read = Self::default();
        let (Form::V4, Some(query)) = (form, query) else { return Ok(read) };
        let mut async_seen = false;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "async" if async_seen => return Err(doubled("async")),
                "async" => {
                    async_seen = true;
                    read.asynchronous = switch(&value)?;
                }
                "webhookEndpoint" if read.webhook.is_some() => return Err(doubled("webhookEndpoint")),
                "webhookEndpoint" => read.webhook = Some(value),
                _ => {}
            }
        }
        Ok(read)
    }
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

/// The address in the body, where the body is the place for it: on v4 the key belongs to a function
/// that declares a parameter of that name.
pub(crate) fn in_body<'b>(
    form: Form,
    function: &Function,
    field: WebhookField<'b>,
) -> Answer<Option<Cow<'b, str>>> {
    let declared = || function.parameters.iter().any(|parameter| parameter.name == WEBHOOK_ENDPOINT);
    if form.generation() == Generation::V4 && declared() {
        return Ok(None);
    }
    match field {
        WebhookField::Absent => Ok(None),
        WebhookField::Address(address) => Ok(Some(address)),
        WebhookField::NotText(found) => Err(Problem::unprocessable(
            "webhook_endpoint",
            format!("`webhook_endpoint` is {found}; send the address as a string, or leave the key out"),
        )),
    }
}

/// The secret that a call brings for its deliveries.
pub(crate) fn secret(headers: &HeaderMap) -> Answer<Option<CallerSecret>> {
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
    body: Option<Cow<'_, str>>,
    query: Query<'_>,
    secret: Option<CallerSecret>,
) -> Answer<Plan> {
    let acknowledge = body.is_some() || query.asynchronous;
    if body.is_none() && query.webhook.is_none() {
        return Ok(if acknowledge { Plan::Acknowledge(Told::default()) } else { Plan::Wait });
    }
    let mut told = Told { secret, ..Told::default() };
    for (address, field) in [(body, WEBHOOK_ENDPOINT), (query.webhook, "webhookEndpoint")] {
        let Some(address) = address else { continue };
        let admitted = check(gateway, &address, field).await?;
        if !told.endpoints.contains(&admitted.url) {
            told.endpoints.push(admitted.url);
            told.warning = told.warning.or(admitted.warning);
        }
    }
    debug_assert!(acknowledge || form == Form::V4, "older paths wait only without a webhook");
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
            Query { asynchronous: true, webhook: Some("https://a/?x=1".into()) }
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
        assert_eq!(read("webhookEndpoint=a&webhookEndpoint=b").unwrap_err().status.as_u16(), 400);
    }
}
