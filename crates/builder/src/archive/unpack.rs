//! Unpacks an uploaded archive, trusting nothing in it.
//!
//! The `zip` crate parses; this file decides. Everything is written below a fresh folder of our own,
//! component by component, without following links, and only regular files and folders with modes of our
//! choice. Whatever breaks a rule ends the whole: nothing of the archive is left then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use zip::read::{ArchiveOffset, Config};
// The stable reader keys entries by name and so cannot see duplicates.
use zip::unstable::read::ZipIterable;
use zip::{CompressionMethod, ZipReadOptions};

use super::{ENTRIES_MAX, FILE_BYTES_MAX, GENERATED, TOTAL_BYTES_MAX, name};

/// Unpacked bytes per packed byte that a file may have, beyond its first MiB.
const RATIO_MAX: u64 = 200;
/// Output of a file before its ratio is looked at.
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// An end record without a comment: it must be the last thing in the file.
const END_RECORD_BYTES: u64 = 22;

const TYPE_BITS: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// Why an archive was refused. Nothing of it is left on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive as a whole breaks a rule.
    #[error("the archive cannot be used: {0}")]
    Archive(String),
    /// An entry breaks a rule.
    #[error("the archive's entry `{entry}` cannot be used: {rule}")]
    Entry { entry: String, rule: String },
    /// The disk refused.
    #[error("the archive could not be unpacked: {0}")]
    Io(#[from] io::Error),
}

/// What was unpacked.
#[derive(Debug, PartialEq)]
pub(crate) struct Unpacked {
    /// Files.
    pub(crate) files: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Unpacks `archive` into `folder`, which must not exist yet and whose parent must.
pub(crate) fn unpack(archive: &mut File, folder: &Path) -> Result<Unpacked, UnpackError> {
    let parent = folder.parent().ok_or_else(|| io::Error::other("the folder has no parent"))?;
    // Has a name nobody knows, and is removed when dropped.
    let fresh = tempfile::Builder::new()
        .prefix(".unpack-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    let unpacked = Target::new(fresh.path())?.fill(archive)?;
    std::fs::rename(fresh.path(), folder)?;
    // The folder has another name now, so there is nothing left to remove.
    let _ = fresh.keep();
    File::open(parent)?.sync_all()?;
    Ok(unpacked)
}

struct Target {
    root: OwnedFd,
    /// Lower-case paths to what was made there: on some disks `A` and `a` are one.
    taken: HashMap<String, (Kind, String)>,
    folders: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Folder,
}

impl Target {
    fn new(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Self { root, taken: HashMap::new(), folders: 0 })
    }

    fn fill(mut self, archive: &mut File) -> Result<Unpacked, UnpackError> {
        check_frame(archive)?;
        let mut contents = archive.try_clone()?;
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let mut zip = ZipIterable::try_new(archive, config)
            .map_err(|error| UnpackError::Archive(format!("it is no sound zip ({error})")))?
            .enforce_header_consistency(true);
        if zip.len() > ENTRIES_MAX {
            return Err(UnpackError::Archive(format!(
                "it has {} entries, and {ENTRIES_MAX} are the most",
                zip.len()
            )));
        }
        let mut unpacked = Unpacked { files: 0, bytes: 0 };
        let mut ranges = Vec::with_capacity(zip.len());
        let mut at = 0;
        let entries = zip.files().map_err(|error| UnpackError::Archive(error.to_string()))?;
        loop {
            // The iterator shares the descriptor's position with `contents`; it seeks before each entry.
            let Some(entry) = entries.next() else { break };
            let entry = entry.map_err(|error| UnpackError::Entry {
                entry: format!("#{at}"),
                rule: format!("its headers are not sound ({error})"),
            })?;
            at += 1;
            let raw = entry.name_raw().to_vec();
            let shown = String::from_utf8_lossy(&raw)
                .chars()
                .take(200)
                .collect::<String>()
                .escape_debug()
                .to_string();
            let refuse = |rule: String| UnpackError::Entry { entry: shown.clone(), rule };
            let path = String::from_utf8(raw).map_err(|_| refuse("its name is not UTF-8".into()))?;
            let is_folder = path.ends_with('/');
            let path = path.strip_suffix('/').unwrap_or(&path);
            if let Some(rule) = name::broken_rule(path) {
                return Err(refuse(format!("its name is not allowed: {rule}")));
            }
            let kind_bits = entry.unix_mode().unwrap_or(0) & TYPE_BITS;
            let expected = if is_folder { FOLDER } else { REGULAR };
            if kind_bits != 0 && kind_bits != expected {
                return Err(refuse("it is neither a regular file nor a folder".into()));
            }
            if entry.encrypted() {
                return Err(refuse("it is encrypted".into()));
            }
            if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
                return Err(refuse(format!(
                    "it is compressed with {}, and only deflate is taken",
                    entry.compression()
                )));
            }
            let executable = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
            let header = entry.header_start();
            let packed = entry.compressed_size();
            let mut file = entry
                .with_reader(&mut contents, ZipReadOptions::new())
                .map_err(|error| refuse(format!("it cannot be read ({error})")))?;
            let data = file.data_start().unwrap_or(header);
            ranges.push((header, data.saturating_add(packed), shown.clone()));
            if is_folder {
                if packed != 0 {
                    return Err(refuse("it is a folder with contents of its own".into()));
                }
                self.folder(path).map_err(|error| error.into_unpack(&shown))?;
            } else if let Some(place) = self.place(path).map_err(|error| error.into_unpack(&shown))? {
                let mut output = self.create(&place, executable)?;
                unpacked.bytes = copy(&mut file, &mut output, packed, unpacked.bytes)
                    .map_err(|error| error.into_unpack(&shown))?;
                unpacked.files += 1;
            } else {
                // The second of a generated file: read to its end, so that a broken one is still noticed.
                copy(&mut file, &mut io::sink(), packed, unpacked.bytes)
                    .map_err(|error| error.into_unpack(&shown))?;
            }
        }
        check_overlap(ranges)?;
        sync(&self.root)?;
        Ok(unpacked)
    }

    /// Notes that a file will stand at `path`, with the folders above it; `None` when it is the second
    /// copy of a generated file, of which the first counts.
    fn place<'a>(&mut self, path: &'a str) -> Result<Option<Place<'a>>, Refusal> {
        let (above, file) = path.rsplit_once('/').map_or((None, path), |(above, file)| (Some(above), file));
        if let Some(above) = above {
            self.folder(above)?;
        }
        match self.taken.get(&path.to_lowercase()) {
            Some((Kind::File, other)) if other == path && GENERATED.contains(&path) => return Ok(None),
            Some((Kind::Folder, other)) => {
                return Err(Refusal::Rule(format!("a folder of that name is there already (`{other}`)")));
            }
            Some((Kind::File, other)) if other == path => {
                return Err(Refusal::Rule("it is there a second time".into()));
            }
            Some((Kind::File, other)) => {
                return Err(Refusal::Rule(format!("its name differs from `{other}` only in case")));
            }
            None => {}
        }
        self.taken.insert(path.to_lowercase(), (Kind::File, path.to_owned()));
        Ok(Some(Place { above, file }))
    }

    /// Makes the folder at `path` and those above it, as far as they are missing.
    fn folder(&mut self, path: &str) -> Result<(), Refusal> {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let path = &path[..end];
            match self.taken.get(&path.to_lowercase()) {
                Some((Kind::Folder, other)) if other == path => continue,
                Some((Kind::Folder, other)) => {
                    return Err(Refusal::Rule(format!("its folder differs from `{other}` only in case")));
                }
                Some((Kind::File, other)) => {
                    return Err(Refusal::Rule(format!("it needs a folder where the file `{other}` is")));
                }
                None => {}
            }
            self.folders += 1;
            if self.folders > ENTRIES_MAX {
                return Err(Refusal::Rule(format!("with it there are more than {ENTRIES_MAX} folders")));
            }
            let (above, name) =
                path.rsplit_once('/').map_or((None, path), |(above, name)| (Some(above), name));
            let above = self.open_folder(above)?;
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::mkdirat(&above, name, mode).map_err(io::Error::from)?;
            self.taken.insert(path.to_lowercase(), (Kind::Folder, path.to_owned()));
        }
        Ok(())
    }

    fn open_folder(&self, path: Option<&str>) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = self.root.try_clone()?;
        for component in path.into_iter().flat_map(|path| path.split('/')) {
            folder = rustix::fs::openat(&folder, component, flags, Mode::empty())?;
        }
        Ok(folder)
    }

    fn create(&self, place: &Place<'_>, executable: bool) -> io::Result<File> {
        let above = self.open_folder(place.above)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&above, place.file, flags, Mode::from_raw_mode(0o600))?);
        let mode = if executable { 0o755 } else { 0o644 };
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        Ok(file)
    }
}

struct Place<'a> {
    above: Option<&'a str>,
    file: &'a str,
}

enum Refusal {
    Rule(String),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Refusal {
    fn into_unpack(self, entry: &str) -> UnpackError {
        match self {
            Self::Rule(rule) => UnpackError::Entry { entry: entry.to_owned(), rule },
            Self::Io(error) => UnpackError::Io(error),
        }
    }
}

/// Copies one file and returns the sum of all bytes so far. What counts is what comes out, not what the
/// headers promise.
fn copy(
    input: &mut impl Read,
    output: &mut impl io::Write,
    packed: u64,
    before: u64,
) -> Result<u64, Refusal> {
    let mut buffer = [0; 64 << 10];
    let mut bytes = 0;
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(before + bytes),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Refusal::Rule(format!("its contents are not sound ({error})"))),
        };
        bytes += read as u64;
        let rule = if bytes > FILE_BYTES_MAX {
            format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)
        } else if before + bytes > TOTAL_BYTES_MAX {
            format!("with it the archive is larger than {} MiB", TOTAL_BYTES_MAX >> 20)
        } else if bytes > RATIO_FREE_BYTES && bytes > packed.saturating_mul(RATIO_MAX) {
            format!("it grows to more than {RATIO_MAX} times its packed size")
        } else {
            output.write_all(&buffer[..read])?;
            continue;
        };
        return Err(Refusal::Rule(rule));
    }
}

/// A zip from its first byte to its last, with nothing before or after it that another reader would find.
fn check_frame(archive: &mut File) -> Result<(), UnpackError> {
    let refuse = |rule: &str| Err(UnpackError::Archive(rule.to_owned()));
    let length = archive.seek(SeekFrom::End(0))?;
    if length < END_RECORD_BYTES {
        return refuse("it is no zip");
    }
    let mut begin = [0; 4];
    let mut end = [0; END_RECORD_BYTES as usize];
    archive.rewind()?;
    archive.read_exact(&mut begin)?;
    archive.seek(SeekFrom::End(-(END_RECORD_BYTES as i64)))?;
    archive.read_exact(&mut end)?;
    archive.rewind()?;
    if &begin == b"PK\x05\x06" {
        return refuse("it is empty");
    }
    if &begin != b"PK\x03\x04" {
        return refuse("it is no zip");
    }
    if &end[..4] != b"PK\x05\x06" || end[20..] != [0, 0] {
        return refuse(
            "it does not end with its directory: there is a comment, or something after it, or it was cut",
        );
    }
    // A directory elsewhere than right before its end record belongs to another archive. (A 64-bit one
    // is never needed below our bounds.)
    let field = |at: usize| u64::from(u32::from_le_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]));
    if field(12) + field(16) != length - END_RECORD_BYTES {
        return refuse("its directory is not where its end says: two archives may be joined here");
    }
    Ok(())
}

/// Entries that share bytes make a small archive large.
fn check_overlap(mut ranges: Vec<(u64, u64, String)>) -> Result<(), UnpackError> {
    ranges.sort();
    for pair in ranges.windows(2) {
        if pair[0].1 > pair[1].0 {
            return Err(UnpackError::Entry {
                entry: pair[1].2.clone(),
                rule: format!("it shares bytes with `{}`", pair[0].2),
            });
        }
    }
    Ok(())
}

/// Everything written below the folder is on disk when this returns.
fn sync(folder: &OwnedFd) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(folder)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        rustix::fs::sync();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
