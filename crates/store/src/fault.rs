//! Why a write or a read did not succeed, seen from inside, and what the caller is told.

use std::io;

use queue::port::StoreError;
use rusqlite::ErrorCode;

/// A failure inside the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// SQLite refused.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// A result file could not be read or written.
    #[error(transparent)]
    File(#[from] io::Error),
    /// What was read is not what was once written.
    #[error("{0}")]
    Corrupt(String),
    /// What was asked for makes no sense here.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    /// The disk is full: nothing happened, and it may go by itself.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Sql(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Self::File(error) => error.kind() == io::ErrorKind::StorageFull,
            Self::Corrupt(_) | Self::Refused(_) => false,
        }
    }

    /// Nothing happened, and trying again later may well succeed.
    pub(crate) fn passes(&self) -> bool {
        if crate::mutant::shows("device-errors-pass") {
            return true;
        }
        let busy = |error: &rusqlite::Error| {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
        };
        self.is_full() || matches!(self, Self::Sql(error) if busy(error))
    }

    /// The disk or the file is not to be trusted any more: an error of the device does not heal by
    /// trying again, and what the page cache says afterwards may not be what is on the disk.
    pub(crate) fn is_fatal(&self) -> bool {
        if crate::mutant::shows("device-errors-pass") {
            return false;
        }
        let Self::Sql(error) = self else { return false };
        matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
            )
        )
    }

    /// What lies in the file is no database any more, or not the one that was written.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Sql(error) if is_damage(error))
    }

    /// What the caller is told about a write that was not committed, or a read.
    pub(crate) fn told(&self) -> StoreError {
        match self {
            Self::Sql(
                rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..),
            )
            | Self::Corrupt(_) => StoreError::Corrupt(self.to_string()),
            _ if self.is_damage() => StoreError::Corrupt(self.to_string()),
            _ if self.is_full() => StoreError::Full(self.to_string()),
            _ => StoreError::Unavailable(self.to_string()),
        }
    }
}

/// Whether SQLite found pages that it never wrote.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

impl From<rusqlite::types::FromSqlError> for Fault {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::Corrupt(error.to_string())
    }
}
