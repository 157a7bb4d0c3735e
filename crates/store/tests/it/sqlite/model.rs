//! SQLite held against the model.

use std::path::Path;

use store::Store;
use tempfile::TempDir;

use super::{after_a_kill, again, copied_to};
use crate::model::{LINKS, Rig, known_lives, random_lives};
use crate::world::World;

struct Sqlite;

fn reached(world: World<Store>) -> World<Store> {
    world.store.result_links(LINKS);
    world
}

impl Rig for Sqlite {
    type Store = Store;

    fn fresh() -> World<Store> {
        // What survives a power cut is not the subject here, so nothing need be waited for.
        let memory = Path::new("/dev/shm");
        reached(copied_to(if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()))
    }

    async fn killed(world: World<Store>) -> World<Store> {
        let found = after_a_kill(&world);
        Self::close(world).await;
        reached(found)
    }

    async fn reopened(world: World<Store>) -> World<Store> {
        world.store.close().await;
        let store = again(&world).unwrap();
        reached(World { store, ..world })
    }

    async fn prune(world: &World<Store>) -> u64 {
        world.store.prune(world.now()).await.unwrap().runs
    }

    async fn close(world: World<Store>) {
        world.store.close().await;
    }
}

#[test]
fn whatever_happens_the_store_shows_what_the_model_holds() {
    random_lives::<Sqlite>();
}

#[test]
fn lives_that_were_told_wrong_once_are_told_right() {
    known_lives::<Sqlite>();
}
