//! Errors of the operating system that speak of this machine and of nobody else.

use std::io;

/// The numbers are the same on Linux and macOS, but for the last.
const NO_MEMORY: i32 = 12;
const TOO_MANY_FILES_ON_THE_MACHINE: i32 = 23;
const TOO_MANY_FILES: i32 = 24;
const NO_BUFFER: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };

/// Whether this server lacks what it needs to go on: file descriptors or memory. Such an error says
/// nothing about the app, the receiver or the caller whose turn it was.
pub fn is_shortage(error: &io::Error) -> bool {
    let lacks =
        |number| matches!(number, NO_MEMORY | TOO_MANY_FILES_ON_THE_MACHINE | TOO_MANY_FILES | NO_BUFFER);
    error.raw_os_error().is_some_and(lacks) || error.kind() == io::ErrorKind::OutOfMemory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_or_memory_is_ours_and_a_refusal_is_not() {
        for number in [12, 23, 24] {
            assert!(is_shortage(&io::Error::from_raw_os_error(number)), "{number}");
        }
        for kind in
            [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied]
        {
            assert!(!is_shortage(&kind.into()), "{kind}");
        }
        assert!(!is_shortage(&io::Error::from_raw_os_error(2)));
    }
}
