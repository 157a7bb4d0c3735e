//! The ports: what the rooms ask of one another. `postback` wires them; nobody imports a sibling.
//!
//! | port | in | asked by | fulfilled by |
//! |---|---|---|---|
//! | [`Runs`] | `runs` | gateway, worker, dashboard | store |
//! | [`Dispatch`] | `dispatch` | gateway, dashboard | worker |
//! | [`Calls`] | `dispatch` | dashboard | gateway |
//! | [`Api`] | `api` | dashboard | gateway |
//! | [`Replicas`] | `replicas` | builder, gateway, dashboard | worker |
//! | [`Deliveries`] | `deliveries` | delivery, gateway, dashboard | store |
//! | [`Outbox`] | `deliveries` | worker, gateway, dashboard | delivery |
//! | [`AddressGuard`] | `guard` | gateway | delivery |
//! | [`Replays`] | `replay` | gateway, dashboard | delivery |
//! | [`Inboxes`] | `inboxes` | inbox, delivery, gateway, dashboard | store |
//! | [`Registry`] | `registry` | all but store | store |
//! | [`Settings`] | `registry` | dashboard | gateway |
//! | [`Builds`] | `builds` | gateway, dashboard | builder |
//! | [`Secrets`] | `keys` | worker, gateway, dashboard | store |
//! | [`Keyring`] | `keys` | gateway, dashboard | postback |
//! | [`Logs`] | `watch` | worker, builder, gateway, dashboard | store |
//! | [`AppEvents`] | `watch` | worker, builder, gateway, dashboard | store |
//! | [`Traffic`] | `watch` | dashboard | store |

mod api;
mod builds;
mod deliveries;
mod dispatch;
mod guard;
mod inboxes;
mod keys;
mod registry;
mod replay;
mod replicas;
mod runs;
mod watch;

pub use api::Api;
pub use builds::{Builds, RollbackError, UploadError};
pub use deliveries::{Deliveries, Departure, Outbox, Room};
pub use dispatch::{Call, Calls, Dispatch, Heard, Listener, Refused, Slot};
pub use guard::{AddressGuard, AddressRefused, Admitted};
pub use inboxes::Inboxes;
pub use keys::{Keyring, Secrets, TooManySecrets};
pub use registry::{Registry, SettingRefused, Settings};
pub use replay::Replays;
pub use replicas::{Replicas, StartFailure};
pub use runs::{Accepted, Claim, Runs};
pub use watch::{AppEvents, Logs, Traffic};

/// Why the store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not happen: the store is closed, full or unreachable. Trying again is safe.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It did not happen: the disk is full. It goes on by itself once there is space.
    #[error("the disk of the data directory is full: {0}")]
    Full(String),
    /// The commit failed: nobody can say whether it happened.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// What was read is not what was once written.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}

/// The store's answer.
pub type Stored<T> = Result<T, StoreError>;
