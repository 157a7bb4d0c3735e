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
        let is_wanted = begun.thin || begun.body_bytes_max.is_some_and(|max| self.full_bytes() > max);
        match if is_wanted { self.thin() } else { None } {
            Some(thin) => (thin, true),
            None => (self.full().clone(), false),
        }
    }

    fn full(&self) -> &Bytes {
        self.full.get_or_init(|| answer::body(self.run, self.generation, self.outcome, self.metadata))
    }

    fn full_bytes(&self) -> u64 {
        self.full().len() as u64
    }

    fn thin(&self) -> Option<Bytes> {
        let link = self.links?.link(self.project, self.run, self.outcome.ended_at, self.now);
        answer::thin_body(self.run, self.generation, self.outcome, &link, self.metadata)
    }
}
