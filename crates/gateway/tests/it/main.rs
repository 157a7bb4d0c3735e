//! The gateway over HTTP, with in-memory fakes behind its ports.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod builds;
mod control;
mod deliveries;
mod events;
mod fakes;
mod hang_ups;
mod inboxes;
mod inference;
mod inside;
mod keyring;
mod listener;
mod misspelt;
mod results;
mod secrets;
