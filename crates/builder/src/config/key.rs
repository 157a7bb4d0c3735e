//! What a configuration key is: its name, what it is for, the kind of value it takes, and where that goes.

use queue::rerun::RetryOn;
use queue::scaling::{Balancing, Metric};
use queue::web::Entrypoint;
use queue::webhook::{EventFilter, Schedule, WebhookHeaders};

use super::Config;

/// One key.
pub(super) struct Key {
    /// Dotted path in the file.
    pub(super) path: &'static str,
    /// What it is for.
    pub(super) what: &'static str,
    /// What holds when the file does not have it.
    pub(super) default: &'static str,
    /// What becomes of it.
    pub(super) effect: Effect,
}

/// What becomes of a key: the kind of value it takes, and where it goes.
pub(super) enum Effect {
    Text(fn(&mut Config, String)),
    PythonVersion(fn(&mut Config, String)),
    Flag(fn(&mut Config, bool)),
    Whole {
        min: u64,
        max: u64,
        set: fn(&mut Config, u64),
    },
    Number {
        min: f64,
        max: f64,
        set: fn(&mut Config, f64),
    },
    /// A command: a line for the shell, or a list of words.
    Entrypoint(fn(&mut Config, Entrypoint)),
    /// A path of the app's web server.
    Path(fn(&mut Config, Option<String>)),
    /// A list of texts.
    List(fn(&mut Config, Vec<String>)),
    /// File patterns: a list, or one string in brackets as in 2023.
    Patterns(fn(&mut Config, Vec<String>)),
    /// Hardware ids: one, or a list in order of preference.
    Compute(fn(&mut Config, Vec<String>)),
    /// End codes on which runs are executed again.
    RetryOn(fn(&mut Config, RetryOn)),
    /// A table `name = "version"`.
    Packages {
        line: fn(&str, &str) -> String,
        set: fn(&mut Config, Vec<String>),
    },
    /// A file of the folder with one package a line.
    PackageFile(fn(&mut Config, Vec<String>)),
    /// Headers of deliveries: a table `name = "value"`.
    Headers(fn(&mut Config, WebhookHeaders)),
    /// What endpoints are told: a list of words.
    Events(fn(&mut Config, EventFilter)),
    /// What scaling follows: one of a few words.
    Metric(fn(&mut Config, Metric)),
    /// Which replica gets a run: one of a few words, or nothing.
    Balancing(fn(&mut Config, Option<Balancing>)),
    /// When deliveries are tried again: a list of waits.
    Waits(fn(&mut Config, Schedule)),
    /// Valid, and without effect here: what happens instead.
    Warned(&'static str),
    /// Valid elsewhere, impossible here: what to do instead.
    Refused(&'static str),
}

impl Effect {
    /// The kind of value, for people.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Text(_) => "text".into(),
            Self::PythonVersion(_) => "Python version, such as `3.11`".into(),
            Self::Flag(_) => "`true` or `false`".into(),
            Self::Whole { min, max, .. } => format!("whole number, {min} to {max}"),
            Self::Number { min, max, .. } => format!("number, {min} to {max}"),
            Self::Entrypoint(_) => "command, or list of its words".into(),
            Self::Path(_) => "path such as `/health`".into(),
            Self::List(_) => "list of texts".into(),
            Self::Patterns(_) => "list of file patterns, or one string `\"[a, b]\"`".into(),
            Self::Compute(_) => "hardware id, or a list of up to 5".into(),
            Self::RetryOn(_) => "list of end codes".into(),
            Self::Packages { .. } => "table `name = \"version\"`".into(),
            Self::Headers(_) => "table `name = \"value\"`".into(),
            Self::Waits(_) => "list of waits such as `5s`, `10m`, `2h`, `1d`".into(),
            Self::Metric(_) => either(Metric::ALL.map(Metric::as_str)),
            Self::Balancing(_) => either(Balancing::ALL.map(Balancing::as_str)),
            Self::Events(_) => "list of `start`, `output`, `logs`, `completed`".into(),
            Self::PackageFile(_) => "path of a file with one package a line".into(),
            Self::Warned(_) | Self::Refused(_) => String::new(),
        }
    }
}

/// The words of which one may be written.
pub(super) fn either<const N: usize>(words: [&str; N]) -> String {
    words.map(|word| format!("`{word}`")).join(", ")
}
