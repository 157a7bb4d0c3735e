//! Deliver: signs, guards, sends and retries webhooks; and sends what an inbox recorded once more, when a person asks.
//!
//! ```text
//! a fresh outcome ── Outbox::reserve, send ─┐
//!                                           ├─► attempt: guard ► sign ► connect ► send ► read
//! a due delivery ─── Deliveries::begin ─────┘                     │
//!                         ▲                                       ▼
//!                         └── in time ◄── Deliveries::complete ◄ verdict
//! ```
//!
//! Only this crate opens connections to addresses chosen by users, and every one of them passes
//! [`Rules`]: the address as such when a run is accepted, and each IP address right before the
//! connection is made to it.

mod address;
mod breaker;
mod connect;
mod engine;
mod failure;
mod guard;
mod keys;
mod mutant;
mod places;
mod pool;
mod replay;
mod resolve;
mod rules;
mod send;
mod verdict;
mod wire;

pub use engine::{Engine, Handle, Options};
pub use places::Caps;
pub use resolve::{Resolve, ResolveError, SystemResolver};
pub use rules::{OwnServer, Rules};
