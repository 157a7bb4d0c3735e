//! What an app asks of the server: its configuration, and the functions its code offers.
//!
//! `builder` reads all three config forms into [`AppConfig`]; nobody else parses them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::rerun::RetryOn;
use crate::scaling::{Balancing, Metric};
use crate::web::CustomRuntime;
use crate::webhook::{EventFilter, Schedule, WebhookHeaders};

/// Everything the config files and the control plane can say about an app. Serialises as the
/// camelCase JSON of the control plane's create-app request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AppConfig {
    /// `3.11`; `None` means the machine's own `python3`.
    pub python_version: Option<String>,
    /// Ids such as `CPU` or `AMPERE_A10`, in order of preference; empty means `CPU`.
    pub compute: Vec<String>,
    /// GPUs per replica.
    pub gpu_count: u32,
    /// CPU cores per replica; recorded, and enforced where the sandbox tier can.
    pub cpu: Option<f64>,
    /// Memory per replica in GB; one that holds more is ended.
    pub memory: Option<f64>,
    /// Processes and threads of a replica at once; one that has more is ended.
    pub processes: Option<u32>,
    /// What a replica may write to its own folders, in GB; one that writes more is ended.
    pub disk: Option<f64>,
    /// The code and what it starts reach no network.
    pub no_network: bool,
    /// Replicas kept even when idle.
    pub min_replicas: u32,
    /// Replicas at most.
    pub max_replicas: Option<u32>,
    /// Idle time after which a replica beyond `min_replicas` stops.
    pub cooldown_seconds: Option<u64>,
    /// Calls one replica works on at once; see [`AppConfig::concurrency`] for the default.
    pub replica_concurrency: Option<u32>,
    /// What the number of replicas follows; see [`AppConfig::metric`].
    pub scaling_metric: Option<Metric>,
    /// What a replica is kept at: percent, or requests a second.
    pub scaling_target: Option<u32>,
    /// Replicas beyond those that the load asks for.
    pub scaling_buffer: Option<u32>,
    /// Over how long the metric is averaged.
    pub evaluation_interval_seconds: Option<u64>,
    /// How long the replicas of a build stay when another one has become live.
    pub roll_out_duration_seconds: Option<u64>,
    /// Which of several replicas with a free place gets a run.
    pub load_balancing_algorithm: Option<Balancing>,
    /// Attempts of a run after the first, when it fails with one of `retry_on`.
    pub retries: Option<u32>,
    /// The end codes on which a run is executed again.
    pub retry_on: Option<RetryOn>,
    /// How often a run may be executed, whatever the reason.
    pub max_attempts: Option<u32>,
    /// Limit of one attempt of a run.
    pub response_grace_period_seconds: Option<u64>,
    /// Time a replica has to import `main.py`.
    pub start_limit_seconds: Option<u64>,
    /// The app wants to be callable without a key; honoured only with `--allow-open-apps`.
    pub disable_auth: bool,
    /// Endpoints of asynchronous runs that name none.
    pub webhook_endpoints: Vec<String>,
    /// Headers that deliveries carry beside ours.
    pub webhook_headers: Option<WebhookHeaders>,
    /// What endpoints are told, when a call says nothing.
    pub webhook_events_filter: Option<EventFilter>,
    /// When deliveries are tried again, when a call says nothing.
    pub webhook_schedule: Option<Schedule>,
    /// Shell commands before the dependencies are installed.
    pub pre_build_commands: Vec<String>,
    /// Shell commands after it.
    pub shell_commands: Vec<String>,
    /// pip requirement lines (`numpy==2.1`, `git+https://…`).
    pub pip: Vec<String>,
    /// pip requirement lines that count instead of what packages ask for.
    pub pip_overrides: Vec<String>,
    /// What legacy callers are told that they will get: "We will return the … to the endpoint provided".
    pub returns: Option<String>,
    /// Debian packages.
    pub apt: Vec<String>,
    /// Conda packages.
    pub conda: Vec<String>,
    /// The app is a web server of its own, not functions of a `main.py`.
    #[serde(rename = "customRuntime", skip_serializing_if = "Option::is_none")]
    pub runtime: Option<CustomRuntime>,
}

impl AppConfig {
    /// Replicas at most, never below `min_replicas`.
    pub fn replicas_max(&self) -> u32 {
        self.max_replicas.unwrap_or(1).max(self.min_replicas).clamp(1, limits::REPLICAS_PER_APP_MAX)
    }

    /// Idle time before a spare replica stops.
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(self.cooldown_seconds.unwrap_or(10))
    }

    /// Processes and threads of a replica at once.
    pub fn processes(&self) -> u64 {
        self.processes.unwrap_or(limits::REPLICA_PROCESSES_DEFAULT).min(limits::REPLICA_PROCESSES_MAX).into()
    }

    /// What a replica may write to its folder and `/tmp`, in bytes.
    pub fn disk(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
        let bytes = self.disk.map(|gigabytes| (gigabytes * f64::from(1 << 30)) as u64);
        bytes.unwrap_or(limits::REPLICA_DISK_BYTES_DEFAULT)
    }

    /// Limit of one attempt of an asynchronous run, and of a v4 call.
    pub fn response_grace_period(&self) -> Duration {
        self.response_grace_period_seconds
            .map_or(limits::RESPONSE_GRACE_PERIOD_DEFAULT, Duration::from_secs)
            .min(limits::RESPONSE_GRACE_PERIOD_MAX)
    }

    /// Time a replica has to become ready.
    pub fn start_limit(&self) -> Duration {
        self.start_limit_seconds.map_or(limits::START_LIMIT_DEFAULT, Duration::from_secs)
    }

    /// Whether the app asks for a GPU.
    pub fn wants_gpu(&self) -> bool {
        self.compute.first().is_some_and(|compute| !compute.eq_ignore_ascii_case("CPU"))
    }

    /// GPUs of a replica: as many as `gpu_count` says, at least one where a GPU is asked for at all.
    pub fn gpus(&self) -> u32 {
        if self.wants_gpu() { self.gpu_count.max(1) } else { 0 }
    }

    /// Calls one replica works on at once: 1 on GPUs and for the contract of 2023, whose code
    /// was never called twice at a time; 100 for keyword functions on CPU.
    pub fn concurrency(&self, functions: &[Function]) -> u32 {
        let item_contract = functions.iter().any(|f| f.contract == Contract::Item);
        let default = if self.wants_gpu() || item_contract { 1 } else { 100 };
        self.replica_concurrency.unwrap_or(default).clamp(1, limits::REPLICA_CONCURRENCY_MAX)
    }
}

/// How a function wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contract {
    /// `f(item, run_id, logger)`: the whole body as `item` (2023).
    Item,
    /// `f(**body)`: the body's keys as keywords.
    Keywords,
    /// `f(model)`: the body as a pydantic model, which checks it.
    Model,
}

/// A function of `main.py` that can be called, as the runner reports it in its `ready` frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// The name, and last segment of a v4 path.
    pub name: String,
    /// How it is called.
    pub contract: Contract,
    /// Declared parameters, without an injected `run_id`.
    pub parameters: Vec<Parameter>,
    /// It takes `**kwargs`, so unknown keys are welcome.
    pub takes_any: bool,
    /// It is a generator: its results form a list, or a stream.
    #[serde(default)]
    pub streams: bool,
}

impl Function {
    /// Whether the function declares a parameter of this name, or takes any.
    pub fn accepts(&self, name: &str) -> bool {
        self.takes_any || self.parameters.iter().any(|parameter| parameter.name == name)
    }
}

/// One parameter of a keyword function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name, and the key in the body.
    pub name: String,
    /// It has no default.
    pub required: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(contract: Contract) -> Function {
        Function { name: "f".into(), contract, parameters: vec![], takes_any: false, streams: false }
    }

    #[test]
    fn concurrency_is_one_where_code_was_never_called_twice_at_a_time() {
        let cpu = AppConfig::default();
        let gpu = AppConfig { compute: vec!["AMPERE_A10".into()], ..AppConfig::default() };
        assert_eq!(cpu.concurrency(&[function(Contract::Keywords)]), 100);
        assert_eq!(cpu.concurrency(&[function(Contract::Item)]), 1);
        assert_eq!(gpu.concurrency(&[function(Contract::Keywords)]), 1);
        let asked = AppConfig { replica_concurrency: Some(7), ..gpu };
        assert_eq!(asked.concurrency(&[function(Contract::Item)]), 7);
    }

    #[test]
    fn the_most_replicas_are_never_fewer_than_the_least() {
        let config = AppConfig { min_replicas: 3, max_replicas: Some(2), ..AppConfig::default() };
        assert_eq!(config.replicas_max(), 3);
    }
}
