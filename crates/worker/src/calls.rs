//! The calls that one replica works on, and the moments at which something is due for them.

use std::collections::HashMap;
use std::time::Duration;

use queue::lease::Lease;
use queue::limits::REPLICA_RUNS_SHOWN;
use queue::progress::Progress;
use queue::{Clock, RunId, Timestamp};
use tokio::time::Instant;

use crate::FAR;
use crate::printed::Budget;
use crate::telling::Telling;
use crate::waiting::Work;

/// A run is reported as started when a replica has had it for this long. Shorter ones never are:
/// the report would cost more than it could save.
const REPORTED_AFTER: Duration = Duration::from_millis(500);

/// A call that the runner has not answered.
#[derive(Debug)]
pub(crate) struct UnderWay {
    /// Whose it is; `None` once its limit was reached or it was cancelled, and its end recorded.
    pub(crate) work: Option<Work>,
    pub(crate) run: RunId,
    pub(crate) started_at: Timestamp,
    pub(crate) log: Budget,
    /// What it has to tell its endpoints.
    pub(crate) telling: Option<Box<Telling>>,
    started: Instant,
    /// Its limit; after that, the end of its grace.
    deadline: Instant,
    reported: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Calls {
    grace: Duration,
    under_way: HashMap<u32, UnderWay>,
    last: u32,
    /// Not later than the first moment at which anything is due.
    wake_at: Option<Instant>,
}

/// What is due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Calls that reached their limit: their work is taken out, the runner must be told.
    pub(crate) overdue: Vec<(u32, Work, Timestamp)>,
    /// Leases of runs that have been under way for a while.
    pub(crate) started: Vec<Lease>,
    /// What runs have to tell.
    pub(crate) told: Vec<Progress>,
    /// A call did not come back within its grace: the replica must go.
    pub(crate) grace_over: bool,
}

impl Calls {
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, under_way: HashMap::new(), last: 0, wake_at: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Notes a call that is about to be sent; its number.
    pub(crate) fn begin(&mut self, work: Work, now: Instant, started_at: Timestamp) -> u32 {
        let call = loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.under_way.contains_key(&self.last) {
                break self.last;
            }
        };
        let (deadline, reported) = match &work {
            Work::Run(run) => (now + run.limit.min(FAR), false),
            Work::Call(call) => (call.deadline, true),
        };
        self.wake_by(if reported { deadline } else { deadline.min(now + REPORTED_AFTER) });
        let run = work.id();
        let telling = if let Work::Run(run) = &work { Telling::of(run) } else { None };
        let entry = UnderWay {
            work: Some(work),
            run,
            started_at,
            log: Budget::default(),
            telling,
            started: now,
            deadline,
            reported,
        };
        self.under_way.insert(call, entry);
        call
    }

    pub(crate) fn get_mut(&mut self, call: u32) -> Option<&mut UnderWay> {
        self.under_way.get_mut(&call)
    }

    /// The call was answered.
    pub(crate) fn end(&mut self, call: u32) -> Option<UnderWay> {
        self.under_way.remove(&call)
    }

    /// Takes the work out of a call that is to be cancelled; its grace begins.
    pub(crate) fn cancel(&mut self, run: RunId, now: Instant) -> Option<(u32, Work, Timestamp)> {
        let (number, call) =
            self.under_way.iter_mut().find(|(_, call)| call.run == run && call.work.is_some())?;
        let found = (*number, call.work.take()?, call.started_at);
        call.deadline = now + self.grace;
        call.reported = true;
        let deadline = call.deadline;
        self.wake_by(deadline);
        Some(found)
    }

    /// The only call under way, if there is exactly one.
    pub(crate) fn only(&mut self) -> Option<&mut UnderWay> {
        if self.under_way.len() == 1 { self.under_way.values_mut().next() } else { None }
    }

    /// Some of those that are under way, the oldest first.
    pub(crate) fn shown(&self) -> Vec<RunId> {
        let mut shown: Vec<_> = self.under_way.values().filter(|call| call.work.is_some()).collect();
        shown.sort_unstable_by_key(|call| (call.started, call.run));
        shown.iter().take(REPLICA_RUNS_SHOWN).map(|call| call.run).collect()
    }

    /// All of them, for a replica that is gone.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = UnderWay> + '_ {
        self.wake_at = None;
        self.under_way.drain().map(|(_, call)| call)
    }

    /// When to ask for what is due. May be early, never late.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Something of a call is to be told at this moment.
    pub(crate) fn wake_by(&mut self, moment: Instant) {
        self.wake_at = Some(self.wake_at.map_or(moment, |at| at.min(moment)));
    }

    /// What is due at `now`.
    pub(crate) fn due(&mut self, now: Instant, clock: &dyn Clock) -> Due {
        let mut due = Due::default();
        let mut next: Option<Instant> = None;
        for (number, call) in &mut self.under_way {
            if !call.reported && now >= call.started + REPORTED_AFTER {
                call.reported = true;
                if let Some(Work::Run(run)) = &call.work {
                    due.started.push(run.lease);
                }
            }
            if now >= call.deadline {
                match call.work.take() {
                    Some(work) => {
                        due.overdue.push((*number, work, call.started_at));
                        call.deadline = now + self.grace;
                        call.reported = true;
                    }
                    None => due.grace_over = true,
                }
            }
            let report_at = if call.reported { call.deadline } else { call.started + REPORTED_AFTER };
            if let Some(telling) = &mut call.telling {
                telling.tell(now, clock.now(), &mut due.told);
            }
            let told_at = call.telling.as_ref().and_then(|telling| telling.due());
            let moment = call.deadline.min(report_at).min(told_at.unwrap_or(call.deadline));
            next = Some(next.map_or(moment, |at| at.min(moment)));
        }
        self.wake_at = next;
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use queue::LeaseToken;
    use queue::run::{Generation, LeasedRun};
    use queue::webhook::EventFilter;

    use super::*;

    struct Still;
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }
    }

    fn run(number: u8, limit: u64) -> Work {
        let run = RunId::from_bytes([number; 16]);
        Work::Run(LeasedRun {
            lease: Lease { run, token: LeaseToken::from_bytes([0; 16]), attempt: 1 },
            app: "p-1234abcd-a".parse().unwrap(),
            function: Arc::from("predict"),
            generation: Generation::V4,
            input: Bytes::new(),
            webhooks: vec![],
            events: EventFilter::default(),
            limit: Duration::from_millis(limit),
            accepted_at: Timestamp::default(),
            crashes: 0,
            priority: 0,
            retry: None,
            failures: 0,
            last_attempt: false,
        })
    }

    #[test]
    fn limit_grace_and_report_each_come_once_and_in_time() {
        let mut calls = Calls::new(Duration::from_secs(5));
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let short = calls.begin(run(1, 2_000), begin, Timestamp::default());
        calls.begin(run(2, 60_000), begin, Timestamp::default());
        assert_eq!(calls.wake_at(), Some(at(500)));

        let due = calls.due(at(500), &Still);
        assert_eq!((due.started.len(), due.overdue.len()), (2, 0));
        assert_eq!(calls.wake_at(), Some(at(2_000)));

        let due = calls.due(at(2_000), &Still);
        assert_eq!((due.started.len(), due.overdue.len(), due.grace_over), (0, 1, false));
        assert_eq!(due.overdue[0].0, short);
        assert_eq!(calls.wake_at(), Some(at(7_000)));

        assert!(!calls.due(at(6_999), &Still).grace_over);
        assert!(calls.due(at(7_000), &Still).grace_over);
    }

    #[test]
    fn an_answered_call_is_never_due() {
        let mut calls = Calls::new(Duration::from_secs(5));
        let begin = Instant::now();
        let call = calls.begin(run(1, 1_000), begin, Timestamp::default());
        assert!(calls.end(call).is_some());
        let due = calls.due(begin + Duration::from_secs(100), &Still);
        assert!(due.overdue.is_empty() && due.started.is_empty() && !due.grace_over);
        assert_eq!(calls.wake_at(), None);
    }
}
