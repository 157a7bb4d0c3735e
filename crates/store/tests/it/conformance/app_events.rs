//! What happened to apps.

use queue::AppId;
use queue::event::{AppEvent, EventKind};
use queue::limits::{APP_EVENTS_MAX, EVENT_TEXT_BYTES_MAX};

use super::registry::{deployed, with_project};
use crate::world::{Engine, World, app};

fn event(world: &World<impl Engine>, app: &AppId, text: &str) -> AppEvent {
    let build = "b-0000000000000001".parse().ok();
    AppEvent { at: world.now(), app: app.clone(), kind: EventKind::Scaled, text: text.to_owned(), build }
}

pub(crate) async fn events_are_read_as_they_were_noted(world: World<impl Engine>) {
    with_project(&world).await;
    let (a, b) = (app("a"), app("b"));
    deployed(&world, 1, &a).await;
    deployed(&world, 2, &b).await;
    let noted: Vec<_> = EventKind::ALL
        .into_iter()
        .map(|kind| AppEvent { kind, ..event(&world, &a, &format!("it was {}", kind.as_str())) })
        .collect();
    world.store.note(event(&world, &b, "of another app"));
    noted.iter().for_each(|event| world.store.note(event.clone()));
    let all = world.store.events(&a, None, 100).await.unwrap();
    assert_eq!(all.iter().map(|stored| stored.event.clone()).collect::<Vec<_>>(), noted);

    let newest = world.store.events(&a, None, 2).await.unwrap();
    assert_eq!(newest, all[all.len() - 2..]);
    let page = world.store.events(&a, Some(all[0].id), 2).await.unwrap();
    assert_eq!(page, all[1..3]);
    assert_eq!(world.store.events(&a, all.last().map(|last| last.id), 2).await.unwrap(), []);
}

pub(crate) async fn the_oldest_events_make_room(world: World<impl Engine>) {
    with_project(&world).await;
    let (a, b) = (app("a"), app("b"));
    deployed(&world, 1, &a).await;
    deployed(&world, 2, &b).await;
    world.store.note(event(&world, &b, "stays"));
    for number in 0..APP_EVENTS_MAX + 50 {
        world.store.note(event(&world, &a, &number.to_string()));
        if number % 100 == 0 {
            // So that none is dropped because too many wait.
            world.store.events(&a, None, 1).await.unwrap();
        }
    }
    let kept = world.store.events(&a, None, 10 * APP_EVENTS_MAX).await.unwrap();
    assert_eq!((kept.len(), kept[0].event.text.as_str()), (APP_EVENTS_MAX, "50"));
    assert_eq!(world.store.events(&b, None, 10).await.unwrap().len(), 1);

    world.store.note(event(&world, &a, &"é".repeat(EVENT_TEXT_BYTES_MAX)));
    let last = world.store.events(&a, None, 1).await.unwrap();
    assert_eq!(last[0].event.text, "é".repeat(EVENT_TEXT_BYTES_MAX / 2));
}

pub(crate) async fn events_go_with_their_app(world: World<impl Engine>) {
    with_project(&world).await;
    let a = app("a");
    world.store.note(event(&world, &a, "of nobody yet"));
    deployed(&world, 1, &a).await;
    world.store.note(event(&world, &a, "of the first app"));
    assert_eq!(world.store.events(&a, None, 9).await.unwrap().len(), 1);
    assert!(world.store.delete_app(&a).await.unwrap());
    world.store.note(event(&world, &a, "too late"));
    deployed(&world, 2, &a).await;
    assert_eq!(world.store.events(&a, None, 9).await.unwrap(), []);
}
