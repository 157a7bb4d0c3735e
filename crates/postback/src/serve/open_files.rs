//! How many files the server may open: as many as the system lets it, and its own bounds below that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than anybody needs; where the system knows no bound, a number is needed all the same.
const ENOUGH: u64 = 1 << 20;

/// The limit on open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFiles {
    /// What the server was started with, and what it starts gets again; `None` for no limit.
    pub(super) inherited: Option<u64>,
    /// What holds now.
    pub(super) now: u64,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one.
    pub(super) fn raise() -> Self {
        let Rlimit { current: inherited, maximum } = getrlimit(Resource::Nofile);
        let wanted = maximum.unwrap_or(ENOUGH).min(ENOUGH);
        let before = inherited.unwrap_or(ENOUGH);
        if before >= wanted {
            return Self { inherited, now: before };
        }
        let now = match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!(%error, limit = before, "the limit on open files could not be raised");
                before
            }
        };
        Self { inherited, now }
    }

    /// Connections of callers that leave enough for webhooks, replicas and the store.
    pub(super) fn connections(self, wanted: usize) -> usize {
        let share = usize::try_from(self.now.saturating_mul(3) / 8).unwrap_or(usize::MAX);
        wanted.min(share.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_rest() {
        let files = |now| OpenFiles { inherited: Some(now), now };
        assert_eq!(files(1 << 20).connections(4_096), 4_096);
        assert_eq!(files(1_024).connections(4_096), 384);
        assert_eq!(files(1).connections(4_096), 1);
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let raised = OpenFiles::raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current.unwrap_or(ENOUGH), raised.now);
        assert!(raised.now >= maximum.unwrap_or(ENOUGH).min(ENOUGH));
    }
}
