//! What a server takes of the machine at one moment.

use std::path::Path;

/// Memory, descriptors, threads, and the length of the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes of the write-ahead log.
    pub log: u64,
}

impl Footprint {
    /// That of the process `pid` on `data_dir`. `None` when it is gone.
    pub fn of(pid: u32, data_dir: &Path) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let figure = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            resident: figure("VmRSS:")? * 1024,
            threads: figure("Threads:")?,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            log: std::fs::metadata(data_dir.join("postback.db-wal")).map_or(0, |file| file.len()),
        })
    }
}
