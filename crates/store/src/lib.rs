//! The promise: what was answered is on the disk, and what is on the disk is found again.
//!
//! SQLite fulfils the ports of `queue`: [`Runs`](queue::port::Runs), [`Deliveries`](queue::port::Deliveries),
//! [`Registry`](queue::port::Registry), [`Secrets`](queue::port::Secrets), [`Inboxes`](queue::port::Inboxes) and [`Logs`](queue::port::Logs).
//!
//! ```text
//! callers ──jobs──► committer ──► writer thread: one transaction, one sync ──► answers
//!    ▲                                  │ after the commit
//!    └── memory: registry, inboxes, ◄───┘
//!        who waits for which run           readers: read-only connections, views and bodies
//! ```
//!
//! - A write is answered after the commit that holds it was synced (WAL, `synchronous=FULL`).
//! - A write whose commit failed is *unknown*, never *failed*; after an error of the device the store
//!   promises nothing more and [`Store::failed`] resolves.
//! - A write about a leased run counts only under the lease's current token.
//! - The data directory belongs to one process; what ran under a former one is queued again at open.

mod ahead;
mod app_events;
mod app_secrets;
mod batch;
mod check;
mod chores;
mod committer;
mod connection;
mod deliveries;
#[cfg(test)]
mod effort;
mod fault;
mod filesystem;
mod inboxes;
mod keys;
mod lock;
mod logs;
mod memory;
mod migrate;
mod mutant;
mod readers;
mod recovery;
mod registry;
mod reserve;
mod rest;
mod results;
mod row;
mod runs;
mod secrets;
mod snapshot;
mod store;
mod traffic;
mod upkeep;
mod vault;
mod writer;

pub use check::{Health, check};
pub use lock::Holder;
pub use store::{Bounds, OpenError, Options, Store};
pub use upkeep::Pruned;
pub use vault::KeyFileError;
