//! Prepare: a folder and a config file become a runnable build.
//!
//! Two halves share what they must agree on. The client's half reads a config file ([`Config`]) and packs
//! a folder ([`archive::pack`]); the server's half unpacks it, makes its Python environment and sees it to
//! its first replica.

pub mod archive;
pub mod config;

pub use config::Config;
pub use pipeline::{Builder, Options};

mod build_log;
mod command;
mod environment;
mod pipeline;
