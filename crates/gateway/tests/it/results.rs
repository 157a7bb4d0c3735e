//! Results for whoever holds their link.

use bytes::Bytes;
use queue::Clock as _;
use queue::link::ResultLinks;
use queue::run::RunState;

use crate::fakes::{OTHER_PROJECT, PROJECT, PUBLIC_URL, World, send};

#[tokio::test]
async fn a_result_is_given_to_whoever_holds_its_link_and_to_nobody_else() {
    let world = World::new();
    let router = world.router();
    let links = ResultLinks::new(PUBLIC_URL, [7; 32]);
    let project = PROJECT.parse().unwrap();
    let app = world.live_app(PROJECT, "demo", vec![]);
    let mut run = crate::control::a_run(&world, &app, RunState::Succeeded);
    run.result = Some(Bytes::from_static(br#"{"n": 12345678901234567890}"#));
    let (id, ended) = (run.id, run.ended_at.unwrap());
    world.put_run(run);
    let link = links.link(&project, id, ended, world.now());
    let path = link.strip_prefix(PUBLIC_URL).unwrap().to_owned();

    let reply = send(&router, "GET", &path, None, "").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, r#"{"n": 12345678901234567890}"#));
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    assert_eq!(reply.headers["cache-control"], "private, no-store");

    let (bare, query) = path.split_once('?').unwrap();
    for forged in [
        bare.to_owned(),
        format!("{bare}?{}", query.replace("signature=", "signature=A")),
        format!("{bare}?{}", query.replace("expires=", "expires=9")),
        path.replace(PROJECT, OTHER_PROJECT),
        path.replace(&id.to_string(), "01890000-0000-7000-8000-000000000000"),
    ] {
        send(&router, "GET", &forged, None, "").await.problem(403, "bad_link");
    }
    // No key opens what the link does not.
    send(&router, "GET", bare, Some(&crate::fakes::private_key(PROJECT)), "").await.problem(403, "bad_link");

    // A run that is gone, and a link whose time is over.
    let nobody = queue::RunId::from_bytes([9; 16]);
    let removed = links.link(&project, nobody, ended, world.now());
    send(&router, "GET", removed.strip_prefix(PUBLIC_URL).unwrap(), None, "")
        .await
        .problem(410, "result_gone");
    let long_ago = queue::Timestamp::from_millis(0);
    let late = links.link(&project, id, long_ago, long_ago);
    send(&router, "GET", late.strip_prefix(PUBLIC_URL).unwrap(), None, "").await.problem(410, "link_expired");
}
