//! Times that no schedule gives. A clock that ran years ahead for a moment leaves deliveries behind whose
//! next attempt would come years late, so whatever lies beyond the longest wait is brought forward.

use std::time::Duration;

use queue::port::Stored;
use queue::{limits, retry};
use rusqlite::params;

use crate::Store;
use crate::batch::Batch;
use crate::fault::Fault;

impl Store {
    /// To be called when the clock was set back: what can only have been scheduled while it was wrong is
    /// due now. Returns how many deliveries and runs that concerned. Every start does the same.
    ///
    /// # Errors
    /// When the store is closed or its disk fails.
    pub async fn bring_forward(&self) -> Stored<usize> {
        self.inner.committer.write(0, bring_forward).await
    }
}

pub(crate) fn bring_forward(batch: &mut Batch<'_>) -> Result<usize, Fault> {
    let now = batch.now();
    let beyond = |wait: Duration| now.plus(wait).as_millis();
    let deliveries = batch
        .sql("UPDATE deliveries SET next_at = ?1 WHERE state = 'pending' AND next_at > ?2")?
        .execute(params![now.as_millis(), beyond(retry::WAIT_MAX)])?;
    let runs = batch
        .sql("UPDATE runs SET not_before = ?1 WHERE state = 'queued' AND delayed = 1 AND not_before > ?2")?
        .execute(params![now.as_millis(), beyond(limits::DELAY_MAX)])?;
    Ok(deliveries + runs)
}

#[cfg(test)]
mod tests {
    use queue::Timestamp;

    use super::*;

    #[test]
    fn no_schedule_waits_longer_than_the_longest_wait() {
        let jittered = |step: &Duration| step.mul_f64(1.0 + retry::JITTER_MAX);
        let longest = retry::SCHEDULE.iter().map(jittered).max().unwrap().max(retry::RETRY_AFTER_MAX);
        let longest = longest.max(jittered(&limits::WEBHOOK_SCHEDULE_STEP_MAX));
        assert!(longest <= retry::WAIT_MAX, "{longest:?}");
        assert!(Timestamp::from_millis(0).plus(retry::WAIT_MAX) > Timestamp::from_millis(0));
    }
}
