//! What is kept and what makes room: builds that serve or might be gone back to, environments in use.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use queue::port::Stored;
use queue::registry::{Build, BuildStatus};
use queue::{AppId, BuildId, Timestamp};

use super::Inner;

/// Builds of an app that are kept beside the live one.
const BUILDS_KEPT: usize = 2;
/// Environments that no build has any more are kept so long after their last use.
const ENVIRONMENT_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// A build whose archive has not come after so long will not get one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Whether a build waits in vain for its archive.
pub(super) fn is_forgotten(build: &Build, now: Timestamp) -> bool {
    now.since(build.created_at) > FORGOTTEN_AFTER
}

impl Inner {
    /// Removes what nobody needs any more. Failing to leaves it for the next time.
    pub(super) async fn collect(&self) {
        match self.unneeded().await {
            Ok(unneeded) => {
                for build in unneeded {
                    tracing::info!(build.id = %build, "an old build's files are removed");
                    self.folders.remove(&build);
                }
            }
            Err(error) => return super::warn_of(&error, "old builds stay: the store could not be asked"),
        }
        let now = u64::try_from(self.clock.now().as_millis()).unwrap_or_default();
        let before = SystemTime::UNIX_EPOCH + Duration::from_millis(now).saturating_sub(ENVIRONMENT_KEPT);
        let used: Vec<_> =
            self.folders.all().iter().filter_map(|build| self.folders.environment_of(build)).collect();
        self.environments.collect(&used, before);
    }

    async fn unneeded(&self) -> Stored<Vec<BuildId>> {
        let live: HashSet<BuildId> = self
            .registry
            .apps(None)
            .await?
            .iter()
            .filter_map(|app| Some(app.live.as_ref()?.id.clone()))
            .collect();
        let mut unneeded = Vec::new();
        let mut of_app: HashMap<AppId, Vec<Build>> = HashMap::new();
        for id in self.folders.all() {
            if self.jobs().contains_key(&id) {
                continue;
            }
            match self.registry.build(&id).await? {
                Some(build) => of_app.entry(build.app.clone()).or_default().push(build),
                None => unneeded.push(id),
            }
        }
        for (app, builds) in of_app {
            let needed = live.iter().cloned().chain(self.replicas.builds_in_use(&app)).collect();
            unneeded.extend(superfluous(builds, &needed));
        }
        Ok(unneeded)
    }
}

/// Of one app's builds, those that nobody needs: neither live nor served by a replica, which may be at work on runs that
/// began before another build took over, nor among the last that were live.
fn superfluous(mut builds: Vec<Build>, needed: &HashSet<BuildId>) -> Vec<BuildId> {
    builds.sort_by_key(|build| std::cmp::Reverse(build.created_at));
    let mut kept = 0;
    let mut superfluous = Vec::new();
    for build in builds {
        if !build.status.is_final() || needed.contains(&build.id) {
            continue;
        }
        if build.status == BuildStatus::Success && kept < BUILDS_KEPT {
            kept += 1;
        } else {
            superfluous.push(build.id);
        }
    }
    superfluous
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(number: u64, status: BuildStatus) -> Build {
        let at = Timestamp::from_millis(i64::try_from(number).unwrap() * 1000);
        Build {
            id: format!("b-{number:016x}").parse().unwrap(),
            app: "p-1-a".parse().unwrap(),
            status,
            config: queue::app::AppConfig::default(),
            prepared: None,
            functions: Vec::new(),
            upload_token_hash: [0; 32],
            created_at: at,
            updated_at: at,
        }
    }

    #[test]
    fn the_live_build_and_the_last_two_are_kept() {
        use BuildStatus::{BuildFailure, Building, Success};
        let live = build(5, Success);
        let builds = vec![
            build(1, Success),
            build(2, Success),
            build(3, BuildFailure),
            build(4, Success),
            live.clone(),
            build(6, Building),
        ];
        let live = HashSet::from([live.id]);
        let gone: Vec<_> = superfluous(builds.clone(), &live);
        assert_eq!(gone, [build(3, BuildFailure).id, build(1, Success).id]);
        // A replica of the oldest still works on something.
        let in_use = live.into_iter().chain([build(1, Success).id]).collect();
        assert_eq!(superfluous(builds, &in_use), [build(3, BuildFailure).id]);
    }
}
