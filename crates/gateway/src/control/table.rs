//! The one table of control routes.

use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use super::{
    apps, builds, deliveries, endpoints, events, hardware, inboxes, keys, logs, openapi, projects, recorded,
    results, runs, secrets,
};
use crate::Gateway;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Holders of the private key or of a service-account token.
    PrivateKey,
    /// Holders of any key of the project.
    AnyKey,
    /// Holders of the token in the upload address.
    UploadToken,
    /// Holders of a signed link.
    Link,
    /// Everybody.
    Anybody,
}

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) who: Who,
    /// Query parameters it reads, with what they do.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// What it does, in one line.
    pub(super) summary: &'static str,
    /// What a 200 carries, in one line.
    pub(super) answer: &'static str,
    on: fn(MethodFilter) -> MethodRouter<Gateway>,
}

impl Route {
    /// Its handler, answering its method only.
    pub(super) fn handler(&self) -> MethodRouter<Gateway> {
        let filter = MethodFilter::try_from(self.method.clone()).expect("the table holds standard methods");
        (self.on)(filter)
    }
}

const LOG_QUERY: &[(&str, &str)] = &[
    ("afterDate", "only lines printed after this moment (RFC 3339)"),
    ("beforeDate", "only lines printed before this moment (RFC 3339)"),
    ("nextToken", "goes on after the page that gave it as `nextPageToken`"),
    ("pageSize", "lines at most, 1 to 1000"),
    (
        "direction",
        "`forward`: oldest first, with pages; `backward`: newest first; else the newest lines, oldest first",
    ),
    ("runId", "only lines of this run"),
    ("stream", "`stdout`, `stderr` or `system`"),
    ("search", "only lines that contain this text, whatever the case"),
    ("container", "only lines of this replica"),
];

const RUN_LIST_QUERY: &[(&str, &str)] = &[
    ("app", "only runs of this app, by id or name"),
    ("state", "only runs in this state"),
    ("since", "only runs accepted at this moment or later (RFC 3339)"),
    ("until", "only runs accepted before this moment (RFC 3339)"),
    (
        "text",
        "only runs that say this in id, function, error, warning, metadata or result, whatever the case",
    ),
    ("metadata", "only runs with this value in their metadata, as `key=value`; may be given several times"),
    ("asyncOnly", "`true`: only asynchronous runs"),
    ("limit", "runs at most, 1 to 1000"),
    ("nextToken", "goes on after the page that gave it; a search may give one with a page that is not full"),
];

const SECRETS_QUERY: &[(&str, &str)] =
    &[("merge", "`true`: secrets that are not named stay, and `null` removes one; else they are removed")];

/// Every route of the control plane.
pub(super) static ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/v2/projects",
        who: Who::PrivateKey,
        query: &[],
        summary: "the key's project",
        answer: "`[{id, name}]`",
        on: |method| on(method, projects::list),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/hardware",
        who: Who::PrivateKey,
        query: &[],
        summary: "the GPUs of the server, and which of them the project's replicas have",
        answer: "`{gpus: [{id, name, compute, memoryBytes, inUse, appId}], cpuFallback}`",
        on: |method| on(method, hardware::list),
    },
    Route {
        method: Method::GET,
        path: "/v2/notifications",
        who: Who::PrivateKey,
        query: &[],
        summary: "what the makers of the server want to tell: nothing, ever",
        answer: "`[]`",
        on: |method| on(method, projects::notifications),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/apps",
        who: Who::PrivateKey,
        query: &[],
        summary: "registers an app, if it is new, and a build of it",
        answer: "`{buildId, appId, status, uploadUrl, keyName, internalEndpoint, dashboardUrl, warnings}`",
        on: |method| on(method, apps::create),
    },
    Route {
        method: Method::PUT,
        path: "/uploads/{build}",
        who: Who::UploadToken,
        query: &[("token", "as in `uploadUrl`")],
        summary: "receives a build's zip archive and starts the build",
        answer: "`{}`",
        on: |method| on(method, builds::upload),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps",
        who: Who::PrivateKey,
        query: &[],
        summary: "the project's apps",
        answer: "`[{id, name, status, createdAt, updatedAt, …}]`",
        on: |method| on(method, apps::list),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}",
        who: Who::PrivateKey,
        query: &[],
        summary: "one app: configuration, functions, endpoints, builds, replicas",
        answer: "`{id, status, functions, liveBuildId, latestBuildId, replicas, …}`",
        on: |method| on(method, apps::show),
    },
    Route {
        method: Method::PATCH,
        path: "/v2/projects/{project}/apps/{app}",
        who: Who::PrivateKey,
        query: &[],
        summary: "changes the scaling of the live build",
        answer: "the app",
        on: |method| on(method, apps::scale),
    },
    Route {
        method: Method::DELETE,
        path: "/v2/projects/{project}/apps/{app}",
        who: Who::PrivateKey,
        query: &[],
        summary: "deletes an app and its builds; its queued runs end as `cancelled`",
        answer: "`{message}`",
        on: |method| on(method, apps::delete),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/builds",
        who: Who::PrivateKey,
        query: &[],
        summary: "the builds of an app, newest first; it can go back to those that are `kept`",
        answer: "`{items: [{id, appId, status, createdAt, updatedAt, live, kept}]}`",
        on: |method| on(method, builds::list),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/apps/{app}/rollback",
        who: Who::PrivateKey,
        query: &[],
        summary: "makes the build before the live one live again, or the one named as `buildId`; answers once it is",
        answer: "`{liveBuildId, formerBuildId, message}`",
        on: |method| on(method, builds::roll_back),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/builds/{build}",
        who: Who::PrivateKey,
        query: &[],
        summary: "where a build stands",
        answer: "`{id, status, createdAt, updatedAt}`",
        on: |method| on(method, builds::show),
    },
    Route {
        method: Method::DELETE,
        path: "/v2/projects/{project}/apps/{app}/builds/{build}",
        who: Who::PrivateKey,
        query: &[],
        summary: "cancels a build that is not final",
        answer: "`{id, status, createdAt, updatedAt}`",
        on: |method| on(method, builds::cancel),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/builds/{build}/logs",
        who: Who::PrivateKey,
        query: &[(
            "after",
            "only lines after this cursor; without it the whole log, at most its newest 5,000 lines",
        )],
        summary: "a build's log and status",
        answer: "`{status, logs: [{id, createdAt, log, stream}], nextToken}`",
        on: |method| on(method, builds::logs),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/logs",
        who: Who::PrivateKey,
        query: LOG_QUERY,
        summary: "what an app's replicas printed",
        answer: "`{logs: [{logId, timestamp, stream, logLine, runId, containerId, …}], nextPageToken, hasMore}`",
        on: |method| on(method, logs::of_app),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/events",
        who: Who::PrivateKey,
        query: &[
            ("after", "only events after this cursor, as `nextToken` of the page before gave it"),
            ("limit", "events at most, 1 to 1000; without `after` the newest"),
        ],
        summary: "what happened to an app, and why: scaling, deploys, starts that failed, replicas that died",
        answer: "`{items: [{id, at, kind, text, buildId}], nextToken}`, oldest first",
        on: |method| on(method, events::list),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/runs",
        who: Who::PrivateKey,
        query: RUN_LIST_QUERY,
        summary: "an app's runs, newest first, in the words of Cerebrium's clients",
        answer: "`{items: [{id, functionName, status, statusCode, createdAt, …}], nextToken}`",
        on: |method| on(method, runs::list_of_app),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/runs/{run}",
        who: Who::PrivateKey,
        query: &[],
        summary: "one of an app's runs, in the words of Cerebrium's clients",
        answer: "`{item: {id, status, …}}`",
        on: |method| on(method, runs::show_of_app),
    },
    Route {
        method: Method::DELETE,
        path: "/v2/projects/{project}/apps/{app}/runs/{run}",
        who: Who::PrivateKey,
        query: &[],
        summary: "cancels one of an app's runs, in any state",
        answer: "the run, now `cancelled`; 202 when it has not let go yet, 409 when it had ended otherwise",
        on: |method| on(method, runs::cancel),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/runs",
        who: Who::PrivateKey,
        query: RUN_LIST_QUERY,
        summary: "the project's runs, newest first",
        answer: "`{items: [{id, appId, functionName, state, …}], nextToken}`",
        on: |method| on(method, runs::list),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/runs/{run}",
        who: Who::AnyKey,
        query: &[("wait", "seconds to wait for the end of the run, up to 60")],
        summary: "one run: state, result, error, timings, attempts, deliveries",
        answer: "`{id, state, result, statusCode, error, acceptedAt, …, attempts, deliveries, warning}`",
        on: |method| on(method, runs::show),
    },
    Route {
        method: Method::DELETE,
        path: "/v2/projects/{project}/runs/{run}",
        who: Who::PrivateKey,
        query: &[],
        summary: "cancels a run, in any state",
        answer: "the run, now `cancelled`; 202 when it has not let go yet, 409 when it had ended otherwise",
        on: |method| on(method, runs::cancel),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/runs/{run}/result",
        who: Who::Link,
        query: &[("expires", "as in the link"), ("signature", "as in the link")],
        summary: "a run's result, for whoever holds the `result_url` of a thin webhook body",
        answer: "the model's own JSON; 410 when the link is too old or the result gone",
        on: |method| on(method, results::show),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/runs/{run}/logs",
        who: Who::PrivateKey,
        query: LOG_QUERY,
        summary: "what a run printed",
        answer: "as the app's logs",
        on: |method| on(method, logs::of_run),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/deliveries",
        who: Who::PrivateKey,
        query: &[
            ("state", "only deliveries in this state"),
            ("endpoint", "only deliveries to this address"),
            ("receiver", "only deliveries to this origin"),
            ("limit", "deliveries at most, 1 to 1000"),
            ("nextToken", "goes on after the page that gave it"),
        ],
        summary: "the project's deliveries, newest run first, each with its last attempt",
        answer: "`{items: [{id, runId, url, state, nextAttemptAt, attempts}], nextToken}`",
        on: |method| on(method, deliveries::list),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/deliveries/redeliver",
        who: Who::PrivateKey,
        query: &[],
        summary: "makes all deliveries to an `endpoint` or a `receiver` that failed `since` a time once more",
        answer: "`{redelivered}`",
        on: |method| on(method, deliveries::redeliver_failed),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/deliveries/{delivery}",
        who: Who::PrivateKey,
        query: &[],
        summary: "one delivery with all its attempts",
        answer: "`{id, runId, url, state, nextAttemptAt, attempts}`",
        on: |method| on(method, deliveries::show),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/deliveries/{delivery}/redeliver",
        who: Who::PrivateKey,
        query: &[],
        summary: "makes a delivery once more: the same id and body, a fresh timestamp and signature",
        answer: "the delivery",
        on: |method| on(method, deliveries::redeliver),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/endpoints",
        who: Who::PrivateKey,
        query: &[],
        summary: "the project's webhook endpoints: those disabled or set once, and those its newest deliveries went to",
        answer: "`{items: [{id, url, state, since, reason, waiting, bodyBytesMax, events, figures}]}`",
        on: |method| on(method, endpoints::list),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/endpoints/{endpoint}",
        who: Who::PrivateKey,
        query: &[],
        summary: "one of them",
        answer: "`{id, url, state, since, reason, waiting, bodyBytesMax, events, figures, receiver}`",
        on: |method| on(method, endpoints::show),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/endpoints",
        who: Who::PrivateKey,
        query: &[],
        summary: "sets what the endpoint at `url` takes: bodies above `bodyBytesMax` become thin; without it, none",
        answer: "the endpoint",
        on: |method| on(method, endpoints::set),
    },
    Route {
        method: Method::PATCH,
        path: "/v2/projects/{project}/endpoints/{endpoint}",
        who: Who::PrivateKey,
        query: &[],
        summary: "the same for one of them",
        answer: "the endpoint",
        on: |method| on(method, endpoints::patch),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/endpoints/test",
        who: Who::PrivateKey,
        query: &[],
        summary: "has the endpoint at `url` told a test event: a signed webhook, tried once",
        answer: "202 `{runId, deliveryId}`: what came of it stands with the run",
        on: |method| on(method, endpoints::test_address),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/endpoints/{endpoint}/test",
        who: Who::PrivateKey,
        query: &[],
        summary: "the same for one of them",
        answer: "202 `{runId, deliveryId}`",
        on: |method| on(method, endpoints::test),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/endpoints/{endpoint}/disable",
        who: Who::PrivateKey,
        query: &[],
        summary: "disables an endpoint: what is due there waits for the enabling",
        answer: "`{wasDisabled}`",
        on: |method| on(method, endpoints::disable),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/endpoints/{endpoint}/enable",
        who: Who::PrivateKey,
        query: &[],
        summary: "enables an endpoint and delivers what waits for it",
        answer: "`{replayed, wasDisabled}`",
        on: |method| on(method, endpoints::enable),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/inboxes",
        who: Who::PrivateKey,
        query: &[],
        summary: "makes an inbox: an address that records what is sent to it; with `name`, `expiresAt` or `expiresInSeconds`, and `reply`",
        answer: "`{id, url, pageUrl, createdAt, name, expiresAt, reply}`",
        on: |method| on(method, inboxes::create),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/inboxes",
        who: Who::PrivateKey,
        query: &[],
        summary: "the project's inboxes, newest first",
        answer: "`{items: [{id, url, pageUrl, createdAt, name, expiresAt, reply}]}`",
        on: |method| on(method, inboxes::list),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/inboxes/{inbox}",
        who: Who::PrivateKey,
        query: &[],
        summary: "one inbox",
        answer: "`{id, url, pageUrl, createdAt, name, expiresAt, reply}`",
        on: |method| on(method, inboxes::show),
    },
    Route {
        method: Method::PATCH,
        path: "/v2/projects/{project}/inboxes/{inbox}",
        who: Who::PrivateKey,
        query: &[],
        summary: "sets `name`, `expiresAt` or `expiresInSeconds`, and `reply` of an inbox; null takes one away",
        answer: "the inbox",
        on: |method| on(method, inboxes::patch),
    },
    Route {
        method: Method::DELETE,
        path: "/v2/projects/{project}/inboxes/{inbox}",
        who: Who::PrivateKey,
        query: &[],
        summary: "ends an inbox, with all that it recorded",
        answer: "`{}`",
        on: |method| on(method, inboxes::delete),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/inboxes/{inbox}/share",
        who: Who::PrivateKey,
        query: &[],
        summary: "gives an inbox's page a new address; the old one and its links open nothing any more",
        answer: "the inbox",
        on: |method| on(method, inboxes::share),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/inboxes/{inbox}/links",
        who: Who::PrivateKey,
        query: &[],
        summary: "makes a link to an inbox's page that ends by itself: `expiresInSeconds`, up to 7 days",
        answer: "`{pageUrl, expiresAt}`",
        on: |method| on(method, inboxes::link),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/inboxes/{inbox}/requests",
        who: Who::PrivateKey,
        query: &[
            ("after", "only requests after this cursor"),
            ("limit", "requests at most, 1 to 1000"),
            ("wait", "seconds to wait for a first request, up to 60"),
        ],
        summary: "what an inbox recorded, oldest first",
        answer: "`{items: [{id, sequence, method, path, headers, body, bodyEncoding, receivedAt, signature}], nextToken}`",
        on: |method| on(method, recorded::requests),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/inboxes/{inbox}/requests/{request}/replay",
        who: Who::PrivateKey,
        query: &[],
        summary: "sends a recorded request once more, to `url`: the same method, headers and body",
        answer: "`{url, statusCode, headers, response, reason, durationMs, timings}`",
        on: |method| on(method, recorded::replay),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/keys",
        who: Who::PrivateKey,
        query: &[],
        summary: "the project's named keys, and what its deliveries are signed with, newest first",
        answer: "`{projectId, webhookSecrets: [{secret, createdAt, expiresAt}], v1a, webhookPublicKeys: [{publicKey, createdAt, expiresAt}], keys: [{id, name, scope, createdAt, expiresAt, lastUsedAt}]}`",
        on: |method| on(method, keys::show),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/keys",
        who: Who::PrivateKey,
        query: &[],
        summary: "makes a further key: `name`, `scope` (`inference` or `everything`), `expiresAt`",
        answer: "the key, this once: `{key, id, name, scope, createdAt, expiresAt, lastUsedAt}`",
        on: |method| on(method, keys::create),
    },
    Route {
        method: Method::DELETE,
        path: "/v2/projects/{project}/keys/{key}",
        who: Who::PrivateKey,
        query: &[],
        summary: "revokes one of them: whoever holds it is refused at once",
        answer: "`{message}`",
        on: |method| on(method, keys::revoke),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/keys/rotate",
        who: Who::PrivateKey,
        query: &[],
        summary: "replaces `keys`; a replaced signing secret goes on for `overlapSeconds`",
        answer: "the new ones, this once: `{publicKey, privateKey, serviceAccountToken, webhookSecret, webhookPublicKey}`",
        on: |method| on(method, keys::rotate),
    },
    Route {
        method: Method::PUT,
        path: "/v2/projects/{project}/keys/signing",
        who: Who::PrivateKey,
        query: &[],
        summary: "switches the Ed25519 signature of deliveries: `{v1a}`",
        answer: "as `GET …/keys`",
        on: |method| on(method, keys::sign),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/secrets",
        who: Who::PrivateKey,
        query: &[],
        summary: "the names of the project's secrets",
        answer: "`{NAME: \"********\"}`: values are never shown",
        on: |method| on(method, secrets::of_project),
    },
    Route {
        method: Method::PATCH,
        path: "/v2/projects/{project}/secrets",
        who: Who::PrivateKey,
        query: SECRETS_QUERY,
        summary: "sets the project's secrets: `{NAME: \"value\"}`; `********` stands for the value that is there",
        answer: "as `GET`",
        on: |method| on(method, secrets::change_of_project),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/apps/{app}/secrets",
        who: Who::PrivateKey,
        query: &[],
        summary: "the names of the secrets of an app, which go over the project's",
        answer: "`{NAME: \"********\"}`",
        on: |method| on(method, secrets::of_app),
    },
    Route {
        method: Method::PATCH,
        path: "/v2/projects/{project}/apps/{app}/secrets",
        who: Who::PrivateKey,
        query: SECRETS_QUERY,
        summary: "sets the secrets of an app",
        answer: "as `GET`",
        on: |method| on(method, secrets::change_of_app),
    },
    Route {
        method: Method::POST,
        path: "/v2/projects/{project}/apps/{app}/restart",
        who: Who::PrivateKey,
        query: &[],
        summary: "replaces the app's replicas, one first; the old ones finish what they have",
        answer: "`{message}`",
        on: |method| on(method, apps::restart),
    },
    Route {
        method: Method::GET,
        path: "/v2/projects/{project}/webhook-keys",
        who: Who::Anybody,
        query: &[],
        summary: "the public keys that receivers check `v1a` signatures with",
        answer: "a JSON Web Key Set; each key also as `whpk`",
        on: |method| on(method, keys::published),
    },
    Route {
        method: Method::GET,
        path: "/openapi.json",
        who: Who::Anybody,
        query: &[],
        summary: "this API as an OpenAPI document",
        answer: "OpenAPI 3.1",
        on: |method| on(method, openapi::document),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_takes_every_route_of_the_table() {
        let _router = crate::control::routes();
        assert!(ROUTES.iter().all(|route| !route.path.ends_with('/')));
    }

    #[test]
    fn the_api_page_names_every_route() {
        let page = include_str!("../../../../docs/api.md");
        for Route { method, path, .. } in ROUTES {
            let row = format!("| `{method} {path}`");
            assert!(page.contains(&row), "docs/api.md has no row that begins with {row}");
        }
    }
}
