//! Prove: receivers that misbehave, fakes, checkers and helpers for the test suites.

pub mod checker;
pub mod dns;
pub mod receiver;
pub mod recorder;
pub mod server;
