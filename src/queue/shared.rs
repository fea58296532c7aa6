//! What the parts of one engine share, and what happens to it when its worker was found dead.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    beat::LastBeat,
    clock,
    connections::Connections,
    engine::EngineOptions,
    incarnation::{self, Serving},
    job::Job,
    pauses::Gate,
    polls::Polls,
    tokens::JobTokens,
    unwritten::Unwritten,
    wake::Wake,
};

/// What the parts of one engine share.
pub(super) struct Shared {
    pub(super) connections: Connections,
    pub(super) options: EngineOptions,
    pub(super) serving: Serving,
    pub(super) wake: Arc<Wake>,
    /// Claim nothing, start no POST.
    pub(super) stop: CancellationToken,
    /// The grace is over: what is out is written `unknown`.
    pub(super) grace_over: CancellationToken,
    /// The beat ends last.
    pub(super) beat_stop: CancellationToken,
    pub(super) gate: Gate,
    pub(super) polls: Arc<Polls>,
    pub(super) last_beat: LastBeat,
    /// Counts up while the main runtime ticks.
    pub(super) ticks: AtomicU64,
    pub(super) incarnation: RwLock<Arc<str>>,
    pub(super) held: Mutex<HashMap<(String, i32), JobTokens>>,
    /// Upstream ids of which it is not known yet whether they are written.
    pub(super) unwritten: Unwritten,
    pub(super) failed: AtomicBool,
    /// What PostgreSQL says is ours may not be what we hold: to be compared before the next claim.
    pub(super) reconcile: AtomicBool,
    /// Whether notifications come.
    pub(super) listening: AtomicBool,
    /// Told when the end of running jobs was asked for.
    pub(super) cancels: Notify,
    /// Told when the claim met a group that may take nothing now.
    pub(super) bounds: Notify,
}

impl Shared {
    pub(super) fn incarnation(&self) -> Arc<str> {
        Arc::clone(&self.incarnation.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn hold(&self, job: &Job) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert((job.id.clone(), job.claim), job.tokens.clone());
        if self.incarnation() != job.worker {
            // Claimed under a name that was lost meanwhile.
            job.tokens.lease_lost.cancel();
        }
        if self.stop.is_cancelled() {
            // Claimed while the stop was called: nobody told it yet.
            job.tokens.handover.cancel();
        }
    }

    /// Jobs that are held under the present incarnation.
    pub(super) fn held_now(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn release(&self, job: &Job) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&(job.id.clone(), job.claim));
    }

    pub(super) fn fail(&self, why: &str) {
        tracing::error!("{why}: leaving");
        self.failed.store(true, Ordering::Release);
        self.stop.cancel();
    }

    /// The row is gone: this incarnation has ended. Its jobs have lost their lease; the process goes on under a new name.
    pub(super) async fn lost_incarnation(&self, connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
        let new = incarnation::new_name();
        let sent = clock::now();
        tracing::error!(worker = %name, new = %new, "this worker was found dead; it goes on under a new name");
        for tokens in self.held.lock().unwrap_or_else(PoisonError::into_inner).values() {
            tokens.lease_lost.cancel();
        }
        incarnation::end(&self.connections, connection, name, "lost_lease").await?;
        let (lease, token_hash) = (self.options.lease, self.gate.token_hash());
        incarnation::register(&self.connections, connection, &new, (lease, &token_hash), &self.serving).await?;
        *self.incarnation.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.polls.lose();
        self.last_beat.succeeded(sent);
        self.wake.look();
        Ok(())
    }
}
