//! GPUs from the driver to the replica: a library that stands in for NVIDIA's is found as that would be.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::server::Home;

use crate::support::{Stage, binary, json as body};

const MAIN: &str = "import os\ndef sees():\n    return os.environ.get('CUDA_VISIBLE_DEVICES')\n";

/// A server on a machine whose driver knows so many GPUs.
fn stage(gpus: &str, flags: &[&str]) -> Stage {
    let home = Home::new(binary());
    let library = home.scratch().join("driver");
    std::fs::create_dir(&library).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gpus/nvml.c");
    // Rust links with it, so it is there.
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(library.join("libnvidia-ml.so.1"))
        .arg(source)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let home = home
        .with_flags(flags)
        .with_env("LD_LIBRARY_PATH", library.to_str().unwrap())
        .with_env("FAKE_GPUS", gpus);
    Stage::on(home)
}

/// Deploys an app that asks for these, and says how that ended.
fn deploy(stage: &Stage, name: &str, hardware: &str) -> (bool, String) {
    let folder = stage.home.scratch().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("main.py"), MAIN).unwrap();
    let config = format!(
        "[cerebrium.deployment]\nname = \"{name}\"\n[cerebrium.hardware]\n{hardware}\n\
         [cerebrium.scaling]\nmin_replicas = 1\n"
    );
    std::fs::write(folder.join("cerebrium.toml"), config).unwrap();
    let output = stage.home.command().current_dir(&folder).arg("deploy").output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

async fn sees(stage: &Stage, name: &str) -> Value {
    body(stage.call(&stage.v4(&format!("{name}/sees")), "{}").await).await["result"].clone()
}

#[tokio::test]
async fn two_apps_share_two_gpus_and_a_third_is_told_what_there_is() {
    let stage = stage("2", &[]);
    for name in ["one", "two"] {
        let (well, said) = deploy(&stage, name, "compute = \"AMPERE_A10\"");
        assert!(well, "{said}");
    }
    let first = "GPU-00000000-1111-2222-3333-444444444444";
    let second = "GPU-00000001-1111-2222-3333-444444444444";
    assert_eq!((sees(&stage, "one").await, sees(&stage, "two").await), (json!(first), json!(second)));

    let path = stage.control("hardware");
    let hardware = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
    let project = &stage.keys.project_id;
    assert_eq!(
        hardware["gpus"][1],
        json!({
            "id": second, "name": "NVIDIA A10", "compute": "AMPERE_A10", "memoryBytes": 23028_u64 << 20,
            "inUse": true, "appId": format!("{project}-two"),
        })
    );
    let listed = stage.home.command().args(["apps", "hardware"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("AMPERE_A10") && listed.contains("22.5 GiB") && listed.contains("-one"),
        "{listed}"
    );

    let (well, said) = deploy(&stage, "three", "compute = [\"HOPPER_H100\", \"ADA_L4\"]");
    assert!(!well);
    assert!(
        said.contains("`HOPPER_H100`, `ADA_L4`, which this server does not have; it has: CPU, AMPERE_A10 (2 × NVIDIA A10, 22.5 GiB each)"),
        "{said}"
    );
    let (well, said) = deploy(&stage, "three", "compute = \"AMPERE_A10\"\ngpu_count = 3");
    assert!(!well && said.contains("`gpu_count` asks for 3 GPUs of `AMPERE_A10`"), "{said}");
    // Both have a replica that must always be there, so this one would wait for ever; on a CPU it need not.
    let (well, said) = deploy(&stage, "three", "compute = \"CPU\"\ngpu_count = 1");
    assert!(well, "{said}");
    assert_eq!(sees(&stage, "three").await, json!(""));
}

#[tokio::test]
async fn a_server_that_falls_back_to_cpus_warns_and_runs_the_app() {
    let stage = stage("0", &["--cpu-fallback"]);
    let (well, said) = deploy(&stage, "one", "compute = \"AMPERE_A10\"");
    assert!(
        well && said.contains("`AMPERE_A10`, which this server does not have: the app runs on CPUs"),
        "{said}"
    );
    assert_eq!(sees(&stage, "one").await, Value::Null);
}

#[test]
fn a_driver_that_does_not_answer_is_said_once_and_the_server_serves() {
    let stage = stage("many", &[]);
    let log = stage.home.log();
    assert_eq!(
        log.matches("no GPU can be given to replicas: the NVIDIA driver does not answer").count(),
        1,
        "{log}"
    );
}
