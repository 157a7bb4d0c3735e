//! Prove: receivers that misbehave, fakes, checkers and helpers for the test suites.

pub mod checker;
mod clock;
pub mod dns;
pub mod footprint;
pub mod listener;
pub mod processes;
pub mod receiver;
mod recorded;
pub mod recorder;
pub mod server;

pub use clock::{Chance, WallClock, wall_clock};
pub use recorded::recorded;
