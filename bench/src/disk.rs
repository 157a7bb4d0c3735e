//! What the disk can do: the physical limit of anything durable.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Appends of 600 bytes, each followed by `fdatasync`, per second.
pub(crate) fn syncs_per_second() -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut file = File::create(folder.path().join("append"))?;
    let began = Instant::now();
    let mut count = 0.0;
    while began.elapsed() < Duration::from_millis(500) {
        file.write_all(&[7; 600])?;
        file.sync_data()?;
        count += 1.0;
    }
    Ok(count / began.elapsed().as_secs_f64())
}
