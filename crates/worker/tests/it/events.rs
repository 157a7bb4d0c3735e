//! The list of an app's events: what was decided and what went wrong, in words.

use queue::app::AppConfig;
use queue::event::EventKind;
use queue::port::Replicas as _;

use crate::house::{House, Plan, until};

const CODE: &str = r#"
import os, time
HERE = os.path.dirname(os.path.abspath(__file__))
if os.path.exists(os.path.join(HERE, "broken")):
    raise RuntimeError("the weights are gone")

def wait(seconds):
    time.sleep(seconds)

def die():
    os._exit(3)
"#;

/// The texts of one kind.
fn told(house: &House, kind: EventKind) -> Vec<String> {
    house.memory.events().into_iter().filter(|event| event.kind == kind).map(|event| event.text).collect()
}

fn scaled(max: u32) -> Plan {
    let config = AppConfig {
        max_replicas: Some(max),
        replica_concurrency: Some(1),
        cooldown_seconds: Some(0),
        ..AppConfig::default()
    };
    Plan { config, ..Plan::default() }
}

#[tokio::test]
async fn each_change_of_the_number_of_replicas_is_told_with_its_reason() {
    let house = House::with(CODE, Plan { not_deployed: true, ..scaled(2) }).await;
    let runs: Vec<_> = (0..4).map(|_| house.submit(house.run("wait", r#"{"seconds":0.3}"#))).collect();
    for run in runs {
        house.outcome(run).await;
    }
    until("all leave", || (house.replicas() == 0).then_some(())).await;
    let texts = told(&house, EventKind::Scaled);
    assert!(texts[0].starts_with("0 → ") && texts[0].contains("1 at once each"), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("→ 2 replicas: ")), "{texts:?}");
    assert!(texts.last().unwrap().ends_with("→ 0 replicas: fewer would have done for 0 s"), "{texts:?}");
}

#[tokio::test]
async fn a_death_and_starts_that_fail_are_told_with_the_pause_that_follows() {
    let house = House::with(CODE, scaled(1)).await;
    house.call("die", "{}").await;
    until("the death", || (!told(&house, EventKind::ReplicaDied).is_empty()).then_some(())).await;
    let died = told(&house, EventKind::ReplicaDied);
    assert!(died[0].starts_with("replica ") && died[0].contains(" died: "), "{died:?}");
    assert!(died[0].contains("exit"), "{died:?}");

    std::fs::write(house.folder.path().join("broken"), "").unwrap();
    until("no replica", || (house.replicas() == 0).then_some(())).await;
    let run = house.submit(house.run("wait", r#"{"seconds":0}"#));
    house.outcome(run).await;
    let failed = told(&house, EventKind::StartFailed);
    assert!(failed[0].contains("did not start: the weights are gone; the next start is in "), "{failed:?}");
    assert_eq!(told(&house, EventKind::GivenUp).len(), 1);
}

#[tokio::test]
async fn a_restart_is_told() {
    let house = House::of(CODE).await;
    house.handle.restart(&house.id());
    until("it is told", || (!told(&house, EventKind::Restarted).is_empty()).then_some(())).await;
}
