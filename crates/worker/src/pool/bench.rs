//! Replicas that wait for GPUs before they start: the first ones of builds before those of the live build,
//! and an app that has the GPUs it waits for makes room for itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue::log::{LogLine, Stream};
use queue::outcome::{Code, RunError};
use queue::port::StartFailure;
use queue::registry::{Build, BuildStatus};
use queue::{AppId, BuildId, limits};
use tokio::time::Instant;

use super::Pool;
use crate::gpus::{Desk, Given, Gpus, Missing};
use crate::member::{Member, Reply, Standing};

/// Time that others have to make room before the app does it itself.
const OWN_ROOM_AFTER: Duration = Duration::from_secs(1);

/// Why replicas do not start, for those who ask.
pub(super) type WaitsFor = Arc<Mutex<Option<String>>>;

/// Where replicas wait.
#[derive(Debug)]
pub(super) struct Bench {
    desk: Desk,
    firsts: VecDeque<First>,
    /// When the wait began.
    since: Option<Instant>,
    waits_for: WaitsFor,
}

/// The first replica of a build.
#[derive(Debug)]
struct First {
    build: Arc<Build>,
    reply: Reply,
    /// When it is no use waiting any longer; set when the wait begins.
    until: Option<Instant>,
}

impl Bench {
    pub(super) fn new(gpus: &Arc<Gpus>, app: AppId, waits_for: WaitsFor) -> Self {
        Self { desk: gpus.desk(app), firsts: VecDeque::new(), since: None, waits_for }
    }

    pub(super) fn push_first(&mut self, build: Arc<Build>, reply: Reply) {
        self.firsts.push_back(First { build, reply, until: None });
    }

    pub(super) fn discard(&mut self, build: &BuildId) {
        self.firsts.retain(|first| first.build.id != *build);
    }

    /// Nobody waits here any more.
    pub(super) fn clear(&mut self) {
        self.firsts.clear();
        self.rest();
    }

    /// The live build needs no further replica.
    pub(super) fn rest_unless_first(&mut self) {
        if self.firsts.is_empty() {
            self.rest();
        }
    }

    fn rest(&mut self) {
        if self.since.take().is_some() {
            self.say(None);
            self.desk.rest();
        }
    }

    /// The most replicas that there is hardware for, if that bounds them: one at least, which says what is missing.
    pub(super) fn room(&self, build: &Build) -> Option<u32> {
        self.desk.room(&build.config).map(|room| room.max(1))
    }

    /// Others wait for GPUs that replicas of the app may have.
    pub(super) fn is_waited_for(&self) -> bool {
        self.desk.is_waited_for()
    }

    /// Whether [`Bench::news`] are of interest.
    pub(super) fn listens(&self) -> bool {
        self.since.is_some() || self.desk.has_had_some()
    }

    pub(super) async fn news(&mut self) {
        self.desk.news().await;
    }

    fn ask(&mut self, build: &Build, now: Instant) -> Result<Given, Missing> {
        let answer = self.desk.take(&build.config);
        match &answer {
            Ok(_) => {
                if self.since.take().is_some() {
                    self.say(None);
                }
            }
            Err(missing) => {
                self.since.get_or_insert(now);
                if self.say(Some(missing.why().to_owned())) {
                    match missing {
                        Missing::InUse(why) => {
                            tracing::info!(app.id = %build.app, "a replica does not start: {why}");
                        }
                        Missing::NotHere(why) => {
                            tracing::error!(app.id = %build.app, "no replica can start: {why}; its runs wait");
                        }
                    }
                }
            }
        }
        answer
    }

    /// Whether that is new.
    fn say(&self, why: Option<String>) -> bool {
        let mut said = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *said != why;
        *said = why;
        is_new
    }
}

impl Pool {
    /// GPUs for a further replica of the live build; the first ones of builds come before it.
    pub(super) fn gpus_for(&mut self, build: &Build, now: Instant) -> Option<Given> {
        if self.bench.firsts.is_empty() { self.bench.ask(build, now).ok() } else { None }
    }

    /// Starts the first replicas of builds that there are GPUs for. When to look again.
    pub(super) fn start_firsts(&mut self, now: Instant) -> Option<Instant> {
        // Beside one that must be alone it could not start; what is asked meanwhile waits.
        if self.is_single() && !self.members.is_empty() && !self.bench.firsts.is_empty() {
            self.members.values_mut().for_each(Member::leave);
            return None;
        }
        while let Some(mut first) = self.bench.firsts.pop_front() {
            if first.reply.is_closed() {
                continue;
            }
            let (status, why) = match self.bench.ask(&first.build, now) {
                Ok(gpus) => {
                    self.start(first.build, Standing::First(Some(first.reply)), gpus);
                    continue;
                }
                Err(Missing::NotHere(why)) => (BuildStatus::InitFailure, why),
                Err(Missing::InUse(why)) => {
                    let until = *first.until.get_or_insert_with(|| {
                        self.say_to_build(&first.build, format!("==> no GPU is free: {why}"));
                        now + limits::GPU_WAIT_MAX
                    });
                    if now < until {
                        self.bench.firsts.push_front(first);
                        return Some(until);
                    }
                    let waited = limits::GPU_WAIT_MAX.as_secs() / 60;
                    (BuildStatus::InitTimeout, format!("no GPU became free within {waited} minutes: {why}"))
                }
            };
            let error = RunError::new(Code::FailedToStart, why);
            // Whoever waited may have gone.
            let _ = first.reply.send(Err(StartFailure { status, error }));
        }
        None
    }

    /// A replica that has GPUs leaves for one of the same app that waits for them: for the first of a new
    /// build, and for the fresh one that takes an outdated one's place. When to look again.
    pub(super) fn make_room(&mut self, now: Instant) -> Option<Instant> {
        let since = self.bench.since?;
        let for_first = !self.bench.firsts.is_empty();
        let may_leave =
            |member: &Member| !member.gpus.is_empty() && member.counts() && (for_first || member.outdated);
        if !self.members.values().any(may_leave) {
            return None;
        }
        if now < since + OWN_ROOM_AFTER {
            return Some(since + OWN_ROOM_AFTER);
        }
        // One after the other: what the first gives back may be enough.
        if self
            .members
            .values()
            .any(|member| !member.gpus.is_empty() && matches!(member.standing, Standing::Leaving))
        {
            return None;
        }
        let leaving = self.members.values_mut().filter(|member| may_leave(member));
        if let Some(member) = leaving.min_by_key(|member| member.load.calls()) {
            tracing::info!(app.id = %self.app, "a replica leaves, so that a new one gets its GPU");
            member.leave();
        }
        None
    }

    fn say_to_build(&self, build: &Build, text: String) {
        let (app, build) = (build.app.clone(), Some(build.id.clone()));
        let at = self.ports.clock.now();
        let line = LogLine { at, app, build, run: None, replica: None, stream: Stream::System, text };
        self.ports.logs.append(vec![line]);
    }
}
