//! Calls to the store and their answers: made, and held against the model.

use bytes::Bytes;
use queue::app::AppConfig;
use queue::delivery::{AttemptEnd, DueDelivery, Enabled, Endpoints, Redelivered};
use queue::lease::{Lease, Release, Released};
use queue::outcome::{Cancellation, Expired, Finish, Finished, RunError};
use queue::port::{Accepted, Claim, Room};
use queue::progress::Progress;
use queue::registry::NewBuild;
use queue::run::{CallRecord, EndpointUrl, LeasedRun, NewRun, Ready};
use queue::{AppId, BuildId, DeliveryId, EndpointId, ProjectId, RunId, Timestamp};

use super::state::{Mismatch, Model, same};
use crate::world::Engine;

/// One call, with all that it brings.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Accept(NewRun, Claim),
    Claim(AppId, usize, usize),
    Started(Vec<Lease>),
    Finish(Finish),
    Release(Lease, Release),
    Retry(Lease, RunError),
    Tell(Vec<Progress>),
    Cancel(ProjectId, RunId),
    Expire(Timestamp),
    Ready(Timestamp),
    /// With the run as its caller would have had it.
    Record(CallRecord, NewRun),
    Begin(Timestamp, Room),
    Complete(AttemptEnd),
    Redeliver(ProjectId, DeliveryId),
    RedeliverFailed(ProjectId, Endpoints, Timestamp),
    Enable(ProjectId, EndpointUrl),
    Limit(ProjectId, EndpointUrl, Option<u64>),
    Register(AppId, BuildId, Timestamp),
    Delete(AppId),
}

/// What the store said.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Accepted(Accepted),
    Claimed(Vec<LeasedRun>),
    Finished(Finished),
    Released(Released),
    Cancelled(Cancellation),
    Expired(Expired),
    Ready(Ready),
    Begun(Vec<DueDelivery>),
    Redelivered(Redelivered),
    RedeliveredFailed(u64),
    Enabled(Enabled),
    Limited(bool),
    Deleted(bool),
    /// Nothing: a note, or done.
    Nothing,
}

impl Call {
    pub(super) async fn make(self, store: &impl Engine) -> Answer {
        match self {
            Self::Accept(run, claim) => Answer::Accepted(store.accept(run, claim).await.unwrap()),
            Self::Claim(app, max, bytes) => Answer::Claimed(store.claim(&app, max, bytes).await.unwrap()),
            Self::Started(leases) => {
                store.started(leases);
                Answer::Nothing
            }
            Self::Finish(finish) => Answer::Finished(store.finish(finish).await.unwrap()),
            Self::Release(lease, release) => Answer::Released(store.release(lease, release).await.unwrap()),
            Self::Retry(lease, error) => Answer::Released(store.retry(lease, error).await.unwrap()),
            Self::Tell(told) => {
                told.into_iter().for_each(|progress| store.progress(progress));
                Answer::Nothing
            }
            Self::Cancel(project, run) => Answer::Cancelled(store.cancel(&project, run).await.unwrap()),
            Self::Expire(now) => Answer::Expired(store.expire(now).await.unwrap()),
            Self::Ready(now) => Answer::Ready(store.ready(now).await.unwrap()),
            Self::Record(call, _) => {
                store.record_call(call);
                Answer::Nothing
            }
            Self::Begin(now, room) => Answer::Begun(store.begin(now, room).await.unwrap()),
            Self::Complete(end) => {
                store.complete(end);
                Answer::Nothing
            }
            Self::Redeliver(project, id) => Answer::Redelivered(store.redeliver(&project, id).await.unwrap()),
            Self::RedeliverFailed(project, endpoints, since) => {
                Answer::RedeliveredFailed(store.redeliver_failed(&project, endpoints, since).await.unwrap())
            }
            Self::Enable(project, url) => {
                let id = EndpointId::of(&project, &url);
                Answer::Enabled(store.enable(&project, &id).await.unwrap())
            }
            Self::Limit(project, url, bytes_max) => {
                Answer::Limited(store.set_body_limit(&project, url, bytes_max).await.unwrap())
            }
            Self::Register(app, id, created_at) => {
                let config = AppConfig::default();
                let build = NewBuild { id: id.clone(), app, config, upload_token_hash: [7; 32], created_at };
                store.register_build(build).await.unwrap();
                store.activate(&id, Vec::new()).await.unwrap();
                Answer::Nothing
            }
            Self::Delete(app) => Answer::Deleted(store.delete_app(&app).await.unwrap()),
        }
    }
}

impl Answer {
    /// The leases it brought.
    pub(super) fn leases(&self) -> Vec<Lease> {
        match self {
            Self::Accepted(Accepted::Leased(lease)) => vec![*lease],
            Self::Claimed(runs) => runs.iter().map(|run| run.lease).collect(),
            _ => Vec::new(),
        }
    }

    /// The deliveries it brought.
    pub(super) fn due(&self) -> &[DueDelivery] {
        match self {
            Self::Finished(Finished::Recorded(due)) | Self::Begun(due) => due,
            _ => &[],
        }
    }
}

impl Model {
    /// Makes the call in the model too, if the answer is one that it allows.
    pub(super) fn explain(&mut self, call: &Call, answer: &Answer, now: Timestamp) -> Result<(), Mismatch> {
        match (call, answer) {
            (Call::Accept(run, claim), Answer::Accepted(answer)) => self.accept(run, *claim, answer, now),
            (Call::Claim(app, max, bytes), Answer::Claimed(runs)) => self.claim(app, *max, *bytes, runs, now),
            (Call::Started(leases), Answer::Nothing) => {
                self.started(leases);
                Ok(())
            }
            (Call::Finish(finish), Answer::Finished(answer)) => self.finish(finish, answer, now),
            (Call::Release(lease, release), Answer::Released(answer)) => {
                self.release(lease, *release, answer, now)
            }
            (Call::Retry(lease, error), Answer::Released(answer)) => self.retry(lease, error, answer, now),
            (Call::Tell(told), Answer::Nothing) => {
                told.iter().for_each(|progress| self.tell(progress, now));
                Ok(())
            }
            (Call::Cancel(project, run), Answer::Cancelled(answer)) => {
                self.cancel(project, *run, *answer, now)
            }
            (Call::Expire(at), Answer::Expired(answer)) => self.expire(*at, answer, now),
            (Call::Ready(at), Answer::Ready(answer)) => self.ready(answer, *at),
            (Call::Record(call, given), Answer::Nothing) => {
                self.record_call(call, given.clone());
                Ok(())
            }
            (Call::Begin(at, room), Answer::Begun(due)) => self.begin(*at, room, due, now),
            (Call::Complete(end), Answer::Nothing) => {
                self.complete(end);
                Ok(())
            }
            (Call::Redeliver(project, id), Answer::Redelivered(answer)) => {
                self.redeliver(project, *id, *answer, now)
            }
            (Call::RedeliverFailed(project, endpoints, since), Answer::RedeliveredFailed(answer)) => {
                self.redeliver_failed(project, endpoints, *since, *answer, now)
            }
            (Call::Enable(project, url), Answer::Enabled(answer)) => {
                self.enable(&(project.clone(), url.as_str().to_owned()), *answer, now)
            }
            (Call::Limit(project, url, bytes_max), Answer::Limited(answer)) => {
                self.set_body_limit((project.clone(), url.as_str().to_owned()), *bytes_max, now);
                same("whether a limit was set", answer, &true)
            }
            (Call::Register(app, ..), Answer::Nothing) => {
                self.register(app);
                Ok(())
            }
            (Call::Delete(app), Answer::Deleted(answer)) => self.delete_app(app, *answer, now),
            (call, answer) => Err(format!("{call:?} was answered with {answer:?}")),
        }
    }
}

/// A JSON body of so many bytes.
pub(super) fn body(bytes: usize) -> Bytes {
    Bytes::from(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2))))
}
