//! The built binary, driven from outside: over HTTP, by its command line, by signals.

mod cli;
mod crash;
mod deliveries;
mod errors;
mod faults;
mod flow;
mod lifecycle;
mod load;
mod runs;
mod support;
