//! Deliveries over HTTP: listed, shown, made once more.

use std::sync::Arc;

use async_trait::async_trait;
use queue::delivery::{
    AttemptEnd, DeliveryFilter, DeliveryState, DeliveryView, DueDelivery, Enabled, EndpointState,
    EndpointView, Endpoints, Redelivered,
};
use queue::port::{Deliveries, Room, Stored};
use queue::run::EndpointUrl;
use queue::{DeliveryId, EndpointId, ProjectId, RunId, Timestamp};
use serde_json::{Value, json};

use crate::fakes::{OTHER_PROJECT, PROJECT, Reply, World, private_key, public_key, send};

const UNASKED: &str = "the gateway makes no attempts";

/// Deliveries are those of the runs in the world.
#[async_trait]
impl Deliveries for World {
    async fn begin(&self, _: Timestamp, _: Room) -> Stored<Vec<DueDelivery>> {
        unreachable!("{UNASKED}")
    }

    fn complete(&self, _: AttemptEnd) {
        unreachable!("{UNASKED}")
    }

    async fn next_due(&self, _: Room) -> Stored<Option<Timestamp>> {
        unreachable!("{UNASKED}")
    }

    async fn delivery(&self, project: &ProjectId, id: DeliveryId) -> Stored<Option<DeliveryView>> {
        let held = self.hold();
        let run = held.runs.get(&id.run).filter(|run| run.app.project() == *project);
        Ok(run.and_then(|run| run.deliveries.get(usize::from(id.index)).cloned()))
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Stored<Vec<DeliveryView>> {
        let held = self.hold();
        let mut found: Vec<_> = held
            .runs
            .values()
            .filter(|run| run.app.project() == filter.project)
            .flat_map(|run| run.deliveries.clone())
            .filter(|delivery| filter.state.is_none_or(|state| delivery.state == state))
            .filter(|delivery| match &filter.endpoints {
                None => true,
                Some(Endpoints::One(url)) => delivery.url == *url,
                Some(Endpoints::Of(receiver)) => delivery.url.receiver() == *receiver,
            })
            .filter(|delivery| filter.after.is_none_or(|after| delivery.id < after.webhook_id()))
            .collect();
        found.sort_by(|a, b| b.id.cmp(&a.id));
        found.truncate(filter.limit);
        Ok(found)
    }

    async fn redeliver(&self, _: &ProjectId, id: DeliveryId) -> Stored<Redelivered> {
        let redelivered = {
            let mut held = self.hold();
            let run = held.runs.get_mut(&id.run).unwrap();
            let delivery = &mut run.deliveries[usize::from(id.index)];
            match delivery.state {
                DeliveryState::Sending => Redelivered::UnderWay,
                DeliveryState::Disabled => Redelivered::EndpointDisabled,
                _ => {
                    delivery.state = DeliveryState::Pending;
                    Redelivered::Due
                }
            }
        };
        self.written().await;
        Ok(redelivered)
    }

    async fn redeliver_failed(&self, _: &ProjectId, which: Endpoints, since: Timestamp) -> Stored<u64> {
        self.hold().told.push(format!("redeliver {which:?} since {since}"));
        self.written().await;
        Ok(2)
    }

    async fn endpoints(&self, project: &ProjectId) -> Stored<Vec<EndpointView>> {
        let at = Timestamp::from_millis(0);
        let (url, state) = (EndpointUrl::checked(HOOK), EndpointState::Disabled);
        let id = EndpointId::of(project, &url);
        Ok(vec![EndpointView {
            id,
            url,
            state,
            since: at,
            reason: "http_status 410".into(),
            waiting: 2,
            body_bytes_max: None,
            events: vec![],
        }])
    }

    async fn set_body_limit(&self, _: &ProjectId, url: EndpointUrl, bytes_max: Option<u64>) -> Stored<bool> {
        self.hold().told.push(format!("{url} takes {bytes_max:?}"));
        Ok(url.as_str() == HOOK)
    }

    async fn disable(&self, project: &ProjectId, url: EndpointUrl) -> Stored<bool> {
        self.written().await;
        assert_eq!((project.as_str(), url.as_str()), (PROJECT, HOOK));
        Ok(true)
    }

    async fn enable(&self, project: &ProjectId, endpoint: &EndpointId) -> Stored<Enabled> {
        self.written().await;
        let is_known = *endpoint == EndpointId::of(project, &EndpointUrl::checked(HOOK));
        Ok(if is_known { Enabled::Replayed(3) } else { Enabled::Unknown })
    }
}

pub(crate) const HOOK: &str = "https://a.example/hook";

/// A run with one delivery in each of these states.
pub(crate) fn told(world: &Arc<World>, project: &str, states: &[DeliveryState]) -> RunId {
    let app = world.live_app(project, "demo", vec![]);
    let mut run = crate::control::a_run(world, &app, queue::run::RunState::Succeeded);
    let deliveries = states.iter().zip(0..).map(|(state, index)| DeliveryView {
        event: queue::webhook::Event::Completed,
        id: DeliveryId::outcome(run.id, index).webhook_id(),
        run_id: run.id,
        url: EndpointUrl::checked(HOOK),
        state: *state,
        next_attempt_at: None,
        attempts: Vec::new(),
    });
    run.deliveries = deliveries.collect();
    let id = run.id;
    world.put_run(run);
    id
}

fn at(rest: &str) -> String {
    format!("/v2/projects/{PROJECT}/deliveries{rest}")
}

async fn ask(world: &Arc<World>, method: &str, path: &str, body: Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(&world.router(), method, path, Some(&private_key(PROJECT)), body).await
}

async fn get(world: &Arc<World>, path: &str) -> Reply {
    ask(world, "GET", path, Value::Null).await
}

#[tokio::test]
async fn deliveries_are_listed_page_by_page_and_narrowed() {
    let world = World::new();
    told(&world, PROJECT, &[DeliveryState::Delivered, DeliveryState::Exhausted]);
    told(&world, OTHER_PROJECT, &[DeliveryState::Exhausted]);
    let first = get(&world, &at("?limit=1")).await.good();
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
    let next = first["nextToken"].as_str().unwrap();
    let second = get(&world, &at(&format!("?limit=1&nextToken={next}"))).await.good();
    assert_ne!(first["items"][0]["id"], second["items"][0]["id"]);
    let last = second["nextToken"].as_str().unwrap();
    assert_eq!(get(&world, &at(&format!("?limit=1&nextToken={last}"))).await.good()["items"], json!([]));

    let given_up = get(&world, &at("?state=exhausted&receiver=https://a.example:443")).await.good();
    assert_eq!(given_up["items"].as_array().unwrap().len(), 1);
    assert_eq!(get(&world, &at("?endpoint=https://a.example/other")).await.good()["items"], json!([]));
    let problem = get(&world, &at("?state=lost")).await.problem(400, "invalid_query");
    assert!(problem.contains("pending, sending, delivered"), "{problem}");
    get(&world, &at("?nextToken=x")).await.problem(400, "invalid_query");
    get(&world, &at("?receiver=a.example")).await.problem(422, "invalid_value");
}

#[tokio::test]
async fn a_delivery_is_shown_and_made_once_more_for_its_own_project_only() {
    let world = World::new();
    let states = [DeliveryState::Delivered, DeliveryState::Sending, DeliveryState::Disabled];
    let run = told(&world, PROJECT, &states);
    let path = |index| at(&format!("/{}", DeliveryId::outcome(run, index).webhook_id()));
    let shown = get(&world, &path(0)).await.good();
    assert_eq!((&shown["runId"], &shown["state"]), (&json!(run.to_string()), &json!("delivered")));

    let again = ask(&world, "POST", &format!("{}/redeliver", path(0)), Value::Null).await.good();
    assert_eq!(again["state"], "pending");
    assert_eq!(world.hold().told, ["wake"]);
    let refused = ask(&world, "POST", &format!("{}/redeliver", path(1)), Value::Null).await;
    refused.problem(409, "under_way");
    let refused = ask(&world, "POST", &format!("{}/redeliver", path(2)), Value::Null).await;
    refused.problem(409, "endpoint_disabled");

    let theirs = told(&world, OTHER_PROJECT, &[DeliveryState::Exhausted]);
    let theirs = DeliveryId::outcome(theirs, 0).webhook_id();
    get(&world, &at(&format!("/{theirs}"))).await.problem(404, "unknown_delivery");
    let refused = ask(&world, "POST", &at(&format!("/{theirs}/redeliver")), Value::Null).await;
    refused.problem(404, "unknown_delivery");
    get(&world, &at("/nonsense")).await.problem(404, "unknown_delivery");
    let key = public_key(PROJECT);
    send(&world.router(), "GET", &path(0), Some(&key), "").await.problem(403, "forbidden");
    assert_eq!(world.hold().told, ["wake"]);
}

#[tokio::test]
async fn all_that_failed_is_made_once_more_from_a_time_on() {
    let world = World::new();
    let path = at("/redeliver");
    let since = "2026-01-31T12:00:00.000Z";
    let body = json!({"receiver": format!("{HOOK}?x=1"), "since": since});
    assert_eq!(ask(&world, "POST", &path, body).await.good(), json!({"redelivered": 2}));
    let told = world.hold().told.clone();
    assert_eq!(told, [format!("redeliver Of(Receiver(\"https://a.example\")) since {since}"), "wake".into()]);
    for body in [
        json!({"since": since}),
        json!({"receiver": HOOK, "endpoint": HOOK, "since": since}),
        json!({"receiver": HOOK}),
        json!({"receiver": HOOK, "since": "yesterday"}),
        json!({"endpoint": "hook", "since": since}),
    ] {
        ask(&world, "POST", &path, body).await.problem(422, "invalid_value");
    }
}

#[tokio::test]
async fn endpoints_are_shown_and_enabled_by_their_own_project() {
    let world = World::new();
    let path = format!("/v2/projects/{PROJECT}/endpoints");
    let list = get(&world, &path).await.good();
    assert_eq!((&list["items"][0]["url"], &list["items"][0]["state"]), (&json!(HOOK), &json!("disabled")));
    let id = list["items"][0]["id"].as_str().unwrap();
    let mut shown = get(&world, &format!("{path}/{id}")).await.good();
    let receiver = shown.as_object_mut().unwrap().remove("receiver").unwrap();
    assert_eq!((&shown, receiver["pausedUntil"].is_null()), (&list["items"][0], true));
    let disabled = ask(&world, "POST", &format!("{path}/{id}/disable"), Value::Null).await.good();
    assert_eq!(disabled, json!({"wasDisabled": false}));
    let test = ask(&world, "POST", &format!("{path}/{id}/test"), Value::Null).await;
    test.problem(409, "endpoint_disabled");
    let enabled = ask(&world, "POST", &format!("{path}/{id}/enable"), Value::Null).await.good();
    assert_eq!(enabled, json!({"replayed": 3, "wasDisabled": true}));
    assert_eq!(world.hold().told, ["wake"]);
    let theirs = EndpointId::of(&OTHER_PROJECT.parse().unwrap(), &EndpointUrl::checked(HOOK));
    for (method, path) in
        [("GET", format!("{path}/{}", theirs.as_str())), ("POST", format!("{path}/ep_0/enable"))]
    {
        ask(&world, method, &path, Value::Null).await.problem(404, "unknown_endpoint");
    }
}

#[tokio::test]
async fn what_an_endpoint_takes_is_set_by_its_address_or_its_id() {
    let world = World::new();
    let path = format!("/v2/projects/{PROJECT}/endpoints");
    let set = ask(&world, "POST", &path, json!({"url": HOOK, "bodyBytesMax": 65_536})).await.good();
    assert_eq!(set["url"], HOOK);
    let one = format!("{path}/{}", set["id"].as_str().unwrap());
    ask(&world, "PATCH", &one, json!({"bodyBytesMax": null})).await.good();
    assert_eq!(world.hold().told, [format!("{HOOK} takes Some(65536)"), format!("{HOOK} takes None")]);
    for body in [
        json!({"bodyBytesMax": 65_536}),
        json!({"url": HOOK, "bodyBytesMax": 10}),
        json!({"url": HOOK, "bodyBytesMax": "many"}),
        // The fake has as many as it may.
        json!({"url": "https://b.example/hook", "bodyBytesMax": 65_536}),
    ] {
        ask(&world, "POST", &path, body).await.problem(422, "invalid_value");
    }
    ask(&world, "PATCH", &format!("{path}/ep_0000000000000000"), json!({}))
        .await
        .problem(404, "unknown_endpoint");
}
