//! The upstream's ids that this process alone knows: they were answered, and that they are written is not confirmed yet.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::ledger::Acceptance;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unwritten(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    by_attempt: HashMap<(Uuid, i32), String>,
    /// The process ends, and waits for none of them.
    has_ended: bool,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    unwritten: &'a Unwritten,
    attempt: (Uuid, i32),
}

impl Unwritten {
    /// An id that is about to be written.
    pub(super) fn begin(&self, acceptance: &Acceptance) -> Writing<'_> {
        let attempt = (acceptance.cell, acceptance.ordinal);
        let mut ids = self.ids();
        if ids.has_ended {
            say(attempt, &acceptance.upstream_id);
        }
        ids.by_attempt.insert(attempt, acceptance.upstream_id.clone());
        Writing { unwritten: self, attempt }
    }

    /// Says all of them, and each that comes from now on: the process ends now.
    pub(super) fn say_all(&self) {
        let mut ids = self.ids();
        ids.has_ended = true;
        ids.by_attempt.iter().for_each(|(attempt, upstream_id)| say(*attempt, upstream_id));
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.unwritten.ids().by_attempt.remove(&self.attempt);
    }
}

fn say((cell, ordinal): (Uuid, i32), upstream_id: &str) {
    tracing::error!(%cell, ordinal, upstream_id, "ACCEPTED, and this ends before its id is known to be written: it may be known here only");
}
