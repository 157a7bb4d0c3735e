//! The projects' signing keys, read again every second so that a rotation reaches every delivery
//! without anybody being told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue::id::ProjectId;
use queue::port::Registry;
use queue::signature::SigningKeys;
use tokio::time::{Instant, sleep, timeout_at};

const FRESH: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);
/// Keys held in memory; beyond it they are all read again.
const HELD_MAX: usize = 10_000;

pub(crate) struct Keys {
    registry: Arc<dyn Registry>,
    held: Mutex<HashMap<ProjectId, Held>>,
}

#[derive(Clone)]
struct Held {
    key: Arc<SigningKeys>,
    read_at: Instant,
}

impl Keys {
    pub(crate) fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, held: Mutex::default() }
    }

    /// The project's keys. A store that cannot be read for a moment is asked again until `deadline`,
    /// and meanwhile keys known before are good.
    pub(crate) async fn get(&self, project: &ProjectId, deadline: Instant) -> Option<Arc<SigningKeys>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(project).cloned();
        if let Some(held) = &held
            && held.read_at.elapsed() < FRESH
        {
            return Some(Arc::clone(&held.key));
        }
        let read = async {
            loop {
                match (self.registry.project(project).await, &held) {
                    (Ok(found), _) => {
                        return found.and_then(|found| found.signing_keys().ok());
                    }
                    (Err(_), Some(held)) => return Some(SigningKeys::clone(&held.key)),
                    (Err(_), None) => sleep(RETRY).await,
                }
            }
        };
        let key = Arc::new(timeout_at(deadline, read).await.ok().flatten()?);
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= HELD_MAX {
            all.clear();
        }
        all.insert(project.clone(), Held { key: Arc::clone(&key), read_at: Instant::now() });
        Some(key)
    }
}
