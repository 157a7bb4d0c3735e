//! The worker against real replicas: the real runner, real processes, and a store in memory.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

mod calls;
mod cancels;
#[cfg(target_os = "linux")]
mod contained;
mod crashes;
mod deploys;
mod events;
mod frames;
mod functions;
mod gpus;
mod house;
mod limits;
mod listing;
mod live;
mod logs;
mod runs;
mod scaling;
mod secrets;
mod shutdown;
mod starts;
mod store;
mod supervise;
mod web;
