//! What each form says, key by key, and what is said about a file that is wrong.

use queue::scaling::{Balancing, Metric};
use queue::web::Entrypoint;
use queue::webhook::WebhookHeaders;

use super::*;

const DELAY: &str = "%YAML 1.2\n---\nhardware: CPU\ncpu: 2\nmemory: 5\ndisable_animation: false\n\
    exclude: '[./.*, ./__*]'\ninclude: '[./*, main.py, requirements.txt, pkglist.txt, conda_pkglist.txt]'\n\
    log_level: INFO\n";

fn parse(file: &str, source: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    Config::parse(source, file, folder.path())
}

fn error(file: &str, source: &str) -> String {
    parse(file, source).unwrap_err().to_string()
}

#[test]
fn the_delay_example_reads_without_a_warning() {
    let config = parse("config.yaml", DELAY).unwrap();
    assert_eq!(config.form, Form::Yaml2023);
    assert_eq!(config.warnings, []);
    assert_eq!(config.name, None);
    assert_eq!(config.app.compute, ["CPU"]);
    assert_eq!((config.app.cpu, config.app.memory, config.app.gpu_count), (Some(2.0), Some(5.0), 0));
    assert_eq!(config.include, ["./*", "main.py", "requirements.txt", "pkglist.txt", "conda_pkglist.txt"]);
    assert_eq!(config.exclude, ["./.*", "./__*"]);
    assert_eq!(config.app.pip, BASE_IMAGE_PACKAGES);
    assert_eq!(config.app.cooldown_seconds, Some(60));
}

#[test]
fn python_3_10_is_not_python_3_1() {
    for source in ["python_version: 3.10\n", "python_version: '3.10'\n"] {
        assert_eq!(parse("config.yaml", source).unwrap().app.python_version.as_deref(), Some("3.10"));
    }
    let source = "[cerebrium.deployment]\npython_version = 3.10\n";
    assert_eq!(parse("cerebrium.toml", source).unwrap().app.python_version.as_deref(), Some("3.10"));
    assert_eq!(
        error("config.yaml", "cpu: 1\npython_version: 3.1\n"),
        "config.yaml:2: `python_version` is `3.1`; did you mean `3.10`? Python 3.8 or later is needed"
    );
}

#[test]
fn the_first_form_of_toml_keeps_its_strings_and_its_base_image() {
    let config = parse(
        "cerebrium.toml",
        r#"
[cerebrium.build]
predict_data = "{\"prompt\": \"x\"}"
disable_animation = false
shell_commands = ["echo hello"]

[cerebrium.deployment]
name = "first"
python_version = "3.10"
include = "[./*, main.py, cerebrium.toml]"
exclude = "[./example_exclude]"

[cerebrium.hardware]
gpu = "AMPERE_A5000"
cpu = 2
memory = 16.0

[cerebrium.scaling]
min_replicas = 0
cooldown = 30
"#,
    )
    .unwrap();
    assert_eq!(config.form, Form::TomlFirst);
    assert_eq!(config.name.as_deref(), Some("first"));
    assert_eq!(config.include, ["./*", "main.py", "cerebrium.toml"]);
    assert_eq!(config.exclude, ["./example_exclude"]);
    assert_eq!((config.app.compute, config.app.gpu_count), (vec!["AMPERE_A5000".to_owned()], 1));
    assert_eq!(config.app.shell_commands, ["echo hello"]);
    assert_eq!(config.app.cooldown_seconds, Some(30));
    assert_eq!(config.app.pip, BASE_IMAGE_PACKAGES);
    assert_eq!(config.warnings.len(), 1);
    assert_eq!(
        (config.warnings[0].line, config.warnings[0].key.as_str()),
        (3, "cerebrium.build.predict_data")
    );
}

#[test]
fn the_current_form_of_toml_says_all_it_can() {
    let config = parse(
        "cerebrium.toml",
        r#"
[cerebrium.deployment]
name = "current"
python_version = "3.12"
docker_base_image_url = "debian:bookworm-slim"
include = ["./*", "main.py"]
exclude = [".*"]
shell_commands = ["echo after"]
pre_build_commands = ["echo before"]
disable_auth = true
use_uv = true
deployment_initialization_timeout = 120

[cerebrium.hardware]
cpu = 2.5
memory = 4.0
compute = ["HOPPER_H100", "AMPERE_A10"]
gpu_count = 2
provider = "aws"

[cerebrium.scaling]
min_replicas = 1
max_replicas = 3
cooldown = 30
replica_concurrency = 4
response_grace_period = 3600
scaling_metric = "cpu_utilization"
scaling_target = 70
evaluation_interval_seconds = 6
roll_out_duration_seconds = 60
load_balancing_algorithm = "min-connections"

[cerebrium.dependencies.pip]
numpy = "latest"
torch = "2.1.0"
pydantic = ">=2"

[cerebrium.dependencies.apt]
ffmpeg = "latest"

[cerebrium.dependencies.conda]
cuda = "11.8"
"#,
    )
    .unwrap();
    let app = AppConfig {
        python_version: Some("3.12".into()),
        compute: vec!["HOPPER_H100".into(), "AMPERE_A10".into()],
        gpu_count: 2,
        cpu: Some(2.5),
        memory: Some(4.0),
        min_replicas: 1,
        max_replicas: Some(3),
        cooldown_seconds: Some(30),
        replica_concurrency: Some(4),
        scaling_metric: Some(Metric::CpuUtilization),
        scaling_target: Some(70),
        evaluation_interval_seconds: Some(6),
        roll_out_duration_seconds: Some(60),
        load_balancing_algorithm: Some(Balancing::MinConnections),
        retries: None,
        max_attempts: None,
        retry_on: None,
        response_grace_period_seconds: Some(3600),
        start_limit_seconds: Some(120),
        disable_auth: true,
        pre_build_commands: vec!["echo before".into()],
        shell_commands: vec!["echo after".into()],
        pip: vec!["numpy".into(), "torch==2.1.0".into(), "pydantic>=2".into()],
        apt: vec!["ffmpeg".into()],
        conda: vec!["cuda=11.8".into()],
        ..AppConfig::default()
    };
    assert_eq!((config.form, &config.app), (Form::TomlCurrent, &app));
    let warned: Vec<_> = config.warnings.iter().map(|warning| (warning.line, warning.key.as_str())).collect();
    assert_eq!(
        warned,
        [(5, "cerebrium.deployment.docker_base_image_url"), (19, "cerebrium.hardware.provider"),]
    );
}

#[test]
fn the_current_form_gets_no_packages_it_did_not_name() {
    assert_eq!(parse("cerebrium.toml", "[cerebrium.deployment]\nname = 'a'\n").unwrap().app.pip, [""; 0]);
}

#[test]
fn both_forms_say_the_same_about_webhooks() {
    let toml = parse(
        "cerebrium.toml",
        "[cerebrium.postback]\nwebhook_endpoints = ['https://a.example/']\n\
         webhook_headers = { X-Api-Key = '${KEY}' }\nwebhook_events_filter = ['start', 'completed']\n\
         webhook_schedule = ['5s', '60m']\n",
    );
    let yaml = parse(
        "config.yaml",
        "postback:\n  webhook_endpoints: [https://a.example/]\n  webhook_headers:\n    X-Api-Key: ${KEY}\n  \
         webhook_events_filter: [start, completed]\n  webhook_schedule: [5s, 60m]\n",
    );
    let (toml, yaml) = (toml.unwrap().app, yaml.unwrap().app);
    assert_eq!(toml.webhook_endpoints, ["https://a.example/"]);
    assert_eq!(toml.webhook_headers, Some(WebhookHeaders::parse(r#"{"x-api-key":"${KEY}"}"#).unwrap()));
    assert_eq!(toml.webhook_events_filter.unwrap().to_string(), "start,completed");
    assert_eq!(toml.webhook_schedule.as_ref().unwrap().to_string(), "5s,1h");
    assert_eq!(
        (yaml.webhook_endpoints, yaml.webhook_headers, yaml.webhook_events_filter, yaml.webhook_schedule),
        (toml.webhook_endpoints, toml.webhook_headers, toml.webhook_events_filter, toml.webhook_schedule)
    );
    for (wrong, said) in [
        ("webhook_headers = { Host = 'a' }", "sets itself"),
        ("webhook_headers = ['a']", "must be a table"),
        ("webhook_events_filter = ['end']", "`end`"),
        ("webhook_endpoints = { a = 'b' }", "must be a list"),
        ("webhook_schedule = ['0s']", ":2: `cerebrium.postback.webhook_schedule` has the step `0s`"),
        ("webhook_schedule = [5, 10]", "`5`, which is no wait"),
        ("webhook_schedule = { a = 'b' }", "must be a list"),
    ] {
        let error = parse("cerebrium.toml", &format!("[cerebrium.postback]\n{wrong}\n")).unwrap_err();
        assert!(error.to_string().contains(said), "{wrong}: {error}");
    }
}

#[test]
fn requirements_in_the_folder_take_the_place_of_the_base_image() {
    let folder = tempfile::tempdir().unwrap();
    let pip = || Config::parse(DELAY, "config.yaml", folder.path()).unwrap().app.pip;
    std::fs::write(folder.path().join("requirements.txt"), "# nothing yet\n").unwrap();
    assert_eq!(pip(), BASE_IMAGE_PACKAGES);
    std::fs::write(folder.path().join("requirements.txt"), "numpy\n").unwrap();
    assert_eq!(pip(), [""; 0]);
}

#[test]
fn packages_may_come_from_files_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("req.txt"), "# models\ntorch==2.1\n\nnumpy\n").unwrap();
    let read = |path: &str| {
        let source = format!("[cerebrium.dependencies.paths]\npip = '{path}'\n");
        Config::parse(&source, "cerebrium.toml", folder.path())
    };
    assert_eq!(read("req.txt").unwrap().app.pip, ["torch==2.1", "numpy"]);
    assert!(read("absent.txt").unwrap_err().to_string().contains("`absent.txt`, which cannot be read"));
    for outside in ["/etc/passwd", "../req.txt", "a/../../req.txt"] {
        assert!(read(outside).unwrap_err().to_string().contains("outside the app's folder"), "{outside}");
    }
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest_known_one() {
    let config = parse("config.yaml", "cpu: 2\ncooldwon: 5\n").unwrap();
    assert_eq!(
        config.warnings[0].to_string(),
        "config.yaml:2: `cooldwon` is not known and has no effect; the nearest known key is `cooldown`"
    );
    let source = "[cerebrium.deployment]\nname = 'a'\nmin_replicas = 1\n[tool.ruff]\nline = 3\n";
    let config = parse("cerebrium.toml", source).unwrap();
    assert_eq!(
        config.warnings[0].to_string(),
        "cerebrium.toml:3: `cerebrium.deployment.min_replicas` is not known and has no effect; \
         the nearest known key is `cerebrium.scaling.min_replicas`"
    );
    assert_eq!(
        (config.warnings[1].line, config.warnings[1].key.as_str(), config.warnings.len()),
        (4, "tool", 2)
    );
}

#[test]
fn a_value_that_cannot_be_meant_is_told_with_line_key_and_fix() {
    let cases = [
        ("config.yaml", "a: 1\ncpu: two\n", "config.yaml:2: `cpu` is `two`; write a number from 0.1 to 512"),
        (
            "config.yaml",
            "min_replicas: -1\n",
            "config.yaml:1: `min_replicas` is `-1`; write a whole number from 0 to 200",
        ),
        (
            "config.yaml",
            "cooldown: 1.5\n",
            "config.yaml:1: `cooldown` is `1.5`; write a whole number from 0 to 86400",
        ),
        (
            "config.yaml",
            "hardware: AMPERE_A100_80\n",
            "config.yaml:1: `hardware` is `AMPERE_A100_80`, which no hardware is called; did you mean `AMPERE_A100_80GB`?",
        ),
        (
            "config.yaml",
            "include: '[/etc/*]'\n",
            "config.yaml:1: `include` has the pattern `/etc/*`; patterns are relative to the app's folder, \
             remove the first `/`",
        ),
        (
            "config.yaml",
            "disable_animation: perhaps\n",
            "config.yaml:1: `disable_animation` is `perhaps`; write `true` or `false`",
        ),
        ("config.yaml", "cpu:\n  - 2\n", "config.yaml:2: `cpu` must be a text, but is a list"),
        ("config.yaml", "- 2\n", "config.yaml:1: the file must be a table of keys"),
        (
            "config.yaml",
            "python_version: three\n",
            "config.yaml:1: `python_version` is `three`; write a version such as `3.11`",
        ),
        (
            "config.yaml",
            "python_version: 2.7\n",
            "config.yaml:1: `python_version` is `2.7`; Python 3.8 or later is needed, write it as `3.11`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.runtime.custom]\nport = 8000\n",
            "cerebrium.toml:1: `cerebrium.runtime.custom` has no `entrypoint`; write what starts the server, such as \
             `uvicorn main:app --port 8000`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.runtime.custom]\nentrypoint = \"x\"\n[cerebrium.postback]\nnetwork = false\n",
            "cerebrium.toml:1: `cerebrium.postback.network` cannot be `false` for an app with an `entrypoint`: its web \
             server is reached over the network; remove the key, or offer functions in `main.py`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.runtime.custom]\nentrypoint = []\n",
            "cerebrium.toml:2: `cerebrium.runtime.custom.entrypoint` is empty; write what starts the server, such as \
             `uvicorn main:app --port 8000`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.runtime.custom]\nentrypoint = \"x\"\nport = 80000\n",
            "cerebrium.toml:3: `cerebrium.runtime.custom.port` is `80000`; write a whole number from 1 to 65535",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.runtime.custom]\nentrypoint = \"x\"\nhealthcheck_endpoint = \"http://a/\"\n",
            "cerebrium.toml:3: `cerebrium.runtime.custom.healthcheck_endpoint` is `http://a/`; write a path of the \
             server, such as `/health`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.runtime.custom]\ndockerfile_path = \"./Dockerfile\"\n",
            "cerebrium.toml:2: `cerebrium.runtime.custom.dockerfile_path` cannot be used here: apps run as processes \
             of this machine, not as images; write what the image starts as `entrypoint`, its Python packages under \
             `[cerebrium.dependencies.pip]`, its system packages under `[cerebrium.dependencies.apt]`, and what else \
             it runs as `shell_commands`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.runtime.deepgram]\nmodel_name = \"nova\"\n",
            "cerebrium.toml:1: `cerebrium.runtime.deepgram` cannot be used here: partner runtimes belong to the hosted \
             platform; deploy the model with a `main.py`, or its server with `[cerebrium.runtime.custom]`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.dependencies.pip]\nnumpy = [1]\n",
            "cerebrium.toml:2: `cerebrium.dependencies.pip` has a version for `numpy` that is no text; \
             write `numpy = \"latest\"`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium]\nscaling = 3\n",
            "cerebrium.toml:2: `cerebrium.scaling` must be a table of keys",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.scaling]\nmin_replicas = 3\nmax_replicas = 2\n",
            "cerebrium.toml:1: `max_replicas` is 2, below `min_replicas` (3); raise it or lower `min_replicas`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.scaling]\nscaling_metric = 'cpu'\n",
            "cerebrium.toml:2: `cerebrium.scaling.scaling_metric` is `cpu`; write one of `concurrency_utilization`, \
             `requests_per_second`, `cpu_utilization`, `memory_utilization`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.scaling]\nscaling_metric = 'cpu_utilization'\n",
            "cerebrium.toml:1: `scaling_metric` is `cpu_utilization`, which only a replica that runs has: set \
             `min_replicas` to 1 or more, or follow `concurrency_utilization`",
        ),
        (
            "cerebrium.toml",
            "[cerebrium.scaling]\nload_balancing_algorithm = 'fewest'\n",
            "cerebrium.toml:2: `cerebrium.scaling.load_balancing_algorithm` is `fewest`; write one of `round-robin`, \
             `first-available`, `min-connections`, `random-choice-2`",
        ),
        ("app.json", "{}", "app.json is no config file: it must end in .toml, .yaml or .yml"),
    ];
    for (file, source, expected) in cases {
        assert_eq!(error(file, source), expected);
    }
}

#[test]
fn broken_files_are_told_with_their_line() {
    assert!(error("config.yaml", "cpu: 2\n  memory: [\n").starts_with("config.yaml:"));
    assert!(error("cerebrium.toml", "[cerebrium\n").starts_with("cerebrium.toml:1: "));
}

/// The keys that Cerebrium's three forms of config files have had.
const YAML_OF_2023: &str = "name api_key hardware gpu_count cpu memory min_replicas max_replicas cooldown include exclude \
    log_level disable_animation python_version predict_data init_debug pre_init_debug disable_predict \
    disable_predict_data disable_build_logs force_rebuild disable_confirmation hide_public_endpoint \
    disable_syntax_check shell_commands cuda_version";
const TOML_OF_ALL_TIMES: &[(&str, &str)] = &[
    (
        "build",
        "predict_data force_rebuild hide_public_endpoint disable_animation disable_build_logs disable_syntax_check \
         disable_predict log_level disable_confirmation init_debug shell_commands",
    ),
    (
        "deployment",
        "name python_version include exclude cuda_version docker_base_image_url base_image shell_commands \
         pre_build_commands disable_auth use_uv deployment_initialization_timeout",
    ),
    ("hardware", "gpu compute cpu memory gpu_count provider region"),
    (
        "scaling",
        "min_replicas max_replicas cooldown replica_concurrency response_grace_period scaling_metric scaling_target \
         scaling_buffer evaluation_interval_seconds load_balancing_algorithm compute_tier roll_out_duration_seconds",
    ),
    ("dependencies", "pip conda apt paths.pip paths.conda paths.apt"),
    (
        "runtime",
        "custom.entrypoint custom.port custom.healthcheck_endpoint custom.readycheck_endpoint custom.dockerfile_path \
         asgi deepgram rime assemblyai container_runtime",
    ),
    ("experimental", "checkpointing"),
];

#[test]
fn every_key_of_every_form_is_known_here() {
    let known = |form, path: &str| keys::of(form).iter().any(|key| key.path == path);
    for key in YAML_OF_2023.split_whitespace() {
        assert!(known(Form::Yaml2023, key), "{key}");
    }
    for (table, names) in TOML_OF_ALL_TIMES {
        for name in names.split_whitespace() {
            assert!(known(Form::TomlCurrent, &format!("cerebrium.{table}.{name}")), "{table}.{name}");
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::read(folder.path(), "config.yaml").unwrap_err().to_string();
    assert!(error.starts_with("cannot read config.yaml: "), "{error}");
}

#[test]
fn retries_are_read_from_both_kinds_of_files_and_refused_by_name() {
    let folder = Path::new("/nowhere");
    let toml =
        "[cerebrium.postback]\nretries = 3\nmax_attempts = 2\nretry_on = [\"timeout\", \"user_error\"]\n";
    let yaml = "postback:\n  retries: 3\n  max_attempts: 2\n  retry_on: [timeout, user_error]\n";
    for (file, source) in [("cerebrium.toml", toml), ("config.yaml", yaml)] {
        let config = Config::parse(source, file, folder).unwrap();
        assert_eq!((config.app.retries, config.app.max_attempts), (Some(3), Some(2)));
        assert_eq!(config.app.retry_on.unwrap().to_string(), "timeout,user_error");
        assert_eq!(config.warnings, []);
    }
    let wrong = "[cerebrium.postback]\nretries = 3\nretry_on = [\"cancelled\"]\n";
    let message = Config::parse(wrong, "cerebrium.toml", folder).unwrap_err().to_string();
    assert!(message.starts_with("cerebrium.toml:3: `cerebrium.postback.retry_on`"), "{message}");
    assert!(message.contains("user_error,timeout"), "{message}");
    let lonely = "[cerebrium.postback]\nretry_on = [\"timeout\"]\n";
    let message = Config::parse(lonely, "cerebrium.toml", folder).unwrap_err().to_string();
    assert!(message.contains("`retries`"), "{message}");
}

#[test]
fn a_web_server_is_read_as_it_is_written() {
    let folder = Path::new("/nowhere");
    let read = |table: &str| {
        let source = format!("[cerebrium.runtime.custom]\n{table}");
        Config::parse(&source, "cerebrium.toml", folder).unwrap().app.runtime.unwrap()
    };
    let line = read("entrypoint = \"uvicorn main:app --port 8000\"\nhealthcheck_endpoint = \"\"\n");
    assert_eq!(line.entrypoint, Entrypoint::Line("uvicorn main:app --port 8000".into()));
    assert_eq!((line.port, line.healthcheck_endpoint, line.readycheck_endpoint), (8000, None, None));
    let words = read(
        "entrypoint = [\"python\", \"server.py\"]\nport = 5000\nhealthcheck_endpoint = \"health\"\n\
         readycheck_endpoint = \"/ready?deep=1\"\n",
    );
    assert_eq!(words.entrypoint, Entrypoint::Words(vec!["python".into(), "server.py".into()]));
    assert_eq!(words.port, 5000);
    assert_eq!(words.healthcheck_endpoint.as_deref(), Some("/health"));
    assert_eq!(words.readycheck_endpoint.as_deref(), Some("/ready?deep=1"));
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let source =
        "[cerebrium.hardware]\ncpu = 'lots'\nmemory = -1\n[cerebrium.scaling]\nscaling_metric = 'vibes'\n";
    let said = error("cerebrium.toml", source);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, begin) in lines.iter().zip([
        "cerebrium.toml:2: `cerebrium.hardware.cpu` is `lots`",
        "cerebrium.toml:3: `cerebrium.hardware.memory` ",
        "cerebrium.toml:5: `cerebrium.scaling.scaling_metric` ",
    ]) {
        assert!(line.starts_with(begin), "{said}");
    }
    let remark = |line| Remark { file: "f".into(), line, key: "k".into(), message: "m".into() };
    let many: Vec<_> = (1..=30).map(remark).collect();
    let said = super::lines(&many);
    assert_eq!((said.lines().count(), said.lines().last()), (21, Some("and 10 more")));
}
