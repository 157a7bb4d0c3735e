//! Runs tests of the workspace and reads what they say.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};

/// What a test prints that proves nothing on this machine, followed by the reason.
pub(crate) const SKIP: &str = "SKIP:";

/// One run of `cargo test`.
pub(crate) struct Run {
    command: Command,
    name: String,
}

/// What came of it.
pub(crate) struct Told {
    pub(crate) passed: bool,
    /// Everything it printed.
    pub(crate) said: String,
}

impl Run {
    /// The tests of `package` whose names contain `name`, one after the other.
    pub(crate) fn new(package: &str, target: &[&str], name: &str) -> Self {
        Self::of(&["--package", package], target, name)
    }

    /// The same of every package.
    pub(crate) fn workspace(target: &[&str], name: &str) -> Self {
        Self::of(&["--workspace"], target, name)
    }

    fn of(packages: &[&str], target: &[&str], name: &str) -> Self {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--locked"]).args(packages).args(target);
        Self { command, name: name.to_owned() }
    }

    /// The same with features.
    pub(crate) fn features(mut self, features: &[&str]) -> Self {
        if !features.is_empty() {
            self.command.args(["--features", &features.join(",")]);
        }
        self
    }

    /// The same as it is shipped.
    pub(crate) fn release(mut self, release: bool) -> Self {
        if release {
            self.command.arg("--release");
        }
        self
    }

    /// The same with variables in its environment.
    pub(crate) fn environment(mut self, environment: &[(&str, String)]) -> Self {
        self.command.envs(environment.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Runs it and shows lines that contain one of `shown` as they come.
    ///
    /// # Errors
    /// When the tests could not be built, or none has that name.
    pub(crate) fn finish(mut self, shown: &[&str]) -> anyhow::Result<Told> {
        self.command.args(["--", "--nocapture", "--test-threads=1", &self.name]);
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cargo cannot be started")?;
        let said = Arc::new(Mutex::new(String::new()));
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().context("it is piped")?),
            Box::new(child.stderr.take().context("it is piped")?),
        ];
        std::thread::scope(|scope| {
            for output in outputs {
                let said = Arc::clone(&said);
                scope.spawn(move || listen(output, &said, shown));
            }
        });
        let passed = child.wait()?.success();
        let said = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
        let ran = said.lines().filter_map(|line| line.strip_prefix("running ")?.split(' ').next());
        ensure!(ran.clone().count() > 0, "the tests were not built:\n{said}");
        ensure!(ran.into_iter().any(|number| number != "0"), "no test is called `{}`", self.name);
        Ok(Told { passed, said })
    }
}

#[expect(clippy::print_stdout, reason = "the tasks tell their terminal how far they are")]
fn listen(output: impl std::io::Read, said: &Mutex<String>, shown: &[&str]) {
    // A line may hold anything that a server logged.
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if shown.iter().any(|word| line.contains(word)) {
            println!("  {line}");
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(&line);
        said.push('\n');
    }
}
