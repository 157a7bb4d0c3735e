//! Secrets of projects and apps.

use std::collections::BTreeMap;

use queue::limits::SECRETS_MAX;
use queue::registry::SecretChange;

use super::registry::{deployed, with_project};
use crate::world::{Engine, World, app, project};

fn set(pairs: &[(&str, &str)]) -> SecretChange {
    SecretChange { set: map(pairs), remove: Vec::new() }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) async fn an_app_sees_its_projects_secrets_and_its_own_over_them(world: World<impl Engine>) {
    with_project(&world).await;
    let (store, project, a) = (&world.store, project(1), app("a"));
    assert!(store.change_secrets(&project, None, set(&[("TOKEN", "of all"), ("KEY", "k")])).await.unwrap());
    assert!(store.change_secrets(&project, Some(&a), set(&[("TOKEN", "its own")])).await.unwrap());
    assert_eq!(store.secrets_of(&a).await.unwrap(), map(&[("KEY", "k"), ("TOKEN", "its own")]));
    assert_eq!(store.secrets_of(&app("b")).await.unwrap(), map(&[("KEY", "k"), ("TOKEN", "of all")]));
    assert_eq!(store.secret_names(&project, None).await.unwrap(), ["KEY", "TOKEN"]);
    assert_eq!(store.secret_names(&project, Some(&a)).await.unwrap(), ["TOKEN"]);

    let remove = SecretChange { set: map(&[("KEY", "new")]), remove: vec!["TOKEN".into(), "ABSENT".into()] };
    assert!(store.change_secrets(&project, None, remove).await.unwrap());
    assert_eq!(store.secrets_of(&app("b")).await.unwrap(), map(&[("KEY", "new")]));
}

pub(crate) async fn the_secrets_of_a_deleted_app_are_gone(world: World<impl Engine>) {
    with_project(&world).await;
    let (store, project, a) = (&world.store, project(1), app("a"));
    deployed(&world, 1, &a).await;
    store.change_secrets(&project, Some(&a), set(&[("TOKEN", "its own")])).await.unwrap();
    store.change_secrets(&project, None, set(&[("KEY", "k")])).await.unwrap();
    assert!(store.delete_app(&a).await.unwrap());
    assert_eq!(store.secrets_of(&a).await.unwrap(), map(&[("KEY", "k")]));
}

pub(crate) async fn there_are_no_more_secrets_than_there_may_be(world: World<impl Engine>) {
    with_project(&world).await;
    let (store, project) = (&world.store, project(1));
    let names: Vec<_> = (0..SECRETS_MAX).map(|number| format!("S{number:03}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    assert!(store.change_secrets(&project, None, set(&all)).await.unwrap());
    assert!(!store.change_secrets(&project, None, set(&[("MORE", "x"), ("S000", "y")])).await.unwrap());
    assert_eq!(store.secrets_of(&app("a")).await.unwrap()["S000"], "x", "nothing changed");
    let instead = SecretChange { set: map(&[("MORE", "x")]), remove: vec!["S000".into()] };
    assert!(store.change_secrets(&project, None, instead).await.unwrap());
    assert!(store.change_secrets(&project, Some(&app("a")), set(&[("OWN", "x")])).await.unwrap());
}
