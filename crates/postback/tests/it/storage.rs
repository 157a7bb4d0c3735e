//! What outlives replicas: a folder of the project.

use serde_json::{Value, json};

use crate::support::{Stage, json as body};

const MAIN: &str = "import os, pathlib\n\
    storage = pathlib.Path(os.environ['POSTBACK_PERSISTENT_STORAGE'])\n\
    def write(name, text):\n    (storage / name).write_text(text)\n\
    def read(name):\n    return (storage / name).read_text()\n\
    def version():\n    return VERSION\n";

fn deploy(stage: &Stage, name: &str, version: u32) {
    let folder = stage.home.scratch().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("main.py"), format!("VERSION = {version}\n{MAIN}")).unwrap();
    std::fs::write(folder.join("cerebrium.toml"), format!("[cerebrium.deployment]\nname = \"{name}\"\n"))
        .unwrap();
    stage.deploy(&folder, &[]);
}

async fn call(stage: &Stage, function: &str, arguments: Value) -> Value {
    body(stage.call(&stage.v4(function), arguments.to_string()).await).await["result"].clone()
}

#[tokio::test]
async fn files_of_a_project_outlive_deploys_servers_and_apps() {
    let mut stage = Stage::empty();
    deploy(&stage, "one", 1);
    call(&stage, "one/write", json!({"name": "weights", "text": "kept"})).await;
    deploy(&stage, "one", 2);
    assert_eq!(call(&stage, "one/version", json!({})).await, 2);
    assert_eq!(call(&stage, "one/read", json!({"name": "weights"})).await, "kept");
    stage.crash_and_restart();
    assert_eq!(call(&stage, "one/read", json!({"name": "weights"})).await, "kept");
    // All apps of the project have it.
    deploy(&stage, "two", 1);
    let deleted = stage.home.command().args(["apps", "delete", "one"]).output().unwrap();
    assert!(deleted.status.success());
    assert_eq!(call(&stage, "two/read", json!({"name": "weights"})).await, "kept");
}
