//! Keys and secrets: the key file, and what is refused without it.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::Stage;

/// What a server says that refuses to start.
fn refusal(stage: &Stage) -> String {
    let output = stage.home.command().args(["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert!(!output.status.success(), "it started");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_server_without_its_key_file_names_it_and_does_not_start() {
    let mut stage = Stage::empty();
    stage.server.take().unwrap().terminate();
    let path = stage.home.data_dir().join("secret.key");
    let database = stage.home.data_dir().join("postback.db");
    let (key, before) = (std::fs::read(&path).unwrap(), std::fs::read(&database).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::remove_file(&path).unwrap();
    let said = refusal(&stage);
    assert!(said.contains(path.to_str().unwrap()) && said.contains("put it back"), "{said}");
    assert!(!path.exists(), "no new key is made over what the old one encrypted");
    std::fs::write(&path, &key).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refusal(&stage);
    assert!(said.contains("chmod 600") && said.contains(path.to_str().unwrap()), "{said}");
    assert!(std::fs::read(&database).unwrap() == before, "nothing was changed");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let changed = stage.home.command().args(["keys", "rotate", "--encryption"]).output().unwrap();
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    assert_ne!(std::fs::read(&path).unwrap(), key);
    stage.server = Some(stage.home.start());
}
