//! Where a database may not lie: WAL needs memory shared by all who open it, and a lock that holds.

use std::path::Path;

use crate::OpenError;

/// File systems that reach another machine, by the number that `statfs` gives on Linux.
#[cfg(target_os = "linux")]
const NETWORK: [(u32, &str); 6] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
];

/// Refuses a directory on a network file system.
#[cfg(target_os = "linux")]
pub(crate) fn refuse_network(dir: &Path) -> Result<(), OpenError> {
    let found = rustix::fs::statfs(dir)
        .map_err(|error| OpenError::Io { path: dir.to_owned(), source: error.into() })?;
    match network(found.f_type) {
        Some(kind) => Err(OpenError::Network { dir: dir.to_owned(), kind }),
        None => Ok(()),
    }
}

/// Elsewhere the numbers are not known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn refuse_network(_dir: &Path) -> Result<(), OpenError> {
    Ok(())
}

#[cfg(target_os = "linux")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers have 32 bits; what is wider, or signed, differs by platform"
)]
fn network(number: rustix::fs::FsWord) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == number as u32).map(|(_, kind)| *kind)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_and_local_ones_welcome() {
        assert_eq!(network(0x6969), Some("NFS"));
        for local in [0xEF53, 0x0102_1994, 0x9123_683E_u32 as rustix::fs::FsWord, 0x794c_7630] {
            assert_eq!(network(local), None);
        }
        assert!(refuse_network(tempfile::tempdir().unwrap().path()).is_ok());
    }
}
