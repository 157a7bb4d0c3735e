//! Times that no schedule gives. A clock that ran years ahead for a moment leaves deliveries behind whose
//! next attempt would come years late, so whatever lies beyond the longest wait is brought forward.

use std::time::Duration;

use queue::port::Stored;
use queue::{limits, retry};
use rusqlite::params;

use crate::Store;
use crate::batch::Batch;
use crate::chores::{self, CHANGED_PER_STEP};
use crate::fault::Fault;

impl Store {
    /// To be called when the clock was set back: what can only have been scheduled while it was wrong is
    /// due now. Returns how many deliveries and runs that concerned. Every start does the same.
    ///
    /// # Errors
    /// When the store is closed or its disk fails.
    pub async fn bring_forward(&self) -> Stored<usize> {
        let mut brought = 0;
        loop {
            let step = |batch: &mut Batch<'_>| bring_forward(batch, BROUGHT_PER_BATCH);
            match self.inner.committer.write(0, step).await? {
                0 => return Ok(brought),
                some => brought += some,
            }
        }
    }
}

/// Deliveries and runs brought forward in one transaction.
const BROUGHT_PER_BATCH: i64 = CHANGED_PER_STEP as i64;
/// All of them: at a start nobody waits yet.
pub(crate) const ALL: i64 = -1;

/// Brings so many deliveries and as many runs forward.
pub(crate) fn bring_forward(batch: &mut Batch<'_>, most: i64) -> Result<usize, Fault> {
    let now = batch.now();
    let beyond = |wait: Duration| now.plus(wait).as_millis();
    let deliveries = batch
        .sql(
            "UPDATE deliveries SET next_at = ?1 WHERE (run, endpoint) IN (
                 SELECT run, endpoint FROM deliveries WHERE state = 'pending' AND next_at > ?2 LIMIT ?3)",
        )?
        .execute(params![now.as_millis(), beyond(retry::WAIT_MAX), most])?;
    if deliveries > 0 {
        // They may lie behind the place up to which something was seen to.
        chores::begin_anew(batch)?;
    }
    let runs = batch
        .sql(
            "UPDATE runs SET not_before = ?1 WHERE id IN (
                 SELECT id FROM runs WHERE state = 'queued' AND delayed = 1 AND not_before > ?2 LIMIT ?3)",
        )?
        .execute(params![now.as_millis(), beyond(limits::DELAY_MAX), most])?;
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
