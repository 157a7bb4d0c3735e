//! An ext4 on a disk with a write cache, whose power can be cut between any two of its requests.
//!
//! The disk is a file that this process serves by FUSE, with a loop device on it. A write is answered when it is
//! in the disk's cache; safe is what was written before a flush. Of the rest a power cut leaves what chance says,
//! since a disk writes its cache down in an order of its own. From the cut on no request is answered, so that
//! nobody tells anybody what this disk cannot have promised, however late he is stopped.

mod platter;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};

pub(super) use self::platter::Cut;
use self::platter::Platter;
use super::disk::{run, text};
use crate::chance::Chance;
use crate::support::PATIENCE;

/// Memory is taken for what is written.
const BYTES: usize = 512 << 20;
const FILE: &str = "disk";
const INODE: INodeNo = INodeNo(2);
const POLL: Duration = Duration::from_millis(2);

/// A mounted ext4 on such a disk.
pub(super) struct CachedDisk {
    folder: tempfile::TempDir,
    served: Arc<Mutex<Served>>,
    session: Option<BackgroundSession>,
}

/// The disk as the kernel uses it.
struct Served {
    platter: Platter,
    power: Power,
    /// Requests that nobody answers.
    waiting: Vec<Waiting>,
    /// How often the power came on. What comes from the time before has nothing to say.
    life: u64,
    /// How many have the file open.
    open: usize,
}

enum Power {
    On,
    /// On, until so many more requests were answered.
    Failing(u64, Chance),
    Off(Cut),
    /// Off, and whoever still asks is dead.
    Abandoned,
}

enum Waiting {
    Write { offset: usize, bytes: Vec<u8>, reply: ReplyWrite },
    Flush(ReplyEmpty),
}

/// What becomes of a request that changes something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Waits,
    /// It is answered, and nothing happens.
    Ignored,
}

impl CachedDisk {
    /// Makes and mounts one. `Err` is a reason to skip.
    pub(super) fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let served =
            Served { platter: Platter::new(BYTES), power: Power::On, waiting: Vec::new(), life: 0, open: 0 };
        let mut disk = Self { folder, served: Arc::new(Mutex::new(served)), session: None };
        for folder in [disk.raw(), disk.path()] {
            std::fs::create_dir(folder).map_err(|error| error.to_string())?;
        }
        let session = fuser::spawn_mount(Fuse(Arc::clone(&disk.served)), disk.raw(), &Config::default());
        disk.session = Some(session.map_err(|error| format!("FUSE cannot be mounted: {error}"))?);
        run("mkfs.ext4", &["-q", "-b", "4096", text(&disk.raw().join(FILE))])?;
        disk.attach()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn raw(&self) -> PathBuf {
        self.folder.path().join("raw")
    }

    fn attach(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(&self.raw().join(FILE)), text(&self.path())])
    }

    /// Writes everything down, as a quiet minute would.
    pub(super) fn sync(&self) {
        run("sync", &["-f", text(&self.path())]).expect("it is mounted");
    }

    /// Lets the power fail after so many more requests.
    pub(super) fn fail_after(&self, requests: u64, chance: Chance) -> PowerCut<'_> {
        self.lock().power = Power::Failing(requests, chance);
        PowerCut { disk: self }
    }

    fn lock(&self) -> MutexGuard<'_, Served> {
        lock(&self.served)
    }
}

/// A power cut that comes, or came. Ends with the power still off, but nobody waiting for it.
pub(super) struct PowerCut<'a> {
    disk: &'a CachedDisk,
}

impl PowerCut<'_> {
    /// What it did, once it came.
    pub(super) fn came(&self) -> Option<String> {
        match &self.disk.lock().power {
            Power::Off(cut) => Some(cut.to_string()),
            Power::On | Power::Failing(..) | Power::Abandoned => None,
        }
    }

    /// Lets those go who wait for the disk: a process can only die once the kernel has an answer. To be called
    /// when it can do nothing else any more.
    pub(super) fn abandon(&self) {
        let mut served = self.disk.lock();
        served.power = Power::Abandoned;
        for waiting in std::mem::take(&mut served.waiting) {
            match waiting {
                Waiting::Write { offset, bytes, reply } => {
                    served.platter.write(offset, &bytes);
                    reply.written(u32::try_from(bytes.len()).unwrap());
                }
                Waiting::Flush(reply) => reply.ok(),
            }
        }
    }

    /// Mounts what the disk has, once the replicas of the dead server are gone from it.
    pub(super) fn power_on(self) {
        self.abandon();
        let began = Instant::now();
        while let Err(reason) = run("umount", &[text(&self.disk.path())]) {
            assert!(began.elapsed() < PATIENCE, "{reason}");
            std::thread::sleep(POLL);
        }
        let mut served = self.disk.lock();
        served.platter.power_on();
        served.life += 1;
        served.power = Power::On;
        drop(served);
        self.disk.attach().expect("it was mounted before");
    }
}

impl Drop for PowerCut<'_> {
    fn drop(&mut self) {
        if !matches!(self.disk.lock().power, Power::On) {
            self.abandon();
        }
    }
}

impl Drop for CachedDisk {
    fn drop(&mut self) {
        let began = Instant::now();
        while run("umount", &[text(&self.path())]).is_err() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(POLL);
        }
        // The loop device lets go of the file when it comes to it.
        while self.lock().open > 0 && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(POLL);
        }
        self.session.take();
    }
}

fn lock(served: &Mutex<Served>) -> MutexGuard<'_, Served> {
    served.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Served {
    fn fate(&mut self, life: FileHandle) -> Fate {
        if life.0 != self.life {
            return Fate::Ignored;
        }
        if let Power::Failing(left, chance) = &mut self.power {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.power = Power::Off(self.platter.cut(chance)),
            }
        }
        if matches!(self.power, Power::Off(_)) { Fate::Waits } else { Fate::Done }
    }
}

/// The one file in the one folder.
struct Fuse(Arc<Mutex<Served>>);

impl Fuse {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_folder = inode == INodeNo::ROOT;
        let size = if is_folder { 0 } else { lock(&self.0).platter.len() as u64 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_folder { FileType::Directory } else { FileType::RegularFile },
            perm: if is_folder { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&Duration::ZERO, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut served = lock(&self.0);
        served.open += 1;
        // The kernel keeps nothing of it in a cache of its own.
        reply.opened(FileHandle(served.life), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.0).open -= 1;
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Of a descriptor that is closed, not of the disk.
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let served = lock(&self.0);
        reply.data(served.platter.read(usize::try_from(offset).unwrap(), size as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        life: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut served = lock(&self.0);
        let offset = usize::try_from(offset).unwrap();
        if offset + bytes.len() > served.platter.len() {
            return reply.error(Errno::ENOSPC);
        }
        let fate = served.fate(life);
        if fate == Fate::Waits {
            return served.waiting.push(Waiting::Write { offset, bytes: bytes.to_owned(), reply });
        }
        if fate == Fate::Done {
            served.platter.write(offset, bytes);
        }
        reply.written(u32::try_from(bytes.len()).unwrap());
    }

    fn fsync(&self, _: &Request, _: INodeNo, life: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut served = lock(&self.0);
        match served.fate(life) {
            Fate::Waits => return served.waiting.push(Waiting::Flush(reply)),
            Fate::Done => served.platter.flush(),
            Fate::Ignored => {}
        }
        reply.ok();
    }
}
