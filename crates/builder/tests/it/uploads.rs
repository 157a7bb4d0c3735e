//! Uploads: once, whole, and again when they broke off.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use queue::app::AppConfig;
use queue::port::{Builds as _, UploadError};
use queue::registry::BuildStatus;

use crate::world::World;

#[tokio::test]
async fn a_build_takes_one_archive() {
    let world = World::new();
    let build = world.deploy("app", &[("main.py", "def predict(): ...")], |_| ()).await;
    assert!(matches!(world.upload(&build, b"PK".to_vec()).await, Err(UploadError::AlreadyUploaded)));
    assert_eq!(world.status(&build), BuildStatus::Success, "{}", world.log());
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_and_may_be_tried_again() {
    let world = World::new();
    let build = world.register("app", AppConfig::default());
    let broken = [Ok(Bytes::from_static(b"PK\x03\x04")), Err(io::Error::other("the client went away"))];
    let outcome = world.builder.upload(&build, futures_util::stream::iter(broken).boxed()).await;
    assert!(matches!(outcome, Err(UploadError::Io(_))));
    assert_eq!(world.status(&build), BuildStatus::Pending);
    let left: Vec<_> = std::fs::read_dir(world.folder(&build)).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    world.upload(&build, b"whatever".to_vec()).await.unwrap();
    assert_eq!(world.end_of(&build).await, BuildStatus::BuildFailure);
}

#[tokio::test]
async fn a_cancelled_build_takes_no_archive() {
    let world = World::new();
    let build = world.register("app", AppConfig::default());
    assert!(world.builder.cancel(&build).await.unwrap());
    assert!(matches!(world.upload(&build, b"PK".to_vec()).await, Err(UploadError::AlreadyUploaded)));
    assert_eq!(world.status(&build), BuildStatus::Cancelled);
}

#[tokio::test]
async fn the_archive_makes_room_when_the_build_has_ended() {
    let world = World::new();
    let build = world.deploy("app", &[("main.py", "def predict(): ...")], |_| ()).await;
    world.until(|| (!world.folder(&build).join("archive.zip").exists()).then_some(())).await;
    assert!(world.folder(&build).join("app/main.py").is_file());
}

#[tokio::test]
async fn archives_of_cerebriums_python_client_are_built() {
    // Stored entries, an extended timestamp in the extra field, generated lists first, as its 1.51.0 writes.
    let script = "import struct, sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1], 'w')\n\
        for name, text in [('shell_commands.sh', 'set -e \\necho from the archive\\n'),\n\
                           ('main.py', 'import sub.mod\\ndef predict(): ...\\n'), ('cerebrium.toml', ''),\n\
                           ('sub/empty.txt', ''), ('sub/mod.py', 'x = 1\\n')]:\n\
        \x20   i = zipfile.ZipInfo(name)\n\
        \x20   i.extra = struct.pack('<HHBL', 0x5455, 5, 1, 1700000000)\n\
        \x20   z.writestr(i, text)\n\
        z.close()\n";
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("app.zip");
    let made = std::process::Command::new("python3").args(["-c", script]).arg(&archive).status().unwrap();
    assert!(made.success());
    let world = World::new();
    let build = world.register("app", AppConfig::default());
    world.upload(&build, std::fs::read(archive).unwrap()).await.unwrap();
    assert_eq!(world.end_of(&build).await, BuildStatus::Success, "{}", world.log());
    assert!(world.log().contains("stdout| from the archive"), "{}", world.log());
}
