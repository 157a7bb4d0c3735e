//! What the store promises: the conformance suite that every engine must pass, and what is particular
//! to SQLite.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod model;
mod sqlite;
mod world;
