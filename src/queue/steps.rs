//! Single steps of a worker, for whoever decides when each of them is taken: a test, and the benchmark of the claim.
//!
//! Nothing here runs by itself: no beat, no claimer, no listener; what a step does is what the engine does, by the same functions.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    beat::{self, LastBeat},
    claim::{self, Served},
    connections::Connections,
    engine::{EngineOptions, Queue},
    error::QueueError,
    hint::Hint,
    incarnation::{self, Serving},
    job::Job,
    pauses::Gate,
    polls::Polls,
    reconcile, rescue,
    shared::Shared,
    slots::Slots,
    unwritten::Unwritten,
};

/// A worker that does nothing by itself.
#[derive(Clone)]
pub struct Steps {
    shared: Arc<Shared>,
    served: Arc<HashMap<&'static str, Served>>,
}

/// What a worker knows of the groups that wait, from one claim to the next.
#[derive(Debug, Default)]
pub struct Knowledge(Hint);

/// What one beat found.
#[derive(Debug, Clone)]
pub struct Look {
    /// Whether its own row was there; if not, it has a new name now.
    pub alive: bool,
    /// The others, each with its last beat.
    pub others: Vec<(String, DateTime<Utc>)>,
}

impl Steps {
    /// Registers a worker of these queues.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn register(pool: PgPool, options: EngineOptions, queues: Vec<Queue>) -> Result<Self, QueueError> {
        let name = incarnation::new_name();
        let connections = Connections::of(pool, &options);
        let mut connection = connections.pool().acquire().await?;
        let serving = Serving::of(&queues);
        incarnation::register(&connections, &mut connection, &name, (options.lease, &options.token_hash), &serving).await?;
        drop(connection);
        let wake = Arc::default();
        let of = |queue: Queue| {
            let slots = Slots::new(queue.slots, Arc::clone(&wake));
            (queue.name, Served { queue: queue.name.into(), lanes: queue.lanes, group: queue.group, slots })
        };
        let served = queues.into_iter().map(of).collect();
        let shared = Shared {
            gate: Gate::new(&options.token_hash),
            polls: Arc::new(Polls::new(options.lease)),
            cancels: Notify::new(),
            bounds: Notify::new(),
            options,
            serving,
            wake: Arc::clone(&wake),
            stop: CancellationToken::new(),
            grace_over: CancellationToken::new(),
            beat_stop: CancellationToken::new(),
            last_beat: LastBeat::default(),
            ticks: AtomicU64::new(0),
            incarnation: RwLock::new(name),
            held: Mutex::default(),
            unwritten: Unwritten::default(),
            failed: AtomicBool::new(false),
            reconcile: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            connections,
        };
        Ok(Self { shared: Arc::new(shared), served: Arc::new(served) })
    }

    /// Its present name.
    pub fn name(&self) -> Arc<str> {
        self.shared.incarnation()
    }

    /// Its connections.
    pub fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    /// Claims up to so many jobs of a queue, and holds them. It knows nothing of what waits.
    ///
    /// # Errors
    /// See [`QueueError`]; what was claimed is then not known, and [`Steps::must_reconcile`].
    pub async fn claim(&self, queue: &str, wanted: usize) -> Result<Vec<Job>, QueueError> {
        self.claim_knowing(queue, wanted, &mut Knowledge::default()).await
    }

    /// The same as one of many claims.
    ///
    /// # Errors
    /// As of [`Steps::claim`].
    pub async fn claim_knowing(&self, queue: &str, wanted: usize, knowledge: &mut Knowledge) -> Result<Vec<Job>, QueueError> {
        let served = self.served.get(queue).ok_or_else(|| QueueError::UnknownQueue(queue.to_owned()))?;
        let token = self.shared.gate.token_hash();
        let claimed = claim::claim(&self.shared.connections, served, &self.name(), &token, wanted, &mut knowledge.0).await;
        let jobs = claimed.map(|claimed| claimed.jobs);
        self.hold(jobs)
    }

    /// Claims one job by its key, and holds it.
    ///
    /// # Errors
    /// As of [`Steps::claim`].
    pub async fn claim_key(&self, queue: &str, key: &str) -> Result<Vec<Job>, QueueError> {
        let served = self.served.get(queue).ok_or_else(|| QueueError::UnknownQueue(queue.to_owned()))?;
        let job = claim::claim_key(&self.shared.connections, served, &self.name(), key).await;
        self.hold(job.map(|job| job.into_iter().collect()))
    }

    fn hold(&self, jobs: Result<Vec<Job>, QueueError>) -> Result<Vec<Job>, QueueError> {
        match &jobs {
            Ok(jobs) => jobs.iter().for_each(|job| self.shared.hold(job)),
            Err(_) => self.answer_lost(),
        }
        jobs
    }

    /// Puts back jobs that were claimed and not begun.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn put_back(&self, jobs: &[Job]) -> Result<(), QueueError> {
        claim::put_back(&self.shared.connections, jobs).await?;
        for job in jobs {
            self.release(job);
        }
        Ok(())
    }

    /// Whether this claim is held.
    pub fn holds(&self, id: &str, claim: i32) -> bool {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(id.to_owned(), claim))
    }

    /// A claim came to its end.
    pub fn release(&self, job: &Job) {
        self.shared.release(job);
    }

    /// Whether an answer was lost: to be reconciled before the next claim.
    pub fn must_reconcile(&self) -> bool {
        self.shared.reconcile.load(Ordering::Acquire)
    }

    /// An answer was lost.
    pub fn answer_lost(&self) {
        self.shared.reconcile.store(true, Ordering::Release);
    }

    /// Compares what PostgreSQL says is its own with what it holds.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn reconcile(&self) -> Result<(), QueueError> {
        reconcile::reconcile(&self.shared).await
    }

    /// Leaves; it must hold nothing.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn leave(&self) -> Result<(), QueueError> {
        let mut connection = self.shared.connections.pool().acquire().await?;
        incarnation::end(&self.shared.connections, &mut connection, &self.name(), "stopped").await?;
        drop(connection);
        self.shared.connections.close().await;
        Ok(())
    }

    /// Says that it lives, and looks at the others. One whose row is gone takes a new name.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn beat(&self) -> Result<Look, QueueError> {
        let name = self.name();
        let mut connection = self.shared.connections.pool().acquire().await?;
        let beat =
            beat::beat(&mut connection, &name, &self.shared.gate.token_hash()).await.inspect_err(|_| self.answer_lost())?;
        if !beat.alive {
            self.shared.lost_incarnation(&mut connection, &name).await?;
        }
        Ok(Look { alive: beat.alive, others: beat.others })
    }

    /// Rescues a worker that was last seen then. Returns the number of its jobs; none: it lives after all, or somebody was first.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn rescue(&self, dead: &str, last_seen: DateTime<Utc>) -> Result<Option<u64>, QueueError> {
        let mut connection = self.shared.connections.pool().acquire().await?;
        Ok(rescue::rescue(&self.shared.connections, &mut connection, dead, last_seen, &self.name()).await?)
    }
}
