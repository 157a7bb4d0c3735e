//! Builds as the server makes them: real interpreters, real commands, real packages.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

mod conda;
mod environments;
mod failures;
mod rollbacks;
mod stopping;
mod uploads;
mod world;
