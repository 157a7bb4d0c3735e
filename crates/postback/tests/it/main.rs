//! The built binary, driven from outside: over HTTP, by its command line, by signals.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it did")]

mod backlog;
mod browser;
mod bursts;
mod chance;
mod cli;
mod containment;
mod corpus;
mod crash;
mod dashboard;
mod deliveries;
mod edge;
mod errors;
mod faults;
mod flow;
mod gpus;
#[cfg(target_os = "linux")]
mod honeypot;
mod inboxes;
mod keys;
mod lifecycle;
mod load;
mod prebuilt;
mod printed;
mod quickstart;
mod receivers;
mod releases;
mod runs;
mod secrets;
mod storage;
mod support;
mod terminal;
mod waiting;
mod watching;
mod web;
mod webhooks;
mod words;
