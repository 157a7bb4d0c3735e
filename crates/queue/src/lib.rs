//! The promise: what a run, a lease, an outcome and a delivery are, which moves between their
//! states are legal, and the ports through which the rooms of postback meet.
//!
//! This crate does no I/O. It reads no clock, draws no random number, knows no database, no web
//! framework and no HTTP client; time and chance come in as arguments ([`Clock`], [`Entropy`]).
//!
//! The path of a run, and the port each step goes through:
//!
//! ```text
//! accept ── Runs::accept ──► queue ── Runs::claim ──► run ── Runs::finish ──► outcome
//!    │                                                                          │
//!    └── Dispatch::reserve, Slot::hand_over (the short way, from memory)         ▼
//!                                                     deliver ◄── Deliveries::begin, Outbox
//! ```

pub mod actions;
pub mod answer;
pub mod app;
pub mod clock;
pub mod contain;
pub mod delivery;
pub mod event;
pub mod figures;
pub mod hardware;
pub mod id;
pub mod inbox;
pub mod json;
pub mod lease;
pub mod limits;
pub mod link;
pub mod log;
pub mod outcome;
pub mod port;
pub mod progress;
pub mod reason;
pub mod registry;
pub mod replay;
pub mod replica;
pub mod request;
pub mod rerun;
pub mod retry;
pub mod run;
pub mod scaling;
pub mod search;
pub mod shortage;
pub mod signature;
pub mod since;
pub mod test_event;
pub mod text;
pub mod traffic;
pub mod unstoppable;
pub mod web;
pub mod webhook;

pub use clock::{Clock, Entropy, Timestamp};
pub use id::{
    AppId, AppName, BuildId, DeliveryId, EndpointId, InboxId, LeaseToken, ProjectId, ReplicaId, RunId,
};
