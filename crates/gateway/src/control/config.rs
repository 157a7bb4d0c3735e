//! From a create-app request to an [`AppConfig`], in both dialects of Cerebrium's clients and our own.
//!
//! The Python client sends floats, `compute` as a text and every key; the Go client sends whole numbers,
//! `compute` as a list and `null` for lists that are not set. Our own client sends an [`AppConfig`]. What
//! this server cannot do is refused here, before anything is uploaded, never ignored.

use queue::app::AppConfig;
use queue::hardware::Hardware;
use queue::limits::{
    REPLICA_CONCURRENCY_MAX, REPLICAS_PER_APP_MAX, RESPONSE_GRACE_PERIOD_MAX, WEBHOOKS_PER_RUN_MAX,
};
use queue::rerun::RetryOn;
use queue::scaling::{Balancing, Metric};
use queue::{AppName, limits};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::request::{Fields, invalid, refused};
use super::runtime;
use crate::RESERVED_APP_NAMES;
use crate::problem::{Answer, Problem, clip};

/// Idle time at most: a day, then `minReplicaCount` is what was meant.
const COOLDOWN_SECONDS_MAX: u64 = 86_400;

/// A replica has some threads before the app's code begins.
const PROCESSES_MIN: u64 = 8;

/// Keys of options that change nothing here. They are named to the caller when they are set.
const WITHOUT_EFFECT: &[&str] = &["containerRuntime", "dockerAuth"];

/// The spellings of the scaling keys: Cerebrium's, then our own.
const MIN_REPLICAS: &[&str] = &["minReplicaCount", "minReplicas"];
const MAX_REPLICAS: &[&str] = &["maxReplicaCount", "maxReplicas"];
const COOLDOWN: &[&str] = &["cooldownPeriodSeconds", "cooldownSeconds"];
const GRACE_PERIOD: &[&str] = &["responseGracePeriodSeconds"];
const CONCURRENCY: &[&str] = &["replicaConcurrency"];
/// What can be changed without a new build, in the words of people.
pub(super) const SCALING_KEYS: &str = "`minReplicaCount`, `maxReplicaCount`, `cooldownPeriodSeconds`, \
    `responseGracePeriodSeconds`, `replicaConcurrency`, `scalingMetric`, `scalingTarget`, `scalingBuffer`, \
    `evaluationIntervalSeconds`, `rollOutDurationSeconds`, `loadBalancingAlgorithm`";

/// The app's name.
pub(super) fn name(fields: &Fields) -> Answer<AppName> {
    let text = fields
        .text(&["name"])?
        .ok_or_else(|| refused("`name` is missing: it names the app within its project"))?;
    if RESERVED_APP_NAMES.contains(&text) {
        return Err(Problem::unprocessable(
            "reserved_name",
            format!(
                "an app cannot be called `{text}`, since the server's own paths begin so; choose another name"
            ),
        ));
    }
    text.parse().map_err(|_| {
        refused(format!(
            "`{}` cannot be an app's name: 1 to 64 lower-case letters, digits, `-` and `_`, not beginning with `-`",
            clip(text)
        ))
    })
}

/// The app's configuration, for a node that has `hardware`.
pub(super) fn read(fields: &Fields, hardware: &Hardware) -> Answer<AppConfig> {
    let (compute, gpu_count) = compute(fields, hardware)?;
    let mut config = AppConfig {
        python_version: python_version(fields)?,
        compute,
        gpu_count,
        cpu: fields.positive(&["cpu"], 1_024.0)?,
        memory: fields.positive(&["memory"], 65_536.0)?,
        processes: fields.whole(&["processes"], PROCESSES_MIN..=u64::from(limits::REPLICA_PROCESSES_MAX))?,
        disk: fields.positive(&["disk"], 100_000.0)?,
        no_network: fields.flag(&["noNetwork"])?.unwrap_or(false),
        start_limit_seconds: fields.whole(
            &["deploymentInitializationTimeout", "startLimitSeconds"],
            1..=limits::BUILD_LIMIT.as_secs(),
        )?,
        retries: fields.whole(&["retries"], 0..=u64::from(limits::RETRIES_MAX))?,
        retry_on: retry_on(fields)?,
        max_attempts: fields.whole(&["maxAttempts"], 1..=u64::from(limits::MAX_ATTEMPTS_MAX))?,
        disable_auth: fields.flag(&["disableAuth"])?.unwrap_or(false),
        pre_build_commands: fields.texts(&["preBuildCommands"])?,
        shell_commands: fields.texts(&["shellCommands"])?,
        pip: fields.texts(&["pip"])?,
        pip_overrides: fields.texts(&["pipOverrides"])?,
        returns: returns(fields)?,
        apt: fields.texts(&["apt"])?,
        conda: fields.texts(&["conda"])?,
        webhook_endpoints: fields.texts(&["webhookEndpoints"])?,
        webhook_headers: taken(fields, "webhookHeaders")?,
        webhook_events_filter: taken(fields, "webhookEventsFilter")?,
        webhook_schedule: taken(fields, "webhookSchedule")?,
        runtime: runtime::read(fields)?,
        ..AppConfig::default()
    };
    if config.webhook_endpoints.len() > WEBHOOKS_PER_RUN_MAX {
        let named = config.webhook_endpoints.len();
        return Err(refused(format!(
            "`webhookEndpoints` names {named} addresses; a run tells {WEBHOOKS_PER_RUN_MAX} at most"
        )));
    }
    if config.runtime.is_some() && config.no_network {
        return Err(refused(
            "`noNetwork` cannot be `true` for an app with an `entrypoint`: its web server is reached over the network"
                .to_owned(),
        ));
    }
    scale(fields, &mut config)?;
    Ok(config)
}

/// The word that acknowledgements say.
fn returns(fields: &Fields) -> Answer<Option<String>> {
    let Some((_, value)) = fields.value(&["returns"]) else { return Ok(None) };
    let is_word = |text: &&str| (1..=40).contains(&text.len()) && !text.contains(char::is_control);
    match value.as_str().filter(is_word) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(refused(
            "`returns` is what the app returns in a word or two, 40 bytes at most, such as `images`"
                .to_owned(),
        )),
    }
}

/// A value with rules of its own, which say what is wrong with it.
fn taken<T: DeserializeOwned>(fields: &Fields, key: &'static str) -> Answer<Option<T>> {
    let Some((_, value)) = fields.value(&[key]) else { return Ok(None) };
    // The value may hold secrets: the rule is told, not what broke it.
    T::deserialize(value).map(Some).map_err(|why| refused(format!("`{key}` {why}")))
}

/// Changes what the request names of the scaling, and nothing else. Returns whether it named anything.
pub(super) fn scale(fields: &Fields, config: &mut AppConfig) -> Answer<bool> {
    let most = u64::from(REPLICAS_PER_APP_MAX);
    let (min, max) = (fields.whole(MIN_REPLICAS, 0..=most)?, fields.whole(MAX_REPLICAS, 1..=most)?);
    let cooldown = fields.whole(COOLDOWN, 0..=COOLDOWN_SECONDS_MAX)?;
    let grace = fields.whole(GRACE_PERIOD, 1..=RESPONSE_GRACE_PERIOD_MAX.as_secs())?;
    let concurrency = fields.whole(CONCURRENCY, 1..=u64::from(REPLICA_CONCURRENCY_MAX))?;
    let metric = word(fields, "scalingMetric", Metric::named, Metric::ALL.map(Metric::as_str))?;
    let target = fields.whole(&["scalingTarget"], 1..=u64::from(limits::SCALING_TARGET_MAX))?;
    let buffer = fields.whole(&["scalingBuffer"], 0..=most)?;
    let interval = limits::EVALUATION_INTERVAL_MIN.as_secs()..=limits::EVALUATION_INTERVAL_MAX.as_secs();
    let interval = fields.whole(&["evaluationIntervalSeconds"], interval)?;
    let roll_out = fields.whole(&["rollOutDurationSeconds"], 0..=limits::ROLL_OUT_MAX.as_secs())?;
    let balancing =
        word(fields, "loadBalancingAlgorithm", Balancing::named, Balancing::ALL.map(Balancing::as_str))?;
    let named = [min.is_some(), max.is_some(), cooldown.is_some(), grace.is_some(), concurrency.is_some()]
        .into_iter()
        .chain([metric.is_some(), target.is_some(), buffer.is_some(), interval.is_some()])
        .chain([roll_out.is_some(), balancing.is_some()])
        .any(|named| named);

    config.min_replicas = min.unwrap_or(config.min_replicas);
    config.max_replicas = max.or(config.max_replicas);
    config.cooldown_seconds = cooldown.or(config.cooldown_seconds);
    config.response_grace_period_seconds = grace.or(config.response_grace_period_seconds);
    config.replica_concurrency = concurrency.or(config.replica_concurrency);
    config.scaling_metric = metric.or(config.scaling_metric);
    config.scaling_target = target.or(config.scaling_target);
    config.scaling_buffer = buffer.or(config.scaling_buffer);
    config.evaluation_interval_seconds = interval.or(config.evaluation_interval_seconds);
    config.roll_out_duration_seconds = roll_out.or(config.roll_out_duration_seconds);
    config.load_balancing_algorithm = balancing.or(config.load_balancing_algorithm);
    if let Some(max) = config.max_replicas.filter(|max| *max < config.min_replicas) {
        return Err(refused(format!(
            "`{}` is {max}, which is fewer than `{}` ({}); raise the one or lower the other",
            MAX_REPLICAS[0], MIN_REPLICAS[0], config.min_replicas
        )));
    }
    config.check_scaling().map_err(|why| refused(format!("`{}` {}", why.key, why.message)))?;
    Ok(named)
}

/// One of a few words.
fn word<T, const N: usize>(
    fields: &Fields,
    key: &'static str,
    named: fn(&str) -> Option<T>,
    words: [&str; N],
) -> Answer<Option<T>> {
    let Some(text) = fields.text(&[key])? else { return Ok(None) };
    match named(text) {
        Some(value) => Ok(Some(value)),
        None => Err(invalid(
            key,
            &format!("one of {}", words.map(|word| format!("`{word}`")).join(", ")),
            &Value::from(text),
        )),
    }
}

/// What the caller should know although nothing was refused.
pub(super) fn warnings(fields: &Fields, config: &AppConfig, hardware: &Hardware) -> Vec<String> {
    let without_effect = WITHOUT_EFFECT.iter().filter(|key| fields.value(&[key]).is_some());
    let mut warnings: Vec<String> =
        without_effect.map(|key| format!("`{key}` has no effect on this server")).collect();
    if config.wants_gpu() && hardware.choose(&config.compute, config.gpu_count).is_empty() {
        warnings.push(format!(
            "{}: the app runs on CPUs, since the server was started with `--cpu-fallback`",
            lacking(&config.compute, config.gpu_count, hardware)
        ));
    }
    warnings
}

/// Of the hardware asked for, in order of preference, what there is; and the GPUs of a replica.
fn compute(fields: &Fields, hardware: &Hardware) -> Answer<(Vec<String>, u32)> {
    let asked: Vec<String> =
        fields.texts(&["compute", "hardware"])?.iter().map(|id| id.trim().to_uppercase()).collect();
    let is_cpu = |compute: &[String]| compute.first().is_none_or(|id| id == "CPU");
    if is_cpu(&asked) {
        // Old config files say `gpu_count: 1` on CPUs as well; there is none to give.
        return Ok((asked.into_iter().take(1).collect(), 0));
    }
    let gpu_count = fields.whole(&["gpuCount"], 0..=64)?.unwrap_or(0).max(1);
    let chosen = hardware.choose(&asked, gpu_count);
    if !chosen.is_empty() {
        let gpu_count = if is_cpu(&chosen) { 0 } else { gpu_count };
        return Ok((chosen, gpu_count));
    }
    if hardware.cpu_fallback {
        return Ok((asked, gpu_count));
    }
    let lacking = lacking(&asked, gpu_count, hardware);
    Err(Problem::unprocessable(
        "hardware_unavailable",
        format!(
            "{lacking}; it has: {}. Ask for that, or have the server started with `--cpu-fallback`",
            hardware.described()
        ),
    ))
}

/// What is asked for and not there.
fn lacking(asked: &[String], gpu_count: u32, hardware: &Hardware) -> String {
    let names = clip(&asked.join("`, `")).to_string();
    if asked.iter().any(|id| hardware.count(id) > 0) {
        format!(
            "`gpu_count` asks for {gpu_count} GPUs of `{names}`, which this server does not have so many of"
        )
    } else {
        format!("`compute` asks for `{names}`, which this server does not have")
    }
}

fn retry_on(fields: &Fields) -> Answer<Option<RetryOn>> {
    let words = fields.texts(&["retryOn"])?;
    if words.is_empty() {
        return Ok(None);
    }
    RetryOn::of(words.iter().map(String::as_str))
        .map(Some)
        .map_err(|error| refused(format!("`retryOn` cannot be used: {error}")))
}

fn python_version(fields: &Fields) -> Answer<Option<String>> {
    let Some(text) = fields.text(&["pythonVersion"])? else { return Ok(None) };
    let parts: Vec<&str> = text.split('.').collect();
    let number =
        |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts[0] == "3" && (1..=3).contains(&parts.len()) && parts.iter().all(number) {
        Ok(Some(text.to_owned()))
    } else {
        Err(invalid("pythonVersion", "a version such as `3.11`", &Value::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::hardware::{Gpu, PlacedGpu};
    use queue::web::{CustomRuntime, Entrypoint};
    use queue::webhook::{EventFilter, WebhookHeaders};
    use serde_json::json;

    fn read_json(json: Value) -> Answer<AppConfig> {
        read(&Fields::from(json), &Hardware::default())
    }

    #[test]
    fn both_clients_say_the_same_in_their_dialects() {
        let python = json!({
            "name": "demo", "pythonVersion": "3.11", "baseImage": "debian:bookworm-slim", "include": ["*"],
            "exclude": [".*"], "shellCommands": [], "preBuildCommands": [], "disableAuth": true, "cpu": 2.0,
            "memory": 8.0, "compute": "CPU", "minReplicaCount": 0, "maxReplicaCount": 2.0,
            "cooldownPeriodSeconds": 30, "runtime": "cortex", "logLevel": "INFO", "disableBuildLogs": false,
            "cliVersion": "1.51.0", "projectId": "p-12345678"
        });
        let go = json!({
            "name": "demo", "pythonVersion": "3.11", "shellCommands": null, "preBuildCommands": null,
            "disableAuth": true, "cpu": 2, "memory": 8, "compute": ["CPU"], "minReplicaCount": 0,
            "maxReplicaCount": 2, "cooldownPeriodSeconds": 30, "cerebrium_toml": "[cerebrium]"
        });
        let config = read_json(python).unwrap();
        assert_eq!(config, read_json(go).unwrap());
        assert_eq!(
            config,
            AppConfig {
                python_version: Some("3.11".into()),
                compute: vec!["CPU".into()],
                cpu: Some(2.0),
                memory: Some(8.0),
                max_replicas: Some(2),
                cooldown_seconds: Some(30),
                disable_auth: true,
                ..AppConfig::default()
            }
        );
    }

    #[test]
    fn our_own_configuration_survives_the_way_here() {
        let config = AppConfig {
            python_version: Some("3.12".into()),
            compute: vec!["CPU".into()],
            cpu: Some(0.5),
            memory: Some(1.5),
            processes: Some(64),
            disk: Some(0.5),
            no_network: true,
            min_replicas: 1,
            max_replicas: Some(3),
            cooldown_seconds: Some(5),
            replica_concurrency: Some(4),
            response_grace_period_seconds: Some(60),
            scaling_metric: Some(Metric::RequestsPerSecond),
            scaling_target: Some(5),
            scaling_buffer: Some(1),
            evaluation_interval_seconds: Some(6),
            roll_out_duration_seconds: Some(60),
            load_balancing_algorithm: Some(Balancing::MinConnections),
            start_limit_seconds: Some(30),
            pip: vec!["numpy==2.1".into()],
            pip_overrides: vec!["opencv-python; python_version<'0'".into()],
            returns: Some("text".into()),
            apt: vec!["ffmpeg".into()],
            conda: vec!["cuda".into()],
            shell_commands: vec!["true".into()],
            pre_build_commands: vec!["false".into()],
            webhook_endpoints: vec!["https://a.example/".into()],
            webhook_headers: Some(WebhookHeaders::parse(r#"{"x-api-key":"s3cret"}"#).unwrap()),
            webhook_events_filter: Some(EventFilter::parse(["start", "completed"]).unwrap()),
            webhook_schedule: Some("5s,1h".parse().unwrap()),
            ..AppConfig::default()
        };
        assert_eq!(read_json(serde_json::to_value(&config).unwrap()).unwrap(), config);
        let runtime = CustomRuntime {
            entrypoint: Entrypoint::Words(vec!["./run".into(), "a b".into()]),
            port: 5000,
            healthcheck_endpoint: Some("/health".into()),
            readycheck_endpoint: Some("/ready".into()),
        };
        let config = AppConfig { no_network: false, runtime: Some(runtime), ..config };
        assert_eq!(read_json(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }

    fn with_gpus(names: &[&str], cpu_fallback: bool) -> Hardware {
        let gpus = names.iter().enumerate().map(|(number, name)| PlacedGpu {
            gpu: Gpu { uuid: format!("GPU-{number}"), name: (*name).to_owned(), memory_bytes: 24 << 30 },
            app: None,
        });
        Hardware { gpus: gpus.collect(), cpu_fallback }
    }

    #[test]
    fn of_the_gpus_asked_for_those_are_kept_that_there_are() {
        let hardware = with_gpus(&["NVIDIA A10", "NVIDIA A10"], false);
        for (request, compute, gpu_count) in [
            (json!({"compute": "AMPERE_A10"}), vec!["AMPERE_A10"], 1),
            (json!({"compute": "ampere_a10", "gpuCount": 2}), vec!["AMPERE_A10"], 2),
            (json!({"hardware": "GPU", "gpuCount": 0}), vec!["GPU"], 1),
            (json!({"compute": ["HOPPER_H100", "AMPERE_A10"]}), vec!["AMPERE_A10"], 1),
            (json!({"compute": ["HOPPER_H100", "CPU"], "gpuCount": 1}), vec!["CPU"], 0),
            (json!({"compute": ["CPU", "AMPERE_A10"], "gpuCount": 1}), vec!["CPU"], 0),
            (json!({}), vec![], 0),
        ] {
            let config = read(&Fields::from(request.clone()), &hardware).unwrap();
            assert_eq!(
                (config.compute, config.gpu_count),
                (compute.iter().map(ToString::to_string).collect(), gpu_count),
                "{request}"
            );
        }
        for (request, said) in [
            (
                json!({"compute": "HOPPER_H100"}),
                "`HOPPER_H100`, which this server does not have; it has: CPU, AMPERE_A10 (2 × NVIDIA A10, 24 GiB each)",
            ),
            (json!({"compute": "AMPERE_A10", "gpuCount": 3}), "`gpu_count` asks for 3 GPUs of `AMPERE_A10`"),
            (json!({"compute": "AMPERE_A10", "gpuCount": 65}), "from 0 to 64"),
        ] {
            let problem = read(&Fields::from(request), &hardware).unwrap_err();
            assert!(problem.message.contains(said), "{}", problem.message);
        }
    }

    #[test]
    fn a_server_that_falls_back_to_cpus_takes_what_it_has_not_and_says_so() {
        let hardware = with_gpus(&["NVIDIA A10"], true);
        let told = |request: Value| {
            let fields = Fields::from(request);
            let config = read(&fields, &hardware).unwrap();
            (config.compute.clone(), warnings(&fields, &config, &hardware))
        };
        let (compute, said) = told(json!({"compute": "HOPPER_H100"}));
        assert_eq!(compute, ["HOPPER_H100"], "a server that has it may take the app over");
        assert!(
            said[0].contains("`HOPPER_H100`, which this server does not have: the app runs on CPUs"),
            "{said:?}"
        );
        assert_eq!(told(json!({"compute": "AMPERE_A10"})).1, [""; 0]);
        assert_eq!(told(json!({"compute": "CPU"})).1, [""; 0]);
    }

    #[test]
    fn a_web_server_is_named_as_cerebriums_clients_name_it() {
        let runtime = |json| read_json(json).unwrap().runtime.unwrap();
        let line = runtime(json!({"runtime": "custom", "entrypoint": "uvicorn main:app", "port": 8080.0}));
        assert_eq!((line.entrypoint, line.port), (Entrypoint::Line("uvicorn main:app".into()), 8080));
        let words = runtime(json!({
            "entrypoint": ["uvicorn", "main:app"], "port": null, "healthcheckEndpoint": "", "readycheckEndpoint": "ready"
        }));
        assert_eq!(words.entrypoint, Entrypoint::Words(vec!["uvicorn".into(), "main:app".into()]));
        assert_eq!((words.port, words.healthcheck_endpoint), (8000, None));
        assert_eq!(words.readycheck_endpoint.as_deref(), Some("/ready"));
        // Clients send the keys of a section that is not there as well.
        assert_eq!(
            read_json(json!({"runtime": "cortex", "port": 8000, "entrypoint": null})).unwrap().runtime,
            None
        );
    }

    #[test]
    fn what_the_server_cannot_do_is_refused_with_a_way_out() {
        for (request, code, said) in [
            (json!({"compute": "AMPERE_A10"}), "hardware_unavailable", "it has: CPU"),
            (json!({"compute": ["H100", "L4"]}), "hardware_unavailable", "`H100`, `L4`"),
            (json!({"runtime": "custom"}), "invalid_value", "`entrypoint`"),
            (json!({"runtime": "custom", "entrypoint": [" "]}), "invalid_value", "`entrypoint`"),
            (json!({"runtime": "custom", "entrypoint": 1}), "invalid_value", "`entrypoint`"),
            (json!({"customRuntime": {"entrypoint": ["x"], "port": 0}}), "invalid_value", "from 1 to 65535"),
            (json!({"customRuntime": "x"}), "invalid_value", "`customRuntime`"),
            (
                json!({"entrypoint": "x", "healthcheckEndpoint": "a b"}),
                "invalid_value",
                "`healthcheckEndpoint`",
            ),
            (json!({"entrypoint": "x", "noNetwork": true}), "invalid_value", "`noNetwork`"),
            (json!({"runtime": "deepgram"}), "unsupported_runtime", "`deepgram`"),
            (json!({"partnerService": "rime"}), "unsupported_runtime", "`rime`"),
            (json!({"dockerfilePath": "./Dockerfile"}), "unsupported_runtime", "`entrypoint`"),
            (json!({"maxReplicaCount": 0}), "invalid_value", "from 1 to 200"),
            (json!({"minReplicaCount": 3, "maxReplicaCount": 2}), "invalid_value", "fewer than"),
            (json!({"memory": -1}), "invalid_value", "`memory`"),
            (json!({"returns": "x".repeat(41)}), "invalid_value", "`returns`"),
            (json!({"pipOverrides": [1]}), "invalid_value", "`pipOverrides`"),
            (json!({"webhookHeaders": {"Host": "s3cret"}}), "invalid_value", "sets itself"),
            (json!({"webhookHeaders": "s3cret"}), "invalid_value", "`webhookHeaders`"),
            (json!({"webhookEventsFilter": ["end"]}), "invalid_value", "`end`"),
            (json!({"webhookSchedule": ["5s", "0s"]}), "invalid_value", "the step `0s`"),
            (json!({"webhookSchedule": "5s"}), "invalid_value", "list of waits"),
            (json!({"webhookEndpoints": vec!["https://a.example/"; 9]}), "invalid_value", "8 at most"),
            (json!({"pythonVersion": "2.7"}), "invalid_value", "3.11"),
            (json!({"pythonVersion": "3.11; rm"}), "invalid_value", "3.11"),
            (json!({"responseGracePeriodSeconds": 43_201}), "invalid_value", "43200"),
            (json!({"scalingMetric": "queue_length"}), "invalid_value", "`requests_per_second`"),
            (json!({"scalingMetric": "cpu_utilization"}), "invalid_value", "`min_replicas` to 1"),
            (
                json!({"scalingMetric": "memory_utilization", "minReplicaCount": 1, "scalingBuffer": 1}),
                "invalid_value",
                "`scaling_buffer` cannot",
            ),
            (json!({"scalingTarget": 120}), "invalid_value", "percent"),
            (json!({"evaluationIntervalSeconds": 5}), "invalid_value", "from 6 to 300"),
            (json!({"rollOutDurationSeconds": 30_000}), "invalid_value", "21600"),
            (json!({"loadBalancingAlgorithm": "fewest"}), "invalid_value", "`random-choice-2`"),
        ] {
            let problem = read_json(request.clone()).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code.as_ref()), (422, code), "{request}");
            assert!(problem.message.contains(said), "{request}: {}", problem.message);
        }
        assert!(read_json(json!({"compute": ["AMPERE_A10", "cpu"]})).unwrap().compute == ["CPU"]);
    }

    #[test]
    fn names_are_checked_against_form_and_reserve() {
        for good in ["demo", "webhook-delay-example", "1-a_b"] {
            assert_eq!(name(&Fields::from(json!({"name": good}))).unwrap().as_str(), good);
        }
        for bad in [json!("inbox"), json!("Demo"), json!("a/b"), json!(""), json!(null), json!(7)] {
            assert_eq!(name(&Fields::from(json!({"name": bad}))).unwrap_err().status.as_u16(), 422, "{bad}");
        }
    }
}
