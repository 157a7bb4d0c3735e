//! What each command does, one file each: its arguments, and its `run`.

pub(crate) mod apps;
pub(crate) mod call;
pub(crate) mod completions;
pub(crate) mod deliveries;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod endpoints;
pub(crate) mod inbox;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod prebuilt;
pub(crate) mod quickstart;
pub(crate) mod runs;
pub(crate) mod secrets;
pub(crate) mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::client::Client;
use crate::print::Printer;
use crate::profile::{self, Given, Here};
use crate::system;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// It did what was asked.
    Success,
    /// It works, and what it was asked about failed: a build, a run, a check.
    Failure,
    /// A status of its own.
    Code(u8),
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Success => Self::SUCCESS,
            ExitStatus::Failure => Self::FAILURE,
            ExitStatus::Code(code) => Self::from(code),
        }
    }
}

/// Flags that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GlobalArgs {
    /// Address of the server [default: the saved profile's, else http://127.0.0.1:4100]
    #[arg(long, global = true, env = "POSTBACK_URL", value_name = "URL", help_heading = "Global options")]
    pub(crate) url: Option<String>,
    /// Key to the server [default: the saved profile's, else the one in the data directory]
    #[arg(
        long,
        global = true,
        env = "POSTBACK_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub(crate) api_key: Option<String>,
    /// Project [default: the key's]
    #[arg(long, global = true, env = "POSTBACK_PROJECT", value_name = "ID", help_heading = "Global options")]
    pub(crate) project: Option<String>,
    /// Data directory of the server on this machine [default: $XDG_DATA_HOME/postback]
    #[arg(
        long,
        global = true,
        env = "POSTBACK_DATA_DIR",
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print data and errors only
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

/// What every command has at hand.
pub(crate) struct Context {
    pub(crate) global: GlobalArgs,
    pub(crate) printer: Printer,
}

impl Context {
    /// From the global flags.
    pub(crate) fn new(global: GlobalArgs) -> Self {
        let printer = Printer::new(global.json, global.quiet);
        Self { global, printer }
    }

    /// The data directory of a server on this machine.
    ///
    /// # Errors
    /// When none is named and there is no home directory.
    pub(crate) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        self.global.data_dir.clone().map_or_else(system::default_data_dir, Ok)
    }

    /// A connection to the server that flags, environment, profile and data directory name.
    ///
    /// # Errors
    /// When no key is known, or the server cannot be reached.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let GlobalArgs { url, api_key, project, data_dir, .. } = self.global.clone();
        // Whoever names a data directory means the server on it, not the one logged in to.
        let saved = if data_dir.is_some() { None } else { profile::saved()? };
        let given = Given { url, api_key, project };
        let here = Here { data_dir: &self.data_dir()?, named: data_dir.is_some() };
        Client::connect(profile::resolve(given, saved, here)?).await
    }
}
