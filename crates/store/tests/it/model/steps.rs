//! What may happen, in words that mean something wherever they stand: things are named by their place
//! among those that are there. So a part of a list of steps is a list of steps, and what failed can be
//! made smaller by leaving steps out.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use queue::lease::Release;

/// Something that exists: the one at this place, from the end, modulo how many there are.
pub(super) type Pick = u8;

/// The apps, as project and name.
pub(super) const APPS: [(u8, &str); 3] = [(1, "a"), (1, "b"), (2, "a")];
/// The endpoints. Two share a receiver.
pub(super) const URLS: [&str; 4] =
    ["https://a.example/1", "https://a.example/2", "https://b.example/", "https://c.example:8443/x?y"];
pub(super) const FUNCTIONS: [&str; 2] = ["predict", "train"];
/// What endpoints are told of.
pub(super) const EVENTS: [&[&str]; 3] =
    [&["completed"], &["start", "output", "logs", "completed"], &["start", "logs"]];

/// One step. What it names does not exist: nothing happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Accept(NewCall),
    Claim {
        app: usize,
        max: usize,
        bytes_max: usize,
    },
    Started {
        lease: Held,
    },
    Finish {
        lease: Held,
        ending: How,
        first_attempts: Vec<bool>,
    },
    Release {
        lease: Held,
        release: Release,
    },
    /// The attempt failed, and is to be made again.
    Retry {
        lease: Held,
    },
    /// The run tells so many things on its way.
    Tell {
        lease: Held,
        event: usize,
        times: usize,
        due_in: Duration,
    },
    Cancel {
        run: Pick,
        own: bool,
    },
    Expire,
    Ready,
    Record {
        app: usize,
        started: bool,
        ending: How,
    },
    Begin {
        total: usize,
        per_receiver: usize,
        receivers: Vec<(usize, usize)>,
    },
    Complete {
        attempt: Pick,
        answer: Said,
    },
    Redeliver {
        delivery: Pick,
        own: bool,
    },
    RedeliverFailed {
        url: usize,
        whole_receiver: bool,
        since: Duration,
    },
    Enable {
        project: u8,
        url: usize,
    },
    /// The endpoint takes bodies of so many bytes.
    Limit {
        project: u8,
        url: usize,
        bytes_max: Option<u64>,
    },
    Register {
        app: usize,
    },
    Delete {
        app: usize,
    },
    Pass(Duration),
    /// Several at once; they may happen in any order.
    Together(Vec<Step>),
    /// The process is killed, and another one opens the store.
    Kill,
    /// The store is closed and opened again.
    Close,
    Prune,
}

#[derive(Clone, Debug)]
pub(super) struct NewCall {
    pub(super) app: usize,
    pub(super) function: usize,
    pub(super) now: bool,
    pub(super) key: Option<(u8, u8)>,
    pub(super) start_in: Option<Duration>,
    pub(super) delay: Option<Duration>,
    pub(super) priority: i8,
    pub(super) webhooks: Vec<usize>,
    pub(super) bytes: usize,
    pub(super) secret: bool,
    /// One of [`EVENTS`].
    pub(super) events: usize,
}

/// A lease: mostly a current one, sometimes any that ever was.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) current: bool,
    pub(super) pick: Pick,
}

/// How an execution ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Succeeded { large: bool },
    Failed,
    Cancelled,
}

/// What a receiver said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Fine,
    /// As the schedule says.
    Failed,
    RetryIn(Duration),
    /// That the body is too large.
    TooLarge,
    /// Nothing: this server could not send.
    Postponed(Duration),
    GaveUp,
    Gone,
}

fn held() -> impl Strategy<Value = Held> {
    (prop::bool::weighted(0.85), any::<Pick>()).prop_map(|(current, pick)| Held { current, pick })
}

fn app() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0), 1 => Just(1), 2 => Just(2)]
}

fn url() -> impl Strategy<Value = usize> {
    0..URLS.len()
}

fn duration() -> impl Strategy<Value = Duration> {
    let seconds = prop_oneof![Just(0), Just(1), Just(6), Just(60), Just(400), Just(3_600), Just(86_400)];
    seconds.prop_map(Duration::from_secs)
}

fn new_call() -> impl Strategy<Value = NewCall> {
    let key = option::weighted(0.3, (0..3_u8, prop::bool::weighted(0.2).prop_map(u8::from)));
    let function = prop::bool::weighted(0.1).prop_map(usize::from);
    let start_in = option::weighted(0.3, duration());
    let order = (option::weighted(0.15, duration()), prop_oneof![3 => Just(0), 1 => -1..=1_i8]);
    let size = prop_oneof![Just(2), Just(100), Just(5_000)];
    let webhooks = (vec(url(), 0..4), prop_oneof![3 => Just(0), 3 => Just(1), 1 => Just(2)]);
    (app(), function, any::<bool>(), key, start_in, order, webhooks, size, any::<bool>()).prop_map(
        |(app, function, now, key, start_in, (delay, priority), (webhooks, events), bytes, secret)| NewCall {
            app,
            function,
            now,
            key,
            start_in,
            delay,
            priority,
            webhooks,
            bytes,
            secret,
            events,
        },
    )
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        3 => Just(How::Succeeded { large: false }),
        1 => Just(How::Succeeded { large: true }),
        2 => Just(How::Failed),
        1 => Just(How::Cancelled),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        3 => Just(Said::Fine),
        3 => Just(Said::Failed),
        2 => duration().prop_map(Said::RetryIn),
        2 => Just(Said::TooLarge),
        1 => duration().prop_map(Said::Postponed),
        2 => Just(Said::GaveUp),
        2 => Just(Said::Gone),
    ]
}

fn release() -> impl Strategy<Value = Release> {
    prop_oneof![
        Just(Release::WorkerCrashed),
        Just(Release::ServerLost),
        Just(Release::Drained),
        Just(Release::CutShort)
    ]
}

/// A step that one call to the store makes.
fn call() -> impl Strategy<Value = Step> {
    let bytes_max = prop_oneof![Just(0), Just(150), Just(usize::MAX)];
    let places = vec((url(), 0..3_usize), 0..3);
    prop_oneof![
        10 => new_call().prop_map(Step::Accept),
        5 => (app(), 0..5_usize, bytes_max)
            .prop_map(|(app, max, bytes_max)| Step::Claim { app, max, bytes_max }),
        2 => held().prop_map(|lease| Step::Started { lease }),
        8 => (held(), how(), vec(any::<bool>(), 0..4))
            .prop_map(|(lease, ending, first_attempts)| Step::Finish { lease, ending, first_attempts }),
        4 => (held(), release()).prop_map(|(lease, release)| Step::Release { lease, release }),
        3 => held().prop_map(|lease| Step::Retry { lease }),
        4 => (held(), 0..3_usize, prop_oneof![3 => Just(1), 1 => Just(7)], duration())
            .prop_map(|(lease, event, times, due_in)| Step::Tell { lease, event, times, due_in }),
        3 => (any::<Pick>(), prop::bool::weighted(0.9)).prop_map(|(run, own)| Step::Cancel { run, own }),
        2 => Just(Step::Expire),
        2 => Just(Step::Ready),
        1 => (app(), any::<bool>(), how())
            .prop_map(|(app, started, ending)| Step::Record { app, started, ending }),
        7 => (0..6_usize, 0..4_usize, places).prop_map(|(total, per_receiver, receivers)| Step::Begin {
            total,
            per_receiver,
            receivers,
        }),
        8 => (any::<Pick>(), said()).prop_map(|(attempt, answer)| Step::Complete { attempt, answer }),
        2 => (any::<Pick>(), prop::bool::weighted(0.9))
            .prop_map(|(delivery, own)| Step::Redeliver { delivery, own }),
        2 => (url(), any::<bool>(), duration()).prop_map(|(url, whole_receiver, since)| {
            Step::RedeliverFailed { url, whole_receiver, since }
        }),
        2 => (1..=2_u8, url()).prop_map(|(project, url)| Step::Enable { project, url }),
        1 => (1..=2_u8, url(), option::of(prop_oneof![Just(1), Just(400)]))
            .prop_map(|(project, url, bytes_max)| Step::Limit { project, url, bytes_max }),
        1 => app().prop_map(|app| Step::Register { app }),
        1 => app().prop_map(|app| Step::Delete { app }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pass = prop_oneof![9 => duration(), 1 => (1..32_u32).prop_map(|days| days * super::DAY)];
    prop_oneof![
        40 => call(),
        6 => pass.prop_map(Step::Pass),
        6 => vec(call(), 2..4).prop_map(Step::Together),
        2 => Just(Step::Kill),
        1 => Just(Step::Close),
        1 => Just(Step::Prune),
    ]
}

/// A life of a store.
pub(super) fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..=max)
}
