//! GPUs: each is one replica's alone, comes back when that is gone, and is waited for in turn.

use std::sync::Arc;
use std::time::Duration;

use queue::app::AppConfig;
use queue::hardware::Gpu;
use queue::outcome::Code;
use queue::port::{Call, Dispatch as _, Replicas as _};
use queue::registry::{App, Build};
use queue::{AppId, BuildId};
use worker::Options;

use crate::house::{House, PATIENCE, Plan, app_of, build, text, until};

const CODE: &str = r#"
import os, time
HERE = os.path.dirname(os.path.abspath(__file__))

def sees():
    return os.environ.get("CUDA_VISIBLE_DEVICES")

def holds(name):
    with open(os.path.join(HERE, "begun-" + name), "w") as f:
        f.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\n")
    while not os.path.exists(os.path.join(HERE, "end-" + name)):
        time.sleep(0.005)
    return sees()

def dies():
    os._exit(3)
"#;

fn gpus(options: &mut Options, count: usize) {
    options.gpus = (0..count)
        .map(|number| Gpu {
            uuid: format!("GPU-{number}"),
            name: "NVIDIA A10".into(),
            memory_bytes: 24 << 30,
        })
        .collect();
}

fn on_gpus(replicas: u32, gpu_count: u32, adjust: fn(&mut Options)) -> Plan {
    let config = AppConfig {
        compute: vec!["AMPERE_A10".into()],
        gpu_count,
        max_replicas: Some(replicas),
        // None leaves by itself while a test lasts.
        cooldown_seconds: Some(600),
        ..AppConfig::default()
    };
    Plan { config, adjust: Some(adjust), not_deployed: false }
}

/// An app beside that of the house, with the same code and configuration.
struct Other<'a> {
    house: &'a House,
    build: Build,
}

impl<'a> Other<'a> {
    fn of(house: &'a House, name: &str) -> Self {
        let mut build = house.app.live.clone().unwrap();
        build.app = format!("p-1234abcd-{name}").parse().unwrap();
        build.id = format!("b-{:016x}", 1000 + name.len()).parse::<BuildId>().unwrap();
        build.functions.clear();
        Self { house, build }
    }

    fn id(&self) -> AppId {
        self.build.app.clone()
    }

    async fn deploy(&self) -> Arc<App> {
        let functions = self.house.handle.start_first(&self.build).await.expect("it starts");
        let app = app_of(self.build.clone(), functions);
        self.house.memory.put_app(Arc::clone(&app));
        self.house.handle.switch(&app);
        app
    }

    async fn call(&self, app: &Arc<App>, function: &str) -> String {
        let call = Call { app: Arc::clone(app), ..self.house.new_call(function, "{}", PATIENCE) };
        text(&self.house.handle.call(call).await.unwrap())
    }
}

fn holds(house: &House, name: &str) -> queue::RunId {
    house.submit(house.run("holds", &format!(r#"{{"name":"{name}"}}"#)))
}

fn end(house: &House, name: &str) {
    std::fs::write(house.folder.path().join(format!("end-{name}")), "").unwrap();
}

/// Who has the GPUs, in their order.
fn holders(house: &House) -> Vec<Option<String>> {
    let gpus = house.handle.hardware().gpus.into_iter();
    gpus.map(|placed| placed.app.map(|app| app.name().to_string())).collect()
}

#[tokio::test]
async fn each_replica_sees_its_own_gpu_and_there_are_no_more_replicas_than_gpus() {
    let house = House::with(CODE, on_gpus(5, 0, |options| gpus(options, 2))).await;
    let runs: Vec<_> = ["a", "b", "c"].iter().map(|name| holds(&house, name)).collect();
    let mut seen = [house.written("begun-a").await, house.written("begun-b").await];
    seen.sort();
    assert_eq!(seen, ["GPU-0\n", "GPU-1\n"]);
    assert_eq!((house.replicas(), holders(&house)), (2, vec![Some("model".into()); 2]));
    ["a", "b", "c"].iter().for_each(|name| end(&house, name));
    for run in runs {
        house.result(run).await;
    }
}

#[tokio::test]
async fn a_replica_of_several_gpus_sees_them_all_and_one_without_sees_none() {
    let house = House::with(CODE, on_gpus(1, 2, |options| gpus(options, 3))).await;
    assert_eq!(text(&house.call("sees", "{}").await), r#""GPU-0,GPU-1""#);
    let mut cpu = Other::of(&house, "cpu");
    cpu.build.config = AppConfig::default();
    let app = cpu.deploy().await;
    assert_eq!(cpu.call(&app, "sees").await, r#""""#);
    let house = House::of(CODE).await;
    assert_eq!(text(&house.call("sees", "{}").await), "null", "a server without GPUs changes nothing");
}

#[tokio::test]
async fn the_gpu_of_a_replica_that_died_is_free_again() {
    let house = House::with(CODE, on_gpus(1, 1, |options| gpus(options, 1))).await;
    assert_eq!(house.call("dies", "{}").await.error.unwrap().code, Code::WorkerExited);
    assert_eq!(text(&house.call("sees", "{}").await), r#""GPU-0""#);
}

#[tokio::test]
async fn an_idle_replica_makes_room_for_another_app_and_a_busy_one_is_waited_for() {
    let house = House::with(CODE, on_gpus(1, 1, |options| gpus(options, 1))).await;
    let run = holds(&house, "a");
    house.written("begun-a").await;
    let other = Other::of(&house, "other");
    let deployed = async {
        let app = other.deploy().await;
        other.call(&app, "sees").await
    };
    let ended = async {
        let why = until("the other app waits", || house.handle.waits_for(&other.id())).await;
        assert_eq!(why, "it waits for a GPU of AMPERE_A10; the only one is in use");
        assert_eq!(holders(&house), [Some("model".into())]);
        end(&house, "a");
        house.result(run).await
    };
    let (seen, result) = tokio::join!(deployed, ended);
    assert_eq!((seen.as_str(), result.as_str()), (r#""GPU-0""#, r#""GPU-0""#));
    // Its cooldown is ten minutes, and yet it left.
    assert_eq!((holders(&house), house.replicas()), (vec![Some("other".into())], 0));
    assert_eq!(house.handle.waits_for(&other.id()), None);
    // And back again.
    assert_eq!(text(&house.call("sees", "{}").await), r#""GPU-0""#);
}

#[tokio::test]
async fn a_new_build_gets_the_gpu_of_the_old_one_when_there_is_no_other() {
    let mut house = House::with(CODE, on_gpus(1, 1, |options| gpus(options, 1))).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.py"), CODE.replace("GPU-", "new ")).unwrap();
    let config = house.app.live.clone().unwrap().config;
    let run = holds(&house, "a");
    house.written("begun-a").await;
    end(&house, "a");
    house.deploy(&build(2, folder.path(), config)).await.unwrap();
    assert_eq!(house.result(run).await, r#""GPU-0""#, "what was under way ended");
    assert_eq!(text(&house.call("sees", "{}").await), r#""GPU-0""#);
    assert_eq!(holders(&house), [Some("model".into())]);
}

#[tokio::test]
async fn a_build_that_fails_after_it_took_the_gpu_gives_it_back_to_the_old_one() {
    let mut house = House::with(CODE, on_gpus(1, 1, |options| gpus(options, 1))).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.py"), "raise ValueError('half-written')\n").unwrap();
    let config = house.app.live.clone().unwrap().config;
    assert!(house.deploy(&build(2, folder.path(), config)).await.is_err());
    assert_eq!(text(&house.call("sees", "{}").await), r#""GPU-0""#);
}

#[tokio::test]
async fn a_restart_replaces_the_only_replica_of_the_only_gpu() {
    const WITH_PID: &str = "\ndef who():\n    return os.getpid()\n";
    let house = House::with(&format!("{CODE}{WITH_PID}"), on_gpus(1, 1, |options| gpus(options, 1))).await;
    let before = text(&house.call("who", "{}").await);
    house.handle.restart(&house.id());
    until("the old replica leaves", || (!crate::house::is_alive(before.parse().unwrap())).then_some(()))
        .await;
    assert_ne!(text(&house.call("who", "{}").await), before);
}

#[tokio::test]
async fn a_call_that_no_gpu_became_free_for_says_so() {
    let house = House::with(CODE, on_gpus(1, 1, |options| gpus(options, 1))).await;
    let other = Other::of(&house, "other");
    let app = other.deploy().await;
    // Now the house's own app is the one that waits: the other's only replica works.
    let call = Call { app: Arc::clone(&app), ..house.new_call("holds", r#"{"name":"a"}"#, PATIENCE) };
    let handle = house.handle.clone();
    let holding = tokio::spawn(async move { handle.call(call).await });
    house.written("begun-a").await;
    let outcome = house.handle.call(house.new_call("sees", "{}", Duration::from_millis(500))).await.unwrap();
    let error = outcome.error.unwrap();
    assert_eq!(error.code, Code::Timeout);
    assert!(
        error.message.contains("within 0.5 s: it waits for a GPU of AMPERE_A10; the only one is in use"),
        "{}",
        error.message
    );
    end(&house, "a");
    holding.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_node_has_not_is_told_at_the_start_or_replaced_by_cpus() {
    let mut house =
        House::with(CODE, Plan { not_deployed: true, ..on_gpus(1, 2, |options| gpus(options, 1)) }).await;
    let first = house.app.live.clone().unwrap();
    let failure = house.deploy(&first).await.unwrap_err();
    assert_eq!(failure.error.code, Code::FailedToStart);
    let said = "it needs 2 GPUs of AMPERE_A10, which this server does not have; it has: CPU, AMPERE_A10 (1 ×";
    assert!(failure.error.message.starts_with(said), "{}", failure.error.message);

    let adjust: fn(&mut Options) = |options| {
        gpus(options, 1);
        options.cpu_fallback = true;
    };
    let house = House::with(CODE, on_gpus(1, 2, adjust)).await;
    assert_eq!(text(&house.call("sees", "{}").await), r#""""#);
}

#[tokio::test]
async fn a_build_that_is_given_up_while_it_waits_keeps_nobody_waiting() {
    let house = House::with(CODE, on_gpus(1, 1, |options| gpus(options, 1))).await;
    let run = holds(&house, "a");
    house.written("begun-a").await;
    let (one, two) = (Other::of(&house, "one"), Other::of(&house, "other"));
    let give_up = async {
        until("it waits", || house.handle.waits_for(&one.id())).await;
        house.handle.discard(&one.build.id);
    };
    let (given_up, ()) = tokio::join!(house.handle.start_first(&one.build), give_up);
    given_up.unwrap_err();
    until("it waits no more", || house.handle.waits_for(&one.id()).is_none().then_some(())).await;
    end(&house, "a");
    let app = two.deploy().await;
    assert_eq!(two.call(&app, "sees").await, r#""GPU-0""#);
    house.result(run).await;
}
