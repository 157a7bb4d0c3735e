//! The number of replicas: what a pool sees, and what it does about it. What is decided stands in `scale`.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::time::Duration;

use queue::event::{AppEvent, EventKind};
use queue::registry::Build;
use queue::scaling::{Balancing, Metric};
use queue::{BuildId, ReplicaId};
use tokio::time::Instant;

use super::Pool;
use crate::member::{Member, Standing};
use crate::scale::{Reason, Rules, Seen};

/// Calls at once of a replica up to which the oldest one with a free place gets a run, where the app says nothing.
const FEW_CALLS: u32 = 3;

impl Pool {
    /// Replicas that serve or start, and are not there for a roll-out alone.
    pub(super) fn of_live_build(&self) -> u32 {
        let fresh = |member: &&Member| member.counts() && !member.outdated && member.leaves_at.is_none();
        u32::try_from(self.members.values().filter(fresh).count()).unwrap_or(u32::MAX)
    }

    /// Whether there can be one replica of the live build at a time, and the next one after it is gone.
    pub(super) fn is_single(&self) -> bool {
        self.alone.is_some() && self.alone.as_ref() == self.live.as_ref().map(|live| &live.id)
    }

    /// Which replica gets a run. With few calls at once the oldest does, so that the youngest become idle and may go.
    pub(super) fn balance(&self, live: &Build) {
        let few = live.concurrency() <= FEW_CALLS;
        let way = live.config.load_balancing_algorithm.or(few.then_some(Balancing::FirstAvailable));
        self.waiting.balance(way, || u64::from_le_bytes(self.ports.entropy.bytes()));
    }

    /// Those that serve another build leave one after another, spread over that time.
    pub(super) fn roll_out(&mut self, live: &Build, now: Instant, over: Duration) {
        let stays = |member: &&mut Member| {
            member.build.id != live.id && member.leaves_at.is_none() && member.can_stand_in_for(live)
        };
        let mut old: Vec<_> = self.members.values_mut().filter(stays).collect();
        old.sort_by_key(|member| member.begun);
        let count = u32::try_from(old.len()).unwrap_or(u32::MAX);
        for (number, member) in (1..).zip(old) {
            member.leaves_at = Some(now + over * number / count);
        }
    }

    /// Replicas of the build before whose time is over. When the next one's is.
    pub(super) fn let_rolled_out_go(&mut self, now: Instant) -> Option<Instant> {
        let counted = self.members.values_mut().filter(|member| member.counts());
        let (over, staying): (Vec<_>, Vec<_>) = counted
            .filter_map(|member| Some((member.leaves_at?, member)))
            .partition(|(leaves_at, _)| *leaves_at <= now);
        let next = staying.into_iter().map(|(leaves_at, _)| leaves_at).min();
        over.into_iter().for_each(|(_, member)| member.leave());
        next
    }

    /// What there is to decide by.
    pub(super) fn see(&mut self, live: &Build, rules: &Rules, active: u32, now: Instant) -> Seen {
        let demand = self.waiting.demand(active < rules.most);
        let serving = self.members.values_mut().filter(|member| matches!(member.standing, Standing::Serving));
        let (mut idle_since, mut used) = (None, Vec::new());
        for member in serving {
            idle_since = idle_since.max(member.load.idle_since());
            if matches!(rules.metric, Metric::CpuUtilization | Metric::MemoryUtilization) {
                used.extend(member.load.root().and_then(|root| member.usage.look(root, &live.config, now)));
            }
        }
        Seen {
            active,
            waiting: demand.waiting + usize::from(demand.backlog),
            under_way: demand.under_way,
            peak: demand.peak,
            begun: demand.begun,
            used: (!used.is_empty()).then(|| used.iter().sum::<f64>() / used.len() as f64),
            idle_since,
        }
    }

    /// So many replicas leave, those with the fewest calls first, and of these the youngest. Those that have not begun
    /// to serve leave only where there are more than there may be, and during a roll-out nobody else does. Returns how
    /// many left.
    pub(super) fn let_go(&mut self, spare: u32, beyond_most: u32) -> u32 {
        let rolling = self.members.values().any(|member| member.counts() && member.leaves_at.is_some());
        let of_live =
            |member: &&mut Member| member.counts() && !member.outdated && member.leaves_at.is_none();
        let mut candidates: Vec<_> = self.members.values_mut().filter(of_live).collect();
        candidates.sort_by_key(|member| (member.load.calls(), Reverse(member.begun)));
        let mut gone = 0;
        for member in candidates {
            let may_go = matches!(member.standing, Standing::Serving) && !rolling;
            if gone < beyond_most || (gone < spare && may_go) {
                member.leave();
                gone += 1;
            }
        }
        gone
    }

    /// For the list of the app's events.
    pub(super) fn tell(&self, kind: EventKind, text: String, build: Option<&BuildId>) {
        let (at, app, build) = (self.ports.clock.now(), self.app.clone(), build.cloned());
        self.ports.events.note(AppEvent { at, app, kind, text, build });
    }

    /// A replica ended that was to serve.
    pub(super) fn tell_ended(&self, kind: EventKind, id: &ReplicaId, why: &str, build: &Build) {
        let what = if kind == EventKind::ReplicaDied { "died" } else { "did not start" };
        // Of a traceback the first line says enough here; the log has all of it.
        let why = why.lines().next().unwrap_or_default();
        let mut text = format!("replica {id} {what}: {why}");
        if let Some(until) = self.brake.holds_until(Instant::now()) {
            let pause = until.duration_since(Instant::now()).as_secs_f64();
            let _ = write!(text, "; the next start is in {pause:.1} s at the earliest");
        }
        self.tell(kind, text, Some(&build.id));
    }

    /// The number of replicas changes, for a reason.
    pub(super) fn tell_scaled(&self, from: u32, to: u32, reason: Reason) {
        let text = format!("{from} → {to} replicas: {reason}");
        tracing::debug!(app.id = %self.app, "{text}");
        self.tell(EventKind::Scaled, text, None);
    }
}
