//! The replicas of an app as people see them: asked for, so that nothing has to be kept ready for it.

use std::collections::HashMap;
use std::time::Duration;

use queue::replica::{ReplicaState, ReplicaView};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{Message, Pool};
use crate::member::{Member, Standing};
use crate::replica::UnderWayHere;
use crate::usage;

/// A replica that does not say by then what it works on is shown without.
const PATIENCE: Duration = Duration::from_millis(250);

/// Where to send the list, which has its runs still to come.
#[derive(Debug)]
pub(crate) struct Listing(oneshot::Sender<Listed>);

#[derive(Debug)]
struct Listed {
    /// Each with the root of its processes.
    replicas: Vec<(ReplicaView, Option<u32>)>,
    under_way: mpsc::UnboundedReceiver<UnderWayHere>,
}

impl Pool {
    pub(super) fn list(&self, Listing(reply): Listing) {
        let (to, under_way) = mpsc::unbounded_channel();
        let now = Instant::now();
        let view = |(id, member): (&queue::ReplicaId, &Member)| {
            member.show(&to);
            let view = ReplicaView {
                id: id.clone(),
                build: member.build.id.clone(),
                state: match member.standing {
                    Standing::Starting | Standing::First(Some(_)) => ReplicaState::Starting,
                    Standing::First(None) => ReplicaState::Ready,
                    Standing::Serving => ReplicaState::Serving,
                    Standing::Leaving => ReplicaState::Leaving,
                },
                age: now.duration_since(member.begun),
                memory: None,
                gpus: member.gpus.clone(),
                calls: member.load.calls(),
                runs: Vec::new(),
            };
            (view, member.load.root())
        };
        let mut replicas: Vec<_> = self.members.iter().map(view).collect();
        replicas.sort_by_key(|(view, _)| std::cmp::Reverse(view.age));
        // Whoever asked may be gone.
        let _ = reply.send(Listed { replicas, under_way });
    }
}

/// The list that a pool makes when it is told so by `tell`.
pub(crate) async fn listed(tell: impl FnOnce(Message)) -> Vec<ReplicaView> {
    let deadline = Instant::now() + PATIENCE;
    let (reply, listed) = oneshot::channel();
    tell(Message::List(Listing(reply)));
    let Ok(Ok(Listed { replicas, mut under_way })) = timeout_at(deadline, listed).await else {
        return Vec::new();
    };
    let mut runs = HashMap::new();
    // It ends when every replica has said it, or is gone.
    while let Ok(Some((id, under_way))) = timeout_at(deadline, under_way.recv()).await {
        runs.insert(id, under_way);
    }
    let look = move || {
        let mut runs = runs;
        let whole = |(view, root): (ReplicaView, Option<u32>)| ReplicaView {
            memory: root.and_then(usage::held),
            runs: runs.remove(&view.id).unwrap_or_default(),
            ..view
        };
        replicas.into_iter().map(whole).collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}
