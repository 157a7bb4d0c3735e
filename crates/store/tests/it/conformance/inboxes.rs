//! Inboxes and what they recorded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::inbox::{CapturedRequest, Inbox, InboxChange, Reply, SignatureState, SignatureVerdict};
use queue::limits::INBOXES_PER_PROJECT_MAX;
use queue::port::StoreError;
use queue::{Entropy, InboxId};

use crate::world::{Engine, INBOX_BYTES_MAX, INBOX_REQUESTS_MAX, World, project};

async fn inbox(world: &World<impl Engine>) -> InboxId {
    if world.store.project(&project(1)).await.unwrap().is_none() {
        world.store.create_project(world.new_project(1)).await.unwrap();
    }
    world.pass(Duration::from_millis(1));
    let fresh = Inbox::new(project(1), world.entropy.as_ref(), world.now());
    let inbox = Inbox { view_token: "token".into(), ..fresh };
    let id = inbox.id.clone();
    assert!(world.store.create_inbox(inbox).await.unwrap());
    id
}

fn request(world: &World<impl Engine>, body: &str) -> CapturedRequest {
    let entropy: &dyn Entropy = world.entropy.as_ref();
    CapturedRequest {
        id: uuid::Uuid::from_bytes(entropy.bytes()),
        sequence: 0,
        method: "POST".into(),
        path: "/inbox/1?x=y".into(),
        headers: vec![("b".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "3".into())],
        body: Bytes::copy_from_slice(body.as_bytes()),
        received_at: world.now(),
        signature: SignatureVerdict {
            verdict: SignatureState::Verified,
            detail: "good".into(),
            mistake: None,
        },
    }
}

fn bodies(requests: &[CapturedRequest]) -> Vec<&str> {
    requests.iter().map(|request| std::str::from_utf8(&request.body).unwrap()).collect()
}

pub(crate) async fn an_inbox_is_there_at_once(world: World<impl Engine>) {
    let (first, second) = (inbox(&world).await, inbox(&world).await);
    let read = world.store.inbox(&first).await.unwrap().unwrap();
    assert_eq!((read.project, read.view_token.as_str()), (project(1), "token"));
    let ids: Vec<_> =
        world.store.inboxes(&project(1)).await.unwrap().into_iter().map(|inbox| inbox.id).collect();
    assert_eq!(ids, [second, first]);
    assert!(world.store.inboxes(&project(2)).await.unwrap().is_empty());
    assert!(world.store.inbox(&"0".repeat(32).parse().unwrap()).await.unwrap().is_none());
}

pub(crate) async fn a_project_has_as_many_inboxes_as_it_may(world: World<impl Engine>) {
    let first = inbox(&world).await;
    let fresh = || Inbox::new(project(1), world.entropy.as_ref(), world.now());
    let made = (0..INBOXES_PER_PROJECT_MAX).map(|_| world.store.create_inbox(fresh()));
    let made = futures_util::future::try_join_all(made).await.unwrap();
    assert_eq!(made.iter().filter(|made| !**made).count(), 1, "whoever asks at the same time");
    let there = world.store.inboxes(&project(1)).await.unwrap();
    assert_eq!(there.len(), INBOXES_PER_PROJECT_MAX);
    assert!(world.store.delete_inbox(&first).await.unwrap());
    assert!(world.store.create_inbox(fresh()).await.unwrap(), "one that has ended does not count");
}

pub(crate) async fn requests_are_kept_to_the_byte_and_in_order(world: World<impl Engine>) {
    let (mine, other) = (inbox(&world).await, inbox(&world).await);
    let mut sent = request(&world, "first");
    let first = world.store.record(&mine, sent.clone()).await.unwrap().sequence;
    world.store.record(&other, request(&world, "other")).await.unwrap();
    let second = world.store.record(&mine, request(&world, "second")).await.unwrap().sequence;
    assert!(second > first);

    let read = world.store.requests(&mine, 0, 10).await.unwrap();
    assert_eq!(bodies(&read), ["first", "second"]);
    sent.sequence = first;
    assert_eq!(format!("{:?}", read[0]), format!("{sent:?}"));
    assert_eq!(bodies(&world.store.requests(&mine, first, 10).await.unwrap()), ["second"]);
    assert_eq!(bodies(&world.store.requests(&mine, 0, 1).await.unwrap()), ["first"]);
}

pub(crate) async fn the_oldest_requests_make_room(world: World<impl Engine>) {
    let (mine, other) = (inbox(&world).await, inbox(&world).await);
    world.store.record(&other, request(&world, "other")).await.unwrap();
    for number in 0..INBOX_REQUESTS_MAX + 3 {
        world.store.record(&mine, request(&world, &number.to_string())).await.unwrap();
    }
    let read = world.store.requests(&mine, 0, 100).await.unwrap();
    assert_eq!(bodies(&read), ["3", "4", "5", "6", "7"]);
    assert_eq!(world.store.requests(&other, 0, 100).await.unwrap().len(), 1);
}

pub(crate) async fn requests_are_read_backwards_as_far_as_they_fit(world: World<impl Engine>) {
    let mine = inbox(&world).await;
    for body in ["aaaa", "bbbb", "cccc", "dddd"] {
        world.store.record(&mine, request(&world, body)).await.unwrap();
    }
    let read = async |before, limit, bytes_max| {
        world.store.requests_before(&mine, before, limit, bytes_max).await.unwrap()
    };
    let newest = read(i64::MAX, 2, usize::MAX).await;
    assert_eq!(bodies(&newest), ["dddd", "cccc"]);
    assert_eq!(bodies(&read(newest[1].sequence, 9, usize::MAX).await), ["bbbb", "aaaa"]);
    assert_eq!(bodies(&read(i64::MAX, 9, 0).await), ["dddd"]);
    assert_eq!(bodies(&read(i64::MAX, 9, 8).await), ["dddd", "cccc", "bbbb"]);
}

pub(crate) async fn the_oldest_requests_make_room_for_bytes(world: World<impl Engine>) {
    let mine = inbox(&world).await;
    for size in [40, 40, 10] {
        world.store.record(&mine, request(&world, &"x".repeat(size))).await.unwrap();
    }
    let sizes = async || -> Vec<usize> {
        world.store.requests(&mine, 0, 9).await.unwrap().iter().map(|request| request.body.len()).collect()
    };
    assert_eq!(sizes().await, [40, 40, 10]);
    world.store.record(&mine, request(&world, &"x".repeat(11))).await.unwrap();
    assert_eq!(sizes().await, [40, 10, 11]);
    // One that is larger than the bound is kept all the same: it is what the person waits for.
    world.store.record(&mine, request(&world, &"x".repeat(INBOX_BYTES_MAX as usize + 1))).await.unwrap();
    assert_eq!(sizes().await, [INBOX_BYTES_MAX as usize + 1]);
    world.store.record(&mine, request(&world, "x")).await.unwrap();
    assert_eq!(sizes().await, [1]);
}

pub(crate) async fn what_is_set_of_an_inbox_is_found_again(world: World<impl Engine>) {
    let (mine, other) = (inbox(&world).await, inbox(&world).await);
    let reply = Arc::new(Reply::new("500,200".parse().unwrap(), vec![], Some("no".into())).unwrap());
    let change = InboxChange {
        name: Some(Some("mine".into())),
        reply: Some(Some(Arc::clone(&reply))),
        ..InboxChange::default()
    };
    let set = world.store.change_inbox(&mine, change).await.unwrap().unwrap();
    assert_eq!((set.name.as_deref(), set.reply.as_ref()), (Some("mine"), Some(&reply)));
    let change = InboxChange { view_token: Some("new".into()), ..InboxChange::default() };
    world.store.change_inbox(&mine, change).await.unwrap().unwrap();
    let read = world.store.inbox(&mine).await.unwrap().unwrap();
    assert_eq!((read.name.as_deref(), read.view_token.as_str()), (Some("mine"), "new"));
    assert_eq!(read.reply.as_ref(), Some(&reply));
    let untouched = world.store.inbox(&other).await.unwrap().unwrap();
    assert_eq!((untouched.name, untouched.view_token.as_str()), (None, "token"));

    let away = InboxChange { name: Some(None), reply: Some(None), ..InboxChange::default() };
    let set = world.store.change_inbox(&mine, away).await.unwrap().unwrap();
    assert_eq!((set.name, set.reply), (None, None));
    let unknown = InboxId::generate(world.entropy.as_ref());
    assert!(world.store.change_inbox(&unknown, InboxChange::default()).await.unwrap().is_none());
}

pub(crate) async fn each_request_takes_the_next_step_of_a_script(world: World<impl Engine>) {
    let mine = inbox(&world).await;
    let place = async || world.store.record(&mine, request(&world, "x")).await.unwrap().place;
    assert_eq!([place().await, place().await], [0, 0]);
    let script = async |script: &str| {
        let reply = Reply::new(script.parse().unwrap(), vec![], None).unwrap();
        let change = InboxChange { reply: Some(Some(Arc::new(reply))), ..InboxChange::default() };
        world.store.change_inbox(&mine, change).await.unwrap().unwrap();
    };
    script("500,200").await;
    // Requests that made room count as well.
    let places = [place().await, place().await, place().await, place().await, place().await, place().await];
    assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    let name = InboxChange { name: Some(Some("x".into())), ..InboxChange::default() };
    world.store.change_inbox(&mine, name).await.unwrap().unwrap();
    assert_eq!(place().await, 6);
    script("500,200").await;
    assert_eq!(place().await, 0);
}

pub(crate) async fn an_inbox_ends_when_it_was_to_or_at_once(world: World<impl Engine>) {
    let (mine, other, kept) = (inbox(&world).await, inbox(&world).await, inbox(&world).await);
    world.store.record(&mine, request(&world, "x")).await.unwrap();
    let at = world.now().plus(Duration::from_secs(60));
    let change = InboxChange { expires_at: Some(Some(at)), ..InboxChange::default() };
    world.store.change_inbox(&mine, change).await.unwrap().unwrap();
    world.pass(Duration::from_millis(59_999));
    assert!(world.store.inbox(&mine).await.unwrap().is_some());
    world.pass(Duration::from_millis(1));
    assert!(world.store.inbox(&mine).await.unwrap().is_none());
    assert!(!world.store.delete_inbox(&mine).await.unwrap());
    assert!(world.store.change_inbox(&mine, InboxChange::default()).await.unwrap().is_none());

    assert!(world.store.delete_inbox(&other).await.unwrap());
    assert!(world.store.inbox(&other).await.unwrap().is_none());
    assert!(!world.store.delete_inbox(&other).await.unwrap());
    let left: Vec<_> =
        world.store.inboxes(&project(1)).await.unwrap().into_iter().map(|inbox| inbox.id).collect();
    assert_eq!(left, [kept]);
}

pub(crate) async fn an_unknown_inbox_records_nothing(world: World<impl Engine>) {
    let unknown = InboxId::generate(world.entropy.as_ref());
    let refused = world.store.record(&unknown, request(&world, "x")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert!(world.store.requests(&unknown, 0, 9).await.unwrap().is_empty());
}
