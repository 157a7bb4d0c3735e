//! Archives: which files of a folder are packed, and how an uploaded one is unpacked.

mod files;
mod name;
mod pack;
mod unpack;

pub(crate) use files::check_pattern;
pub use pack::{PackError, Packed, pack};
pub(crate) use unpack::{UnpackError, unpack};

/// Files and folders of one archive at most.
pub(crate) const ENTRIES_MAX: usize = 10_000;
/// Unpacked bytes of one archive at most.
pub(crate) const TOTAL_BYTES_MAX: u64 = 1 << 30;
/// Unpacked bytes of one file at most.
pub(crate) const FILE_BYTES_MAX: u64 = 512 << 20;

/// Python packages of the app, one requirement a line.
pub(crate) const REQUIREMENTS: &str = "requirements.txt";
/// Debian packages of the app, one a line.
pub(crate) const APT_PACKAGES: &str = "pkglist.txt";
/// Conda packages of the app, one a line.
pub(crate) const CONDA_PACKAGES: &str = "conda_pkglist.txt";
/// Commands after the packages are installed.
pub(crate) const SHELL_COMMANDS: &str = "shell_commands.sh";
/// Commands before they are.
pub(crate) const PRE_BUILD_COMMANDS: &str = "pre_build_commands.sh";

/// Files that clients write themselves from the configuration. Cerebrium's Go client then adds a file
/// of the folder that has such a name a second time.
pub(crate) const GENERATED: [&str; 5] =
    [REQUIREMENTS, APT_PACKAGES, CONDA_PACKAGES, SHELL_COMMANDS, PRE_BUILD_COMMANDS];
