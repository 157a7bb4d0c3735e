//! The store against a model of it: random lives of a store, each step of which must show exactly what
//! the model holds.
//!
//! The model knows the ports and no engine; an engine joins with a [`Rig`]. A life that fails is made as
//! short as it can be, printed, and its seed is kept in `seeds.txt` beside this file, where it is tried
//! first from then on. `POSTBACK_PROVE_MODEL_CASES` and `POSTBACK_PROVE_MODEL_SEED` ask for more lives, or
//! for the same ones again.

mod bodies;
mod calls;
mod deliveries;
mod known;
mod laws;
mod life;
mod observe;
mod state;
mod steps;

use std::hash::{BuildHasher as _, RandomState};
use std::thread;
use std::time::Duration;

use proptest::test_runner::{
    Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestRng, TestRunner,
};

use crate::world::{Engine, World};
use life::Life;

const CASES: u32 = 500;
const STEPS_MAX: usize = 60;
/// More than there are cores: much of a life is one thread waiting for another.
const SHARDS: u32 = 4;
/// Where the results of thin bodies are to be fetched.
pub(crate) const LINKS: &str = "https://models.example.com";
const DAY: Duration = Duration::from_secs(86_400);

/// An engine, and what its tests can do to it beyond the ports.
pub(crate) trait Rig {
    type Store: Engine;

    /// A store with nothing in it. Like the others here it has been told that it is reached at [`LINKS`].
    fn fresh() -> World<Self::Store>;

    /// The store as another process finds it after the one that had it was killed.
    async fn killed(world: World<Self::Store>) -> World<Self::Store>;

    /// The store, closed and opened again.
    async fn reopened(world: World<Self::Store>) -> World<Self::Store>;

    /// Removes what is old. Returns how many runs.
    async fn prune(world: &World<Self::Store>) -> u64;

    async fn close(world: World<Self::Store>);
}

/// Lives that were once told wrong, step by step.
pub(crate) fn known_lives<R: Rig>() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (name, steps) in known::lives() {
        if let Err(why) = runtime.block_on(Life::<R>::live(&steps)) {
            panic!("{name}: {why}");
        }
    }
}

/// Lives as many lives as were asked for, on a few threads.
#[expect(clippy::print_stderr, reason = "whoever sees a failure needs the seed")]
pub(crate) fn random_lives<R: Rig>() {
    let asked = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = asked("POSTBACK_PROVE_MODEL_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let cases =
        asked("POSTBACK_PROVE_MODEL_CASES").map_or(CASES, |cases| u32::try_from(cases).expect("a count"));
    eprintln!("model: {cases} lives, seed {seed}");
    thread::scope(|scope| {
        let shards: Vec<_> =
            (0..SHARDS).map(|shard| scope.spawn(move || lives::<R>(seed, shard, cases / SHARDS))).collect();
        for shard in shards {
            if let Err(found) = shard.join().expect("a shard says what it found") {
                panic!("seed {seed}: {found}");
            }
        }
    });
}

fn lives<R: Rig>(seed: u64, shard: u32, cases: u32) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&shard.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/it/model/seeds.txt"))),
        max_shrink_iters: 4_000,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let lived = runner.run(&steps::steps(STEPS_MAX), |steps| {
        runtime.block_on(Life::<R>::live(&steps)).map_err(TestCaseError::fail)
    });
    lived.map_err(|failure| failure.to_string())
}
