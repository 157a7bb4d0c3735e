//! The two forms of a delivery's body: the full one, and the thin one with a link to the result.

use std::cell::OnceCell;

use bytes::Bytes;
use queue::link::ResultLinks;
use queue::outcome::Outcome;
use queue::run::Generation;
use queue::webhook::Metadata;
use queue::{ProjectId, RunId, Timestamp, answer};

use crate::runs::Begun;

/// Renders the bodies of one outcome's deliveries, each form once.
pub(crate) struct Forms<'a> {
    pub(crate) run: RunId,
    pub(crate) project: &'a ProjectId,
    pub(crate) generation: Generation,
    pub(crate) outcome: &'a Outcome,
    /// What the caller wants to be told back.
    pub(crate) metadata: Option<&'a Metadata>,
    /// Nothing is thin while nobody has said where results can be fetched.
    pub(crate) links: Option<&'a ResultLinks>,
    pub(crate) now: Timestamp,
    pub(crate) full: OnceCell<Bytes>,
}

impl Forms<'_> {
    /// The body of an attempt, and whether it is thin.
    pub(crate) fn of(&self, begun: &Begun) -> (Bytes, bool) {
        let thin = if begun.thin { self.thin() } else { None };
        match thin {
            Some(thin) => (thin, true),
            None => (self.full.get_or_init(|| self.full()).clone(), false),
        }
    }

    fn full(&self) -> Bytes {
        answer::body(self.run, self.generation, self.outcome, self.metadata)
    }

    fn thin(&self) -> Option<Bytes> {
        let link = self.links?.link(self.project, self.run, self.outcome.ended_at, self.now);
        answer::thin_body(self.run, self.generation, self.outcome, &link, self.metadata)
    }
}
