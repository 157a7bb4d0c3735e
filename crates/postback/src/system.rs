//! The real clock, the real entropy, and the places where files belong.

use std::path::PathBuf;

use anyhow::Context as _;
use etcetera::BaseStrategy as _;
use queue::{Clock, Entropy, Timestamp};
use rand::TryRngCore as _;

/// The machine's wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the one place where the clock is read")]
        let now = std::time::SystemTime::now();
        let millis = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

/// The operating system's random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rngs::OsRng.try_fill_bytes(bytes).expect("the operating system has random numbers");
    }
}

/// `$XDG_DATA_HOME/postback`: where a server keeps its data unless told otherwise.
///
/// # Errors
/// When there is no home directory.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    Ok(base()?.data_dir().join("postback"))
}

/// `$XDG_CACHE_HOME/postback`: what can be fetched again, shared by all servers of a user.
///
/// # Errors
/// When there is no home directory.
pub(crate) fn default_cache_dir() -> anyhow::Result<PathBuf> {
    Ok(base()?.cache_dir().join("postback"))
}

fn base() -> anyhow::Result<impl etcetera::BaseStrategy> {
    etcetera::choose_base_strategy().context("this user has no home directory; name one with `--data-dir`")
}
