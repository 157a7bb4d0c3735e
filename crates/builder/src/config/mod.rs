//! Config files: `config.yaml` of 2023 and both forms of `cerebrium.toml`, read into one [`Config`].
//!
//! Every key goes through one table (`keys`). What is unknown or has no effect here becomes a
//! warning, what cannot be meant becomes a [`ConfigError`]; both name file, line, key and what to do.

mod document;
mod key;
mod keys;
mod packages;
mod reference;
mod value;

use std::fmt;
use std::path::Path;

use queue::app::AppConfig;

use document::{Node, Value};
use key::{Effect, Key};

pub use packages::BASE_IMAGE_PACKAGES;
pub(crate) use packages::lines as requirement_lines;
pub use reference::reference;

/// Config files that `deploy` looks for when none is named, in this order.
pub const FILE_NAMES: [&str; 2] = ["cerebrium.toml", "config.yaml"];

/// Largest config file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The generations of config files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `config.yaml` of 2023.
    Yaml2023,
    /// `cerebrium.toml` with `[cerebrium.build]` and patterns in strings (December 2023 to July 2024).
    TomlFirst,
    /// `cerebrium.toml` as it is today.
    TomlCurrent,
}

/// What a config file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file's name, as it was given.
    pub file: String,
    /// Which form it has.
    pub form: Form,
    /// The app's name, when the file has one.
    pub name: Option<String>,
    /// What the server is told.
    pub app: AppConfig,
    /// Patterns of files to upload.
    pub include: Vec<String>,
    /// Patterns of files not to upload.
    pub exclude: Vec<String>,
    /// What the file says in vain.
    pub warnings: Vec<Remark>,
}

/// Something about a key of a config file: that it has no effect, or why its value cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The key, dotted.
    pub key: String,
    /// What happens instead, which key was meant, or what to write.
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}` {}", self.file, self.line, self.key, self.message)
    }
}

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why; said above, so that no chain of causes says it again.
        why: std::io::Error,
    },
    /// Neither `.yaml`, `.yml` nor `.toml`.
    #[error("{file} is no config file: it must end in .toml, .yaml or .yml")]
    UnknownKind {
        /// The file.
        file: String,
    },
    /// It is not the language its name says.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Keys have values that cannot be meant: one a line.
    #[error("{}", lines(faults))]
    Invalid {
        /// In the order of the file.
        faults: Vec<Remark>,
    },
}

/// Faults that are shown; a file of so many is another kind of file.
const FAULTS_SHOWN_MAX: usize = 20;

fn lines(faults: &[Remark]) -> String {
    let mut lines: Vec<_> = faults.iter().take(FAULTS_SHOWN_MAX).map(Remark::to_string).collect();
    if let more @ 1.. = faults.len().saturating_sub(FAULTS_SHOWN_MAX) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

impl Config {
    /// Reads `file` of `folder`; a `.toml` is a `cerebrium.toml`, a `.yaml` or `.yml` a `config.yaml`.
    ///
    /// # Errors
    /// When the file is missing, malformed, or has a key whose value cannot be meant.
    pub fn read(folder: &Path, file: &str) -> Result<Self, ConfigError> {
        let path = folder.join(file);
        let unreadable = |why| ConfigError::Unreadable { file: file.to_owned(), why };
        if std::fs::metadata(&path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(unreadable(std::io::Error::other("it is larger than 1 MiB")));
        }
        let source = std::fs::read_to_string(&path).map_err(unreadable)?;
        Self::parse(&source, file, folder)
    }

    /// The config of an app that has no config file: current form, all defaults.
    pub fn without_file() -> Self {
        Self::defaults("cerebrium.toml", Form::TomlCurrent)
    }

    fn parse(source: &str, file: &str, folder: &Path) -> Result<Self, ConfigError> {
        let source = source.strip_prefix('\u{feff}').unwrap_or(source);
        let extension = Path::new(file).extension().and_then(|extension| extension.to_str());
        let parsed = match extension {
            Some("toml") => document::toml(source).map(|root| (form_of_toml(&root), root)),
            Some("yaml" | "yml") => document::yaml(source).map(|root| (Form::Yaml2023, root)),
            _ => return Err(ConfigError::UnknownKind { file: file.to_owned() }),
        };
        let (form, root) = parsed.map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            line: error.line,
            message: error.message,
        })?;
        let config = Self::defaults(file, form);
        let mut reader = Reader { config, folder, keys: keys::of(form), faults: Vec::new() };
        reader.table(&root, "")?;
        reader.finish()
    }

    fn defaults(file: &str, form: Form) -> Self {
        let (include, exclude): (&[&str], &[&str]) = match form {
            Form::Yaml2023 => (
                &["./*", "main.py", "requirements.txt", "pkglist.txt", "conda_pkglist.txt"],
                &["./.*", "./__*"],
            ),
            Form::TomlFirst | Form::TomlCurrent => (&["./*", "main.py", "cerebrium.toml"], &[".*"]),
        };
        let texts = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Self {
            file: file.to_owned(),
            form,
            name: None,
            app: AppConfig::default(),
            include: texts(include),
            exclude: texts(exclude),
            warnings: Vec::new(),
        }
    }
}

/// The first form has what the current one has no longer.
fn form_of_toml(root: &Node) -> Form {
    let is_text = |path| matches!(root.at(path), Some(Node { value: Value::Text { .. }, .. }));
    let first = root.at("cerebrium.build").is_some()
        || root.at("cerebrium.hardware.gpu").is_some()
        || root.at("cerebrium.deployment.cuda_version").is_some()
        || is_text("cerebrium.deployment.include")
        || is_text("cerebrium.deployment.exclude");
    if first { Form::TomlFirst } else { Form::TomlCurrent }
}

struct Reader<'a> {
    config: Config,
    folder: &'a Path,
    keys: &'static [Key],
    faults: Vec<Remark>,
}

impl Reader<'_> {
    fn table(&mut self, node: &Node, prefix: &str) -> Result<(), ConfigError> {
        let Value::Table(entries) = &node.value else {
            let what = if prefix.is_empty() { "the file".to_owned() } else { format!("`{prefix}`") };
            return Err(ConfigError::Syntax {
                file: self.config.file.clone(),
                line: node.line,
                message: format!("{what} must be a table of keys"),
            });
        };
        for entry in entries {
            let path = if prefix.is_empty() { entry.key.clone() } else { format!("{prefix}.{}", entry.key) };
            let keys = self.keys;
            if let Some(key) = keys.iter().find(|key| key.path == path) {
                self.key(key, &entry.node, entry.line);
            } else if keys.iter().any(|key| is_below(key.path, &path)) {
                if entry.node.value != Value::Null {
                    self.table(&entry.node, &path)?;
                }
            } else {
                self.unknown(&path, entry.line);
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &Key, node: &Node, line: usize) {
        if let Effect::Warned(instead) = &key.effect {
            return self.warn(key.path, line, format!("has no effect here: {instead}"));
        }
        if let Err((line, message)) = self.set(&key.effect, node, line) {
            self.fault(key.path, line, message);
        }
    }

    /// What cannot be meant, and its line.
    fn set(&mut self, effect: &Effect, node: &Node, line: usize) -> Result<(), (usize, String)> {
        match effect {
            Effect::Refused(instead) => return Err((line, format!("cannot be used here: {instead}"))),
            _ if node.value == Value::Null => {}
            Effect::PackageFile(set) => {
                let lines = value::text(node).and_then(|file| package_file(self.folder, &file));
                set(&mut self.config, lines.map_err(|message| (node.line, message))?);
            }
            Effect::Packages { line, set } => {
                let table = packages::table(node)?;
                let lines = table.iter().map(|(name, version)| line(name, version)).collect();
                set(&mut self.config, lines);
            }
            effect => {
                let set = value::apply(effect, node).map_err(|message| (node.line, message))?;
                set(&mut self.config);
            }
        }
        Ok(())
    }

    fn fault(&mut self, key: &str, line: usize, message: impl Into<String>) {
        let file = self.config.file.clone();
        self.faults.push(Remark { file, line, key: key.to_owned(), message: message.into() });
    }

    fn unknown(&mut self, path: &str, line: usize) {
        let nearest = self.keys.iter().map(|key| key.path).max_by(|a, b| {
            let likeness = |known: &str| {
                // A key in the wrong table is as near as a misspelt one.
                let name = |path: &str| path.rsplit('.').next().map(str::to_owned).unwrap_or_default();
                strsim::jaro_winkler(known, path).max(strsim::jaro_winkler(&name(known), &name(path)))
            };
            likeness(a).total_cmp(&likeness(b))
        });
        let message = match nearest {
            Some(nearest) => format!("is not known and has no effect; the nearest known key is `{nearest}`"),
            None => "is not known and has no effect".to_owned(),
        };
        self.warn(path, line, message);
    }

    fn warn(&mut self, key: &str, line: usize, message: String) {
        let file = self.config.file.clone();
        self.config.warnings.push(Remark { file, line, key: key.to_owned(), message });
    }

    /// What follows from all keys together.
    fn finish(mut self) -> Result<Config, ConfigError> {
        let app = &mut self.config.app;
        if !app.wants_gpu() {
            app.gpu_count = 0;
        } else if app.gpu_count == 0 {
            app.gpu_count = 1;
        }
        if self.config.form != Form::TomlCurrent {
            app.cooldown_seconds.get_or_insert(60);
            let named_in_file = std::fs::read_to_string(self.folder.join("requirements.txt"))
                .is_ok_and(|text| !requirement_lines(&text).is_empty());
            if app.pip.is_empty() && !named_in_file {
                app.pip = BASE_IMAGE_PACKAGES.iter().map(|&package| package.to_owned()).collect();
            }
        }
        let app = &self.config.app;
        let without_entrypoint = app.runtime.as_ref().is_some_and(|runtime| runtime.entrypoint.is_empty());
        let cut_off = app.runtime.is_some() && app.no_network;
        let never_again = app.retry_on.is_some() && app.retries.is_none();
        let scaling = app.check_scaling();
        // Keys that were refused may be the reason why others do not fit.
        if self.faults.is_empty() {
            if without_entrypoint {
                let message = "has no `entrypoint`; write what starts the server, such as `uvicorn main:app --port 8000`";
                self.fault("cerebrium.runtime.custom", 1, message);
            }
            if cut_off {
                let message = "cannot be `false` for an app with an `entrypoint`: its web server is reached over the \
                               network; remove the key, or offer functions in `main.py`";
                self.fault("cerebrium.postback.network", 1, message);
            }
            if never_again {
                let message =
                    "says after what a run is executed again; say how often with `retries` beside it";
                self.fault("retry_on", 1, message);
            }
            if let Err(queue::scaling::ScalingError { key, message }) = scaling {
                self.fault(key, 1, message);
            }
        }
        if !self.faults.is_empty() {
            return Err(ConfigError::Invalid { faults: self.faults });
        }
        Ok(self.config)
    }
}

fn is_below(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

fn package_file(folder: &Path, file: &str) -> Result<Vec<String>, String> {
    if Path::new(file).is_absolute() || file.split('/').any(|part| part == "..") {
        return Err(format!("names `{file}`, which is outside the app's folder; copy it into the folder"));
    }
    match std::fs::read_to_string(folder.join(file)) {
        Ok(text) => Ok(requirement_lines(&text)),
        Err(error) => Err(format!("names `{file}`, which cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests;
