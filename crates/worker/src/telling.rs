//! What a run tells on its way, gathered: at most one event of a kind each [`PROGRESS_EVERY`], however much
//! is printed and yielded, and no more of it in memory than one body holds.

use std::time::Duration;

use bytes::Bytes;
use queue::Timestamp;
use queue::lease::Lease;
use queue::limits::{PROGRESS_BODY_BYTES_MAX, PROGRESS_EVERY};
use queue::progress::Progress;
use queue::run::LeasedRun;
use queue::webhook::Event;
use tokio::time::Instant;

/// What one run has to tell.
#[derive(Debug)]
pub(crate) struct Telling {
    lease: Lease,
    logs: Option<Gathering>,
    output: Option<Gathering>,
}

/// Items of one kind that nobody was told of yet.
#[derive(Debug, Default)]
struct Gathering {
    /// A JSON array without its last bracket.
    items: Vec<u8>,
    dropped: u32,
    /// When they may be told.
    due: Option<Instant>,
    /// When the last ones were.
    told: Option<Instant>,
}

impl Telling {
    /// For a run whose endpoints want to know more than its outcome.
    pub(crate) fn of(run: &LeasedRun) -> Option<Box<Self>> {
        if run.webhooks.is_empty() || !run.events.has_progress() {
            return None;
        }
        let gathering = |event| run.events.has(event).then(Gathering::default);
        let (logs, output) = (gathering(Event::Logs), gathering(Event::Output));
        if logs.is_none() && output.is_none() {
            return None;
        }
        Some(Box::new(Self { lease: run.lease, logs, output }))
    }

    /// A line was printed. Returns when to tell it, if that was not said before.
    pub(crate) fn line(&mut self, line: &str, now: Instant) -> Option<Instant> {
        let logs = self.logs.as_mut()?;
        let json = serde_json::to_vec(line).expect("a text always serialises");
        logs.add(&json, now)
    }

    /// A value was yielded, as JSON; one that is too long for a body comes as `None`.
    pub(crate) fn value(&mut self, json: Option<&[u8]>, now: Instant) -> Option<Instant> {
        let output = self.output.as_mut()?;
        match json {
            Some(json) => output.add(json, now),
            None => output.drop_one(now),
        }
    }

    /// When something is to be told next.
    pub(crate) fn due(&self) -> Option<Instant> {
        [&self.logs, &self.output].into_iter().filter_map(|kind| kind.as_ref()?.due).min()
    }

    /// What is to be told at `now`, in words of the clock that says `at`.
    pub(crate) fn tell(&mut self, now: Instant, at: Timestamp, told: &mut Vec<Progress>) {
        self.take(told, |gathering| {
            gathering.due.filter(|due| *due <= now)?;
            gathering.told = Some(now);
            Some(at)
        });
    }

    /// All that is left when the attempt ends. It keeps its distance from what was told before.
    pub(crate) fn tell_the_rest(&mut self, now: Instant, at: Timestamp, told: &mut Vec<Progress>) {
        self.take(told, |gathering| {
            let wait = gathering.due?.saturating_duration_since(now);
            Some(at.plus(wait.max(Duration::ZERO)))
        });
    }

    fn take(
        &mut self,
        told: &mut Vec<Progress>,
        mut due_at: impl FnMut(&mut Gathering) -> Option<Timestamp>,
    ) {
        let kinds = [(Event::Logs, &mut self.logs), (Event::Output, &mut self.output)];
        for (event, gathering) in kinds {
            let Some(gathering) = gathering else { continue };
            let Some(due_at) = due_at(gathering) else { continue };
            let (items, dropped) = gathering.empty();
            told.push(Progress { lease: self.lease, event, items, dropped, due_at });
        }
    }
}

impl Gathering {
    fn add(&mut self, json: &[u8], now: Instant) -> Option<Instant> {
        if self.items.len() + json.len() + 2 > PROGRESS_BODY_BYTES_MAX {
            return self.drop_one(now);
        }
        self.items.push(if self.items.is_empty() { b'[' } else { b',' });
        self.items.extend_from_slice(json);
        self.expect(now)
    }

    fn drop_one(&mut self, now: Instant) -> Option<Instant> {
        self.dropped = self.dropped.saturating_add(1);
        self.expect(now)
    }

    fn expect(&mut self, now: Instant) -> Option<Instant> {
        if self.due.is_some() {
            return None;
        }
        let due = self.told.map_or(now, |told| (told + PROGRESS_EVERY).max(now));
        self.due = Some(due);
        Some(due)
    }

    fn empty(&mut self) -> (Bytes, u32) {
        self.due = None;
        let mut items = std::mem::take(&mut self.items);
        if items.is_empty() {
            items.push(b'[');
        }
        items.push(b']');
        (items.into(), std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use queue::run::{EndpointUrl, Generation};
    use queue::webhook::EventFilter;
    use queue::{LeaseToken, RunId};

    use super::*;

    fn telling(events: &[&str]) -> Option<Box<Telling>> {
        Telling::of(&LeasedRun {
            lease: Lease {
                run: RunId::from_bytes([1; 16]),
                token: LeaseToken::from_bytes([0; 16]),
                attempt: 1,
            },
            app: "p-1234abcd-a".parse().unwrap(),
            function: "f".into(),
            generation: Generation::V4,
            input: Bytes::new(),
            webhooks: vec![EndpointUrl::checked("https://a.example/")],
            events: EventFilter::parse(events.iter().copied()).unwrap(),
            limit: Duration::from_secs(1),
            accepted_at: Timestamp::default(),
            crashes: 0,
            priority: 0,
            retry: None,
            failures: 0,
            last_attempt: false,
        })
    }

    fn at(begin: Instant, millis: u64) -> Instant {
        begin + Duration::from_millis(millis)
    }

    #[test]
    fn only_those_gather_who_are_to_be_told() {
        assert!(telling(&["completed"]).is_none());
        assert!(telling(&["start", "completed"]).is_none());
        let mut telling = telling(&["output"]).unwrap();
        assert_eq!(telling.line("a", Instant::now()), None);
    }

    #[test]
    fn one_event_of_a_kind_each_half_second_and_the_last_keeps_its_distance() {
        let mut telling = telling(&["logs", "output"]).unwrap();
        let begin = Instant::now();
        let clock = Timestamp::from_millis(1_000_000);
        let mut told = Vec::new();
        assert_eq!(telling.line("one", begin), Some(begin));
        assert_eq!(telling.line("\"two\"", begin), None);
        telling.tell(begin, clock, &mut told);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].event, &told[0].items[..]), (Event::Logs, &br#"["one","\"two\""]"#[..]));

        assert_eq!(telling.line("three", at(begin, 100)), Some(at(begin, 500)));
        assert_eq!(telling.value(Some(b"1"), at(begin, 200)), Some(at(begin, 200)));
        told.clear();
        telling.tell(at(begin, 499), clock, &mut told);
        assert_eq!(told.iter().map(|progress| progress.event).collect::<Vec<_>>(), [Event::Output]);
        told.clear();
        telling.tell_the_rest(at(begin, 300), clock, &mut told);
        assert_eq!((told.len(), told[0].due_at), (1, clock.plus(Duration::from_millis(200))));
        assert_eq!(telling.due(), None);
        told.clear();
        telling.tell_the_rest(at(begin, 300), clock, &mut told);
        assert!(told.is_empty(), "nothing is told twice");
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut telling = telling(&["logs", "output"]).unwrap();
        let (begin, line) = (Instant::now(), "x".repeat(10_000));
        for _ in 0..20 {
            telling.line(&line, begin);
        }
        telling.value(None, begin);
        let mut told = Vec::new();
        telling.tell(begin, Timestamp::default(), &mut told);
        assert!(told[0].items.len() <= PROGRESS_BODY_BYTES_MAX);
        assert_eq!((told[0].dropped, told[1].dropped, &told[1].items[..]), (14, 1, &b"[]"[..]));
    }
}
