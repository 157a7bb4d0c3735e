//! The built binary as a server: started on a data directory, killed, started again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer `/readyz` in a test.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Where a test's server lives: survives the server.
pub struct Home {
    binary: PathBuf,
    folder: tempfile::TempDir,
    scratch: PathBuf,
    port: u16,
    listen_on: &'static str,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    data_dir: PathBuf,
    launcher: Vec<String>,
    start_limit: Duration,
}

/// The keys that the first start made.
#[derive(Clone, Debug, serde::Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Keys {
    pub project_id: String,
    pub public_key: String,
    pub private_key: String,
    pub service_account_token: String,
    pub webhook_secret: String,
}

impl Home {
    /// A fresh data directory and a free port for `binary`. Webhooks may go to 127.0.0.0/8.
    ///
    /// # Panics
    /// When the machine has no temporary folder or no free port.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = probe.local_addr().expect("a bound socket has an address").port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scratch = folder.path().join("scratch");
        std::fs::create_dir(&scratch).expect("the folder is ours");
        // Apps may run as users of their own.
        std::fs::set_permissions(&scratch, std::fs::Permissions::from_mode(0o777))
            .expect("the folder is ours");
        Self {
            binary: binary.into(),
            data_dir: folder.path().join("data"),
            folder,
            scratch,
            port,
            listen_on: "127.0.0.1",
            environment: Vec::new(),
            launcher: Vec::new(),
            start_limit: START_LIMIT,
            flags: vec!["--allow-private-webhooks".into(), "127.0.0.0/8".into()],
        }
    }

    /// The same with other flags for `serve`.
    #[must_use]
    pub fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(ToString::to_string).collect();
        self
    }

    /// The same, listening on this address of the machine, such as `0.0.0.0`.
    #[must_use]
    pub fn listening_on(mut self, address: &'static str) -> Self {
        self.listen_on = address;
        self
    }

    /// The same with the data directory elsewhere, such as on a disk of the test's own.
    #[must_use]
    pub fn with_data_dir(mut self, data_dir: PathBuf) -> Self {
        self.data_dir = data_dir;
        self
    }

    /// The same with a variable in the server's environment.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with servers started by another program, which runs what follows its own arguments, and is
    /// given `start_limit` for that.
    #[must_use]
    pub fn started_by(mut self, launcher: Vec<String>, start_limit: Duration) -> Self {
        self.launcher = launcher;
        self.start_limit = start_limit;
        self
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// A folder for the test's own files, which apps may read and write.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// What every server here has logged so far.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port that the servers listen on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The command line's program with this home's data directory and server.
    pub fn command(&self) -> Command {
        self.command_of(Command::new(&self.binary))
    }

    fn command_of(&self, mut command: Command) -> Command {
        command.env("POSTBACK_URL", self.url()).env("POSTBACK_DATA_DIR", self.data_dir());
        command
    }

    /// What starts a server, up to its first argument.
    fn server_command(&self) -> Command {
        let Some((launcher, arguments)) = self.launcher.split_first() else { return self.command() };
        let mut command = Command::new(launcher);
        command.args(arguments).arg(&self.binary);
        self.command_of(command)
    }

    /// The keys that the first start made.
    ///
    /// # Panics
    /// Before the first start.
    pub fn keys(&self) -> Keys {
        let text = std::fs::read(self.data_dir().join("credentials.json")).expect("the first start wrote it");
        serde_json::from_slice(&text).expect("credentials.json is JSON")
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(&self) -> Server {
        let mut child = self
            .server_command()
            .arg("serve")
            .args(["--listen", &format!("{}:{}", self.listen_on, self.port)])
            .args(&self.flags)
            .env("POSTBACK_SHARE_WITH_APPS", &self.scratch)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let stderr = child.stderr.take().expect("it is piped");
        let mut log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the folder can be written");
        // Kept flowing, kept, and shown by the test harness only when a test fails.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln_captured(&line);
                let _ = writeln!(log, "{line}");
            }
        });
        let mut server = Server { child: Some(child) };
        let began = Instant::now();
        while !self.is_ready() {
            let child = server.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait().expect("it is our child") {
                panic!("the server ended with {status} before it was ready");
            }
            assert!(began.elapsed() < self.start_limit, "the server was not ready in {:?}", self.start_limit);
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn is_ready(&self) -> bool {
        use std::io::Read as _;
        let ask = || -> std::io::Result<bool> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            Ok(answer.ends_with(b"200"))
        };
        ask().unwrap_or(false)
    }
}

#[expect(clippy::print_stderr, reason = "the harness captures it and shows it when a test fails")]
fn eprintln_captured(line: &str) {
    eprintln!("server: {line}");
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Option<Child>,
}

impl Server {
    /// Its process id.
    ///
    /// # Panics
    /// Never: a server has a process until it is consumed.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGKILL, as a crash would: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and the exit status once it has drained.
    ///
    /// # Panics
    /// When it cannot be signalled.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let status = Command::new("kill").arg(child.id().to_string()).status().expect("kill is there");
        assert!(status.success(), "the server could not be signalled");
        child.wait().expect("it is our child")
    }

    /// The exit status if it has ended by itself.
    ///
    /// # Panics
    /// Never: it is our child.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.as_mut().expect("it runs").try_wait().expect("it is our child")
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
