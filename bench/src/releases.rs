//! How long a new version and a cold start take.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use testkit::server::Home;

use crate::processes::tree;
use crate::report::Report;
use crate::stage::{Stage, app_folder, deploy};

/// Measured so often in a round.
const TIMES: usize = 10;
/// After an answer: so long may the replica take to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// The repository's examples.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// `postback deploy` of the delay example, from the command to the live build. The environment is there: the app was
/// deployed before.
pub(crate) fn deploys(report: &mut Report, binary: &Path) -> anyhow::Result<()> {
    let home = Home::new(binary);
    let _server = home.start();
    deploy(&home, &example("delay"))?;
    for _ in 0..TIMES {
        let began = Instant::now();
        deploy(&home, &example("delay"))?;
        let taken = began.elapsed().as_secs_f64() * 1e3;
        report.add("deploy", "postback", "deploy of examples/delay, environment there", "ms", taken);
    }
    Ok(())
}

/// The call of an app without a replica, from its request to its answer: the process is started for it.
pub(crate) async fn cold(report: &mut Report, binary: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let text = std::fs::read_to_string(app_folder().join("cerebrium.toml"))?;
    ensure!(text.contains("min_replicas = 1"), "the app's config has changed");
    let text = text.replace("min_replicas = 1", "min_replicas = 0\ncooldown = 0");
    std::fs::write(folder.path().join("cerebrium.toml"), text)?;
    std::fs::copy(app_folder().join("main.py"), folder.path().join("main.py"))?;
    let home = Home::new(binary);
    let server = home.start();
    deploy(&home, folder.path())?;
    ensure!(server.terminate().success(), "the server did not stop");
    let stage = Stage::on_deployed(home);
    let mut connection = stage.connect().await?;
    for _ in 0..TIMES {
        let began = Instant::now();
        while tree(stage.server.pid()).len() > 1 {
            ensure!(began.elapsed() < PATIENCE, "the replica does not go");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let began = Instant::now();
        let (status, answer) = connection.post(&stage.path("trivial"), "{\"value\":1}").await?;
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer));
        let taken = began.elapsed().as_secs_f64() * 1e3;
        report.add("cold", "postback", "first answer of an app without a replica", "ms", taken);
    }
    Ok(())
}
