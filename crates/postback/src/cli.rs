//! The command line: flags and help texts only; what they do stands in `commands`.

use clap::{Parser, Subcommand};

use crate::commands::{self, Context, ExitStatus, GlobalArgs};

/// Self-hosted inference server: deploy a Python model, call it, get the result at your webhook.
#[derive(Debug, Parser)]
#[command(name = "postback", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Begin with `postback quickstart`: it shows the whole thing in a minute.")]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole thing: serve, deploy an example, call it, receive its webhook
    Quickstart(commands::quickstart::Args),
    /// Start the server
    Serve(commands::serve::Args),
    /// Save the address and key of a server for later commands
    Login(commands::login::Args),
    /// Write the files of a new app
    Init(commands::init::Args),
    /// Deploy the app in this folder
    Deploy(commands::deploy::Args),
    /// List, show and deploy models that ship ready
    Prebuilt(commands::prebuilt::Args),
    /// Call a function of an app
    Call(commands::call::Args),
    /// List, show, roll back, restart and delete apps, and see what happened to them
    Apps(commands::apps::Args),
    /// List, show and cancel runs
    Runs(commands::runs::Args),
    /// List, show and repeat deliveries: what was told to webhooks
    Deliveries(commands::deliveries::Args),
    /// List, show, set and enable webhook endpoints that were disabled, or set to take less
    Endpoints(commands::endpoints::Args),
    /// Read what an app or a run printed
    Logs(commands::logs::Args),
    /// Make and watch inboxes: temporary endpoints that record what is posted to them
    Inbox(commands::inbox::Args),
    /// List, set and delete secrets: environment variables of replicas, kept encrypted
    Secrets(commands::secrets::Args),
    /// Show and replace the project's keys, and choose how webhooks are signed
    Keys(commands::keys::Args),
    /// Look at this machine: what a server has here, what is missing, and the command that mends it
    Doctor(commands::doctor::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
}

impl Cli {
    /// How many threads are to serve; as many as cores when nobody said so.
    pub(crate) fn threads(&self) -> Option<u16> {
        match &self.command {
            Command::Serve(args) => args.tuning.threads,
            _ => None,
        }
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// Whatever stops a command; printed once, at the edge.
    pub(crate) async fn run(self) -> anyhow::Result<ExitStatus> {
        let context = Context::new(self.global);
        match self.command {
            Command::Quickstart(args) => commands::quickstart::run(args, &context).await,
            Command::Serve(args) => commands::serve::run(args, &context).await,
            Command::Login(args) => commands::login::run(args, &context).await,
            Command::Init(args) => commands::init::run(args, &context).await,
            Command::Deploy(args) => commands::deploy::run(args, &context).await,
            Command::Prebuilt(args) => commands::prebuilt::run(args, &context).await,
            Command::Call(args) => commands::call::run(args, &context).await,
            Command::Apps(args) => commands::apps::run(args, &context).await,
            Command::Runs(args) => commands::runs::run(args, &context).await,
            Command::Deliveries(args) => commands::deliveries::run(args, &context).await,
            Command::Endpoints(args) => commands::endpoints::run(args, &context).await,
            Command::Logs(args) => commands::logs::run(args, &context).await,
            Command::Inbox(args) => commands::inbox::run(args, &context).await,
            Command::Secrets(args) => commands::secrets::run(args, &context).await,
            Command::Keys(args) => commands::keys::run(args, &context).await,
            Command::Doctor(args) => commands::doctor::run(args, &context).await,
            Command::Completions(args) => commands::completions::run(args, &context),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
