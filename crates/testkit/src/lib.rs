//! Prove: receivers that misbehave, fakes, checkers and helpers for the test suites.

pub mod checker;
pub mod dns;
pub mod footprint;
pub mod listener;
pub mod processes;
pub mod receiver;
pub mod recorder;
pub mod server;

/// The time by the machine's clock, in the form in which the server tells it.
pub fn wall_clock() -> queue::Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    queue::Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
