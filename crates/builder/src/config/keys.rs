//! The table of configuration keys: what each means, which form has it, what becomes of it here.
//!
//! It is the only place that knows a key's name. Files are read by it, unknown keys are compared with
//! it, and `docs/reference/config.md` is printed from it.

use queue::limits;
use queue::web::{CustomRuntime, Entrypoint, PORT_DEFAULT};

use super::key::{Effect, Key};
use super::{Config, Form};

/// The keys a form has, in the order of the documentation.
pub(super) fn of(form: Form) -> &'static [Key] {
    match form {
        Form::Yaml2023 => YAML,
        Form::TomlFirst | Form::TomlCurrent => TOML,
    }
}

const fn key(path: &'static str, default: &'static str, effect: Effect, what: &'static str) -> Key {
    Key { path, what, default, effect }
}

const HARDWARE_2023: &str = "no hardware is chosen by provider or region: apps run on this machine";
const LOG: &str = "the server's own log level and the client's own output are set by their flags";
const SMOKE: &str = "no function is called while building: a build is live once `main.py` was imported";
const ASGI: &str = "this is the older name; write `[cerebrium.runtime.custom]` with an `entrypoint` such as `uvicorn main:app --port 8000`";
const DOCKERFILE: &str = "apps run as processes of this machine, not as images; write what the image starts as `entrypoint`, \
                          its Python packages under `[cerebrium.dependencies.pip]`, its system packages under \
                          `[cerebrium.dependencies.apt]`, and what else it runs as `shell_commands`";
const PARTNER: &str = "partner runtimes belong to the hosted platform; deploy the model with a `main.py`, or its server with \
                       `[cerebrium.runtime.custom]`";
const CUDA: &str = "the CUDA libraries of this machine are used";
const PROMPT: &str = "the client never asks and shows no such thing";

const RETRIES: &str = "ours: how often a run that failed is executed again, after 1 s, 2 s, 4 s …";
const RETRY_ON: &str = "ours: the end codes after which it is";
const RETRY_ON_DEFAULT: &str = "`[\"user_error\", \"timeout\"]`";

const MAX_ATTEMPTS: &str =
    "ours: how often a run may be executed, whatever the reason; with 1 never twice, even if the server dies";

const DEFAULT_INCLUDE: &str = "`[./*, main.py, requirements.txt, pkglist.txt, conda_pkglist.txt]`";

use Effect::{
    Compute, Events, Flag, Headers, List, Number, PackageFile, Packages, Patterns, PythonVersion, Refused,
    Text, Waits, Warned, Whole,
};

const PROCESSES: Effect = Whole { min: 8, max: 32_768, set: |c, v| c.app.processes = Some(narrow(v)) };
const PROCESSES_FOR: &str = "ours: processes and threads of a replica at once; one that has more is ended";
const DISK: Effect = Number { min: 0.01, max: 100_000.0, set: |c, v| c.app.disk = Some(v) };
const DISK_FOR: &str =
    "ours: what a replica may write to its folder and `/tmp`, in GB; one that writes more is ended";
const NETWORK: Effect = Flag(|c, v| c.app.no_network = !v);
const NETWORK_FOR: &str =
    "ours: with `false` the app's replicas reach no network; needs tier S1, see `containment.md`";
const ENDPOINTS: Effect = List(|c, v| c.app.webhook_endpoints = v);
const ENDPOINTS_FOR: &str = "up to 8 addresses that get the results of asynchronous runs that name none";
const HEADERS: Effect = Headers(|c, v| c.app.webhook_headers = Some(v));
const HEADERS_FOR: &str = "headers that deliveries carry beside ours; `${NAME}` in a value stands for a variable of the \
                           environment in which `postback deploy` runs, so that no secret lies in the file";
const EVENTS: Effect = Events(|c, v| c.app.webhook_events_filter = Some(v));
const EVENTS_FOR: &str = "what endpoints are told, when a call says nothing";
const SCHEDULE: Effect = Waits(|c, v| c.app.webhook_schedule = Some(v));
const SCHEDULE_DEFAULT: &str = "see `retries.md`";
const OVERRIDES: Effect = List(|c, v| c.app.pip_overrides = v);
const OVERRIDES_FOR: &str = "requirements that count instead of what other packages ask for, as `uv pip install --override` \
                             takes them: `[\"opencv-python; python_version < '0'\"]` leaves that package out";
const RETURNS: Effect = Text(|c, v| c.app.returns = Some(v));
const RETURNS_FOR: &str = "what callers of `/{name}-webhook/predict` are told they will get: \"We will return the … to the \
                           endpoint provided\"";
const SCHEDULE_FOR: &str =
    "the waits after each attempt of a webhook that failed; `[]` for one attempt and no more";

/// `config.yaml` of 2023.
const YAML: &[Key] = &[
    key("name", "the argument of `deploy`", Text(|c, v| c.name = Some(v)), "the app's name"),
    key(
        "hardware",
        "`CPU`",
        Compute(|c, v| c.app.compute = v),
        "what a replica needs; refused at deploy when this machine does not have it",
    ),
    key(
        "gpu_count",
        "1 on a GPU",
        Whole { min: 0, max: 8, set: |c, v| c.app.gpu_count = narrow(v) },
        "GPUs per replica; without meaning on `CPU`",
    ),
    key(
        "cpu",
        "no limit",
        Number { min: 0.1, max: 512.0, set: |c, v| c.app.cpu = Some(v) },
        "CPU cores per replica",
    ),
    key(
        "memory",
        "no limit",
        Number { min: 0.1, max: 4096.0, set: |c, v| c.app.memory = Some(v) },
        "memory per replica in GB; one that holds more is ended, see `errors/out_of_memory.md`",
    ),
    key(
        "min_replicas",
        "0",
        Whole { min: 0, max: 200, set: |c, v| c.app.min_replicas = narrow(v) },
        "replicas kept even when idle",
    ),
    key(
        "max_replicas",
        "1",
        Whole { min: 1, max: 200, set: |c, v| c.app.max_replicas = Some(narrow(v)) },
        "replicas at most",
    ),
    key(
        "cooldown",
        "60",
        Whole { min: 0, max: 86_400, set: |c, v| c.app.cooldown_seconds = Some(v) },
        "idle seconds after which a spare replica stops",
    ),
    key(
        "python_version",
        "this machine's `python3`",
        PythonVersion(|c, v| c.app.python_version = Some(v)),
        "the interpreter; one that this machine lacks is fetched by uv. `3.10` may stand without quotes",
    ),
    key("include", DEFAULT_INCLUDE, Patterns(|c, v| c.include = v), "files to upload"),
    key("exclude", "`[./.*, ./__*]`", Patterns(|c, v| c.exclude = v), "files not to upload"),
    key(
        "shell_commands",
        "none",
        List(|c, v| c.app.shell_commands = v),
        "commands run in the app's folder after the packages are installed",
    ),
    key("postback.processes", "4096", PROCESSES, PROCESSES_FOR),
    key("postback.disk", "50", DISK, DISK_FOR),
    key("postback.network", "`true`", NETWORK, NETWORK_FOR),
    key("postback.webhook_endpoints", "none", ENDPOINTS, ENDPOINTS_FOR),
    key("postback.webhook_headers", "none", HEADERS, HEADERS_FOR),
    key("postback.webhook_events_filter", "`[completed]`", EVENTS, EVENTS_FOR),
    key("postback.webhook_schedule", SCHEDULE_DEFAULT, SCHEDULE, SCHEDULE_FOR),
    key("postback.pip_overrides", "none", OVERRIDES, OVERRIDES_FOR),
    key("postback.returns", "`images`", RETURNS, RETURNS_FOR),
    key(
        "postback.max_attempts",
        "none",
        Whole { min: 1, max: 100, set: |c, v| c.app.max_attempts = Some(narrow(v)) },
        MAX_ATTEMPTS,
    ),
    key(
        "postback.retries",
        "0",
        Whole { min: 0, max: 10, set: |c, v| c.app.retries = Some(narrow(v)) },
        RETRIES,
    ),
    key("postback.retry_on", RETRY_ON_DEFAULT, Effect::RetryOn(|c, v| c.app.retry_on = Some(v)), RETRY_ON),
    key(
        "api_key",
        "",
        Warned(
            "the key comes from `--api-key`, `POSTBACK_API_KEY` or `postback login`; remove it from the file, which is uploaded",
        ),
        "private key",
    ),
    key("cuda_version", "", Warned(CUDA), "CUDA of the base image"),
    key("predict_data", "", Warned(SMOKE), "input of a trial call while building"),
    key("disable_predict", "", Warned(SMOKE), "no trial call while building"),
    key("disable_predict_data", "", Warned(SMOKE), "older name of `disable_predict`"),
    key("init_debug", "", Warned(SMOKE), "stop after the import"),
    key("pre_init_debug", "", Warned(SMOKE), "stop before the import"),
    key(
        "force_rebuild",
        "",
        Warned("environments are made anew whenever packages, commands or interpreter change"),
        "no use of the cache",
    ),
    key("log_level", "", Text(|_, _| ()), "detail of the client's output; `postback` has flags for that"),
    key(
        "disable_animation",
        "",
        Flag(|_, _| ()),
        "no progress bars; `postback` shows them on terminals only",
    ),
    key("disable_build_logs", "", Warned(LOG), "no build log on the screen"),
    key("disable_confirmation", "", Flag(|_, _| ()), "no questions; `postback deploy` asks none"),
    key("hide_public_endpoint", "", Warned(PROMPT), "no address in the client's output"),
    key(
        "disable_syntax_check",
        "",
        Flag(|_, _| ()),
        "no syntax check by the client; the import finds errors",
    ),
];

/// `cerebrium.toml`, both forms. The first form has `cerebrium.build` and strings for the patterns.
const TOML: &[Key] = &[
    key(
        "cerebrium.deployment.name",
        "the argument of `deploy`",
        Text(|c, v| c.name = Some(v)),
        "the app's name",
    ),
    key(
        "cerebrium.deployment.python_version",
        "this machine's `python3`",
        PythonVersion(|c, v| c.app.python_version = Some(v)),
        "the interpreter; one that this machine lacks is fetched by uv",
    ),
    key(
        "cerebrium.deployment.include",
        "`[\"./*\", \"main.py\", \"cerebrium.toml\"]`",
        Patterns(|c, v| c.include = v),
        "files to upload",
    ),
    key("cerebrium.deployment.exclude", "`[\".*\"]`", Patterns(|c, v| c.exclude = v), "files not to upload"),
    key(
        "cerebrium.deployment.pre_build_commands",
        "none",
        List(|c, v| c.app.pre_build_commands = v),
        "commands run in the app's folder before the packages are installed",
    ),
    key(
        "cerebrium.deployment.shell_commands",
        "none",
        List(|c, v| c.app.shell_commands = v),
        "commands run in the app's folder after the packages are installed",
    ),
    key(
        "cerebrium.deployment.disable_auth",
        "`false`",
        Flag(|c, v| c.app.disable_auth = v),
        "callable without a key; honoured only by a server started with `--allow-open-apps`",
    ),
    key(
        "cerebrium.deployment.deployment_initialization_timeout",
        "600",
        Whole { min: 1, max: 3600, set: |c, v| c.app.start_limit_seconds = Some(v) },
        "seconds in which `main.py` must be imported",
    ),
    key(
        "cerebrium.deployment.use_uv",
        "",
        Flag(|_, _| ()),
        "install with uv; environments are always made with it",
    ),
    key(
        "cerebrium.deployment.docker_base_image_url",
        "",
        Warned("there are no images: the app runs on this machine's own system"),
        "base image",
    ),
    key(
        "cerebrium.deployment.base_image",
        "",
        Warned("there are no images: the app runs on this machine's own system"),
        "older name of `docker_base_image_url`",
    ),
    key("cerebrium.deployment.cuda_version", "", Warned(CUDA), "CUDA of the base image"),
    key(
        "cerebrium.hardware.compute",
        "`CPU`",
        Compute(|c, v| c.app.compute = v),
        "what a replica needs, in order of preference; refused at deploy when this machine does not have it",
    ),
    key("cerebrium.hardware.gpu", "`CPU`", Compute(|c, v| c.app.compute = v), "older name of `compute`"),
    key(
        "cerebrium.hardware.gpu_count",
        "1 on a GPU",
        Whole { min: 0, max: 8, set: |c, v| c.app.gpu_count = narrow(v) },
        "GPUs per replica; without meaning on `CPU`",
    ),
    key(
        "cerebrium.hardware.cpu",
        "no limit",
        Number { min: 0.1, max: 512.0, set: |c, v| c.app.cpu = Some(v) },
        "CPU cores per replica",
    ),
    key(
        "cerebrium.hardware.memory",
        "no limit",
        Number { min: 0.1, max: 4096.0, set: |c, v| c.app.memory = Some(v) },
        "memory per replica in GB; one that holds more is ended, see `errors/out_of_memory.md`",
    ),
    key("cerebrium.hardware.provider", "", Warned(HARDWARE_2023), "cloud to run in"),
    key("cerebrium.hardware.region", "", Warned(HARDWARE_2023), "region to run in"),
    key(
        "cerebrium.scaling.min_replicas",
        "0",
        Whole { min: 0, max: 200, set: |c, v| c.app.min_replicas = narrow(v) },
        "replicas kept even when idle",
    ),
    key(
        "cerebrium.scaling.max_replicas",
        "1",
        Whole { min: 1, max: 200, set: |c, v| c.app.max_replicas = Some(narrow(v)) },
        "replicas at most",
    ),
    key(
        "cerebrium.scaling.cooldown",
        "10; 60 in the first form",
        Whole { min: 0, max: 86_400, set: |c, v| c.app.cooldown_seconds = Some(v) },
        "idle seconds after which a spare replica stops",
    ),
    key(
        "cerebrium.scaling.replica_concurrency",
        "1 on GPUs and for `predict(item, run_id, logger)`, else 100",
        Whole { min: 1, max: 1000, set: |c, v| c.app.replica_concurrency = Some(narrow(v)) },
        "calls one replica works on at once",
    ),
    key(
        "cerebrium.scaling.response_grace_period",
        "900",
        Whole { min: 1, max: 43_200, set: |c, v| c.app.response_grace_period_seconds = Some(v) },
        "seconds one attempt of a run may take",
    ),
    key(
        "cerebrium.postback.max_attempts",
        "none",
        Whole { min: 1, max: 100, set: |c, v| c.app.max_attempts = Some(narrow(v)) },
        MAX_ATTEMPTS,
    ),
    key(
        "cerebrium.postback.retries",
        "0",
        Whole { min: 0, max: 10, set: |c, v| c.app.retries = Some(narrow(v)) },
        RETRIES,
    ),
    key(
        "cerebrium.postback.retry_on",
        RETRY_ON_DEFAULT,
        Effect::RetryOn(|c, v| c.app.retry_on = Some(v)),
        RETRY_ON,
    ),
    key("cerebrium.postback.processes", "4096", PROCESSES, PROCESSES_FOR),
    key("cerebrium.postback.disk", "50", DISK, DISK_FOR),
    key("cerebrium.postback.network", "`true`", NETWORK, NETWORK_FOR),
    key("cerebrium.postback.webhook_endpoints", "none", ENDPOINTS, ENDPOINTS_FOR),
    key("cerebrium.postback.webhook_headers", "none", HEADERS, HEADERS_FOR),
    key("cerebrium.postback.webhook_events_filter", "`[completed]`", EVENTS, EVENTS_FOR),
    key("cerebrium.postback.webhook_schedule", SCHEDULE_DEFAULT, SCHEDULE, SCHEDULE_FOR),
    key("cerebrium.postback.pip_overrides", "none", OVERRIDES, OVERRIDES_FOR),
    key("cerebrium.postback.returns", "`images`", RETURNS, RETURNS_FOR),
    key(
        "cerebrium.scaling.scaling_metric",
        "`concurrency_utilization`",
        Effect::Metric(|c, v| c.app.scaling_metric = Some(v)),
        "what the number of replicas follows, beside calls that find no free place: those add replicas at once. The \
         utilisation of CPU and memory needs `min_replicas` of 1 or more and takes no `scaling_buffer`",
    ),
    key(
        "cerebrium.scaling.scaling_target",
        "100",
        Whole {
            min: 1,
            max: limits::SCALING_TARGET_MAX as u64,
            set: |c, v| c.app.scaling_target = Some(narrow(v)),
        },
        "what a replica is kept at: percent of `replica_concurrency`, `cpu` or `memory` (of the machine's, where the file \
         says none), or requests a second",
    ),
    key(
        "cerebrium.scaling.scaling_buffer",
        "0",
        Whole { min: 0, max: 200, set: |c, v| c.app.scaling_buffer = Some(narrow(v)) },
        "replicas beyond those that the load or `min_replicas` asks for, up to `max_replicas`",
    ),
    key(
        "cerebrium.scaling.evaluation_interval_seconds",
        "30",
        Whole {
            min: limits::EVALUATION_INTERVAL_MIN.as_secs(),
            max: limits::EVALUATION_INTERVAL_MAX.as_secs(),
            set: |c, v| c.app.evaluation_interval_seconds = Some(v),
        },
        "seconds over which the metric is averaged; calls that wait are not averaged",
    ),
    key(
        "cerebrium.scaling.load_balancing_algorithm",
        "`first-available` when `replica_concurrency` is 3 or less; else any replica that is awake takes what there is",
        Effect::Balancing(|c, v| c.app.load_balancing_algorithm = v),
        "which of several replicas with a free place gets a run: `first-available` the oldest, `min-connections` the one \
         with the fewest calls, `random-choice-2` the better of two drawn ones, `round-robin` each in turn",
    ),
    key("cerebrium.scaling.compute_tier", "", Warned(HARDWARE_2023), "whether replicas may be interrupted"),
    key(
        "cerebrium.scaling.roll_out_duration_seconds",
        "0",
        Whole {
            min: 0,
            max: limits::ROLL_OUT_MAX.as_secs(),
            set: |c, v| c.app.roll_out_duration_seconds = Some(v),
        },
        "seconds over which the replicas of the build before leave, one after another, each with what it has finished; \
         with 0, or when the new build has other functions, new work goes to the new build alone at once",
    ),
    key(
        "cerebrium.dependencies.pip",
        "none; `pydantic` in the first form",
        Packages { line: super::packages::pip_line, set: |c, v| c.app.pip.extend(v) },
        "Python packages",
    ),
    key(
        "cerebrium.dependencies.apt",
        "none",
        Packages { line: super::packages::apt_line, set: |c, v| c.app.apt.extend(v) },
        "Debian packages; the build checks that they are installed, and installs them if the server was started with \
         `--install-apt-packages` and is root",
    ),
    key(
        "cerebrium.dependencies.conda",
        "none",
        Packages { line: super::packages::conda_line, set: |c, v| c.app.conda.extend(v) },
        "conda packages, from conda-forge unless the line says `channel::name`; micromamba makes the environment, and a \
         machine without it is told how to get it",
    ),
    key(
        "cerebrium.dependencies.paths.pip",
        "",
        PackageFile(|c, v| c.app.pip.extend(v)),
        "Python packages, from a file",
    ),
    key(
        "cerebrium.dependencies.paths.apt",
        "",
        PackageFile(|c, v| c.app.apt.extend(v)),
        "Debian packages, from a file",
    ),
    key(
        "cerebrium.dependencies.paths.conda",
        "",
        PackageFile(|c, v| c.app.conda.extend(v)),
        "conda packages, from a file",
    ),
    key(
        "cerebrium.runtime.custom.entrypoint",
        "none: the app is the functions of `main.py`",
        Effect::Entrypoint(|c, v| runtime(c).entrypoint = v),
        "what starts a web server of the app's own, see `../custom-runtimes.md`",
    ),
    key(
        "cerebrium.runtime.custom.port",
        "8000",
        Whole { min: 1, max: 65_535, set: |c, v| runtime(c).port = u16::try_from(v).unwrap_or(PORT_DEFAULT) },
        "the port that the `entrypoint` names; each replica gets one of its own in its place, and in `PORT`",
    ),
    key(
        "cerebrium.runtime.custom.healthcheck_endpoint",
        "none: it takes connections",
        Effect::Path(|c, v| runtime(c).healthcheck_endpoint = v),
        "answers 2xx while the server is well; a replica that fails it three times in a row is replaced",
    ),
    key(
        "cerebrium.runtime.custom.readycheck_endpoint",
        "none",
        Effect::Path(|c, v| runtime(c).readycheck_endpoint = v),
        "answers 2xx while the server may be given requests",
    ),
    key("cerebrium.runtime.custom.dockerfile_path", "", Refused(DOCKERFILE), "an image of one's own"),
    key("cerebrium.runtime.asgi", "", Refused(ASGI), "older name of `runtime.custom`"),
    key("cerebrium.runtime.deepgram", "", Refused(PARTNER), "partner runtime"),
    key("cerebrium.runtime.rime", "", Refused(PARTNER), "partner runtime"),
    key("cerebrium.runtime.assemblyai", "", Refused(PARTNER), "partner runtime"),
    key(
        "cerebrium.runtime.container_runtime",
        "",
        Warned("replicas are processes of this machine, not containers"),
        "container runtime",
    ),
    key(
        "cerebrium.experimental.checkpointing",
        "",
        Warned("replicas are not checkpointed"),
        "start replicas from memory images",
    ),
    key(
        "cerebrium.build.shell_commands",
        "none",
        List(|c, v| c.app.shell_commands = v),
        "first form: commands run after the packages are installed",
    ),
    key(
        "cerebrium.build.predict_data",
        "",
        Warned(SMOKE),
        "first form: input of a trial call while building",
    ),
    key("cerebrium.build.disable_predict", "", Warned(SMOKE), "first form: no trial call while building"),
    key("cerebrium.build.init_debug", "", Warned(SMOKE), "first form: stop after the import"),
    key("cerebrium.build.pre_init_debug", "", Warned(SMOKE), "first form: stop before the import"),
    key(
        "cerebrium.build.force_rebuild",
        "",
        Warned("environments are made anew whenever packages, commands or interpreter change"),
        "first form: no use of the cache",
    ),
    key(
        "cerebrium.build.log_level",
        "",
        Text(|_, _| ()),
        "first form: detail of the client's output; `postback` has flags for that",
    ),
    key(
        "cerebrium.build.disable_animation",
        "",
        Flag(|_, _| ()),
        "first form: no progress bars; `postback` shows them on terminals only",
    ),
    key("cerebrium.build.disable_build_logs", "", Warned(LOG), "first form: no build log on the screen"),
    key(
        "cerebrium.build.disable_confirmation",
        "",
        Flag(|_, _| ()),
        "first form: no questions; `postback deploy` asks none",
    ),
    key(
        "cerebrium.build.hide_public_endpoint",
        "",
        Warned(PROMPT),
        "first form: no address in the client's output",
    ),
    key(
        "cerebrium.build.disable_syntax_check",
        "",
        Flag(|_, _| ()),
        "first form: no syntax check by the client; the import finds errors",
    ),
];

/// The app's own web server, of which the file says something.
fn runtime(config: &mut Config) -> &mut CustomRuntime {
    config.app.runtime.get_or_insert_with(|| CustomRuntime {
        entrypoint: Entrypoint::Words(Vec::new()),
        port: PORT_DEFAULT,
        healthcheck_endpoint: None,
        readycheck_endpoint: None,
    })
}

/// Bounds above keep these numbers far below `u32::MAX`.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_stands_twice_and_none_is_inside_another() {
        for form in [Form::Yaml2023, Form::TomlCurrent] {
            for (i, key) in of(form).iter().enumerate() {
                for other in &of(form)[i + 1..] {
                    assert_ne!(key.path, other.path);
                    assert!(
                        !other.path.starts_with(&format!("{}.", key.path)),
                        "{} in {}",
                        other.path,
                        key.path
                    );
                }
            }
        }
    }
}
