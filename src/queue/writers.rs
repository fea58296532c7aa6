//! The engine's writers: one for ledger rows, one for upstream ids, one a queue for settles. Each writes what waits at its
//! door as one group.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    clock,
    connections::{Connections, LockWait},
    error::QueueError,
    group::{Group, GroupWork},
    job::Job,
    ledger::{self, Acceptance, Begun, Evidence, Submit},
    outcome::Outcome,
    settle::{self, Settle, Settled},
};

struct LedgerWriter {
    connections: Connections,
    hook: Arc<dyn Settle>,
}

#[async_trait]
impl GroupWork for LedgerWriter {
    type Member = (Job, Submit);
    type Answer = (Begun, Duration);
    const WHAT: &'static str = "ledger rows were not written";

    fn part((job, _): &(Job, Submit)) -> Option<&str> {
        Some(&job.group)
    }

    async fn work(&self, submits: &[(Job, Submit)], lock_wait: LockWait) -> Result<Vec<(Begun, Duration)>, QueueError> {
        // Before its transaction begins: no row of it is older.
        let asked_at = clock::now();
        let begun = ledger::begin(&self.connections.waiting(lock_wait), &*self.hook, submits).await?;
        Ok(begun.into_iter().map(|begun| (begun, asked_at)).collect())
    }
}

struct AcceptedWriter {
    connections: Connections,
}

#[async_trait]
impl GroupWork for AcceptedWriter {
    type Member = (Job, Acceptance);
    type Answer = Evidence;
    const WHAT: &'static str = "upstream ids were not written";

    fn part((job, _): &(Job, Acceptance)) -> Option<&str> {
        Some(&job.group)
    }

    async fn work(&self, acceptances: &[(Job, Acceptance)], lock_wait: LockWait) -> Result<Vec<Evidence>, QueueError> {
        // At first one statement by itself: two round trips less, and an id that waits longer keeps nothing but its own polls.
        let lock_wait = if lock_wait == LockWait::Short { LockWait::Long } else { lock_wait };
        ledger::accepted(&self.connections.waiting(lock_wait), acceptances).await
    }
}

struct SettleWriter {
    connections: Connections,
    hook: Arc<dyn Settle>,
}

#[async_trait]
impl GroupWork for SettleWriter {
    type Member = (Job, Outcome);
    type Answer = Settled;
    const WHAT: &'static str = "outcomes were not written";

    fn part((job, _): &(Job, Outcome)) -> Option<&str> {
        Some(&job.group)
    }

    async fn work(&self, settles: &[(Job, Outcome)], lock_wait: LockWait) -> Result<Vec<Settled>, QueueError> {
        settle::settle(&self.connections.waiting(lock_wait), &*self.hook, settles).await
    }
}

/// The writers of one queue.
pub(super) struct Writers {
    hook: Arc<dyn Settle>,
    ledger: Group<LedgerWriter>,
    accepted: Group<AcceptedWriter>,
    settles: Group<SettleWriter>,
}

/// The writers by queue.
pub(super) type WritersByQueue = HashMap<&'static str, Writers>;

impl Writers {
    /// Starts the writers of a queue; they end when this is dropped.
    pub(super) fn start(connections: &Connections, hook: &Arc<dyn Settle>) -> Self {
        Self {
            hook: Arc::clone(hook),
            ledger: Group::start(LedgerWriter { connections: connections.clone(), hook: Arc::clone(hook) }),
            accepted: Group::start(AcceptedWriter { connections: connections.clone() }),
            settles: Group::start(SettleWriter { connections: connections.clone(), hook: Arc::clone(hook) }),
        }
    }

    /// What the queue's jobs mean.
    pub(super) fn hook(&self) -> &dyn Settle {
        &*self.hook
    }

    /// Commits the row of a POST that has not left, unless its lane is paused or its cell wants none any more. Returns what became
    /// of it, and when its transaction was asked for on [`clock::now`].
    pub(super) async fn begin(&self, job: &Job, submit: Submit) -> Result<(Begun, Duration), QueueError> {
        self.ledger.join((job.clone(), submit)).await
    }

    /// Commits an upstream's id.
    pub(super) async fn accepted(&self, job: &Job, acceptance: Acceptance) -> Result<Evidence, QueueError> {
        self.accepted.join((job.clone(), acceptance)).await
    }

    /// Settles a job.
    pub(super) async fn settle(&self, job: &Job, outcome: Outcome) -> Result<Settled, QueueError> {
        self.settles.join((job.clone(), outcome)).await
    }
}
