//! One engine per process: one claimer, one listener, one beat; the slots, and what is held.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    beat::{self, LastBeat},
    cancel,
    claim::{self, Served},
    clock,
    connections::Connections,
    error::QueueError,
    group::Group,
    incarnation::{self, Serving},
    job::Job,
    listen,
    pauses::{Gate, ObservationWriter},
    polls::{self, Polls},
    reconcile,
    settle::Settle,
    shared::Shared,
    slots::Slots,
    unwritten::Unwritten,
    wake::Wake,
    writers::{Writers, WritersByQueue},
};

/// Time to write what is left once the grace is over.
const WRITING: Duration = Duration::from_secs(10);

/// How the engine keeps time.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// A worker says so often that it lives.
    pub beat: Duration,
    /// A worker that was watched without a beat for so long is dead.
    pub lease: Duration,
    /// How often to look for work when nothing wakes the claimer; a tenth as often while notifications come.
    pub poll_interval: Duration,
    /// Wake by LISTEN/NOTIFY as well.
    pub listen: bool,
    /// A pooler in transaction mode stands between.
    pub is_pooled: bool,
    /// The pool is this engine's alone: some of its connections may be kept at hand.
    pub keeps_connections: bool,
    /// 8 hex digits of the SHA-256 of the upstream's token, by which a pause names its holders; empty: this process has none.
    pub token_hash: String,
    /// End when no job of ours (of this group, if one is named) is pending or running.
    pub until_empty: Option<UntilEmpty>,
}

/// What must be empty for the engine to end by itself.
#[derive(Debug, Clone)]
pub struct UntilEmpty {
    /// Jobs of this group only; none means every job of ours.
    pub group: Option<String>,
}

/// One queue that the engine serves.
pub struct Queue {
    /// Its name.
    pub name: &'static str,
    /// Jobs at once in this process.
    pub slots: usize,
    /// Lanes to take from; a queue without lanes has the empty one.
    pub lanes: Vec<String>,
    /// Jobs of this group only; none means all. For a worker whose upstream is there for one task alone.
    pub group: Option<String>,
    /// What its jobs mean.
    pub hook: Arc<dyn Settle>,
    /// False: jobs are taken one by one, by [`Engine::claim_key`], and not by the claimer.
    pub claimed: bool,
}

/// The queue engine of this process.
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) served: Arc<HashMap<&'static str, Served>>,
    receivers: Arc<Mutex<HashMap<&'static str, mpsc::UnboundedReceiver<Job>>>>,
    writers: Arc<WritersByQueue>,
    pub(super) observations: Arc<Group<ObservationWriter>>,
    beat: Arc<Mutex<Option<JoinHandle<()>>>>,
    claimer: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

impl Engine {
    /// Registers this process and starts to claim.
    ///
    /// # Errors
    /// When it cannot be registered.
    pub async fn start(pool: PgPool, options: EngineOptions, queues: Vec<Queue>) -> Result<Self, QueueError> {
        let name = incarnation::new_name();
        let connections = Connections::of(pool, &options);
        let mut connection = connections.pool().acquire().await?;
        let registered_at = clock::now();
        let serving = Serving::of(&queues);
        incarnation::register(&connections, &mut connection, &name, (options.lease, &options.token_hash), &serving).await?;
        drop(connection);
        let wake = Arc::new(Wake::default());
        let mut writers = HashMap::new();
        let mut served = HashMap::new();
        let mut receivers = HashMap::new();
        let mut senders = HashMap::new();
        for queue in queues {
            let (sender, receiver) = mpsc::unbounded_channel();
            if queue.claimed {
                senders.insert(queue.name, sender);
            }
            receivers.insert(queue.name, receiver);
            writers.insert(queue.name, Writers::start(&connections, &queue.hook));
            let slots = Slots::new(queue.slots, Arc::clone(&wake));
            served.insert(queue.name, Served { queue: queue.name.into(), lanes: queue.lanes, group: queue.group, slots });
        }
        let observations = Group::start(ObservationWriter { connections: connections.clone() });
        let shared = Arc::new(Shared {
            gate: Gate::new(&options.token_hash),
            polls: Arc::new(Polls::new(options.lease)),
            options,
            serving,
            wake,
            stop: CancellationToken::new(),
            grace_over: CancellationToken::new(),
            beat_stop: CancellationToken::new(),
            last_beat: LastBeat::default(),
            ticks: AtomicU64::new(0),
            incarnation: RwLock::new(Arc::clone(&name)),
            held: Mutex::default(),
            unwritten: Unwritten::default(),
            failed: AtomicBool::new(false),
            reconcile: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            cancels: Notify::new(),
            bounds: Notify::new(),
            connections,
        });
        shared.last_beat.succeeded(registered_at);
        let beat = beat::start(Arc::clone(&shared), (*shared.connections.pool().connect_options()).clone())?;
        let engine = Self {
            shared,
            served: Arc::new(served),
            receivers: Arc::new(Mutex::new(receivers)),
            writers: Arc::new(writers),
            observations: Arc::new(observations),
            beat: Arc::new(Mutex::new(Some(beat))),
            claimer: Arc::default(),
        };
        if engine.shared.options.listen {
            tokio::spawn(listen::run(Arc::clone(&engine.shared)));
        }
        tokio::spawn(tick(Arc::clone(&engine.shared)));
        tokio::spawn(cancel::run(Arc::clone(&engine.shared)));
        tokio::spawn(polls::run(Arc::clone(&engine.shared)));
        let claimer = tokio::spawn(engine.clone().claim_for_ever(senders));
        *engine.claimer.lock().unwrap_or_else(PoisonError::into_inner) = Some(claimer);
        tracing::info!(worker = %name, "started");
        Ok(engine)
    }

    /// The jobs of a queue, in the order of their claims; ends when the engine stops. To be taken once.
    pub fn jobs(&self, queue: &str) -> Option<mpsc::UnboundedReceiver<Job>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).remove(queue)
    }

    /// Claims one job by its key, if it is due, nobody holds it and a slot is free.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn claim_key(&self, queue: &str, key: &str) -> Result<Option<Job>, QueueError> {
        let served = self.served.get(queue).ok_or_else(|| QueueError::UnknownQueue(queue.to_owned()))?;
        let claimed = claim::claim_key(&self.shared.connections, served, &self.shared.incarnation(), key).await;
        self.held_one(claimed)
    }

    /// What a claim of one job took. Where its answer was lost it may have taken one that nobody here knows.
    pub(super) fn held_one(&self, claimed: Result<Option<Job>, QueueError>) -> Result<Option<Job>, QueueError> {
        match &claimed {
            Ok(Some(job)) => self.shared.hold(job),
            Ok(None) => {}
            Err(_) => self.shared.reconcile.store(true, Ordering::Release),
        }
        claimed
    }

    /// Whether the engine is leaving.
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Waits until the engine begins to leave.
    pub async fn stopping(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Waits until the submits that are still out are to be written `unknown`.
    pub async fn grace_over(&self) {
        self.shared.grace_over.cancelled().await;
    }

    /// The writers of a queue.
    pub(super) fn writers(&self, queue: &str) -> Result<&Writers, QueueError> {
        self.writers.get(queue).ok_or_else(|| QueueError::UnknownQueue(queue.to_owned()))
    }

    /// Its connections.
    pub fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    /// Begins to leave: claims nothing and starts no POST; jobs that only poll are handed over.
    pub fn begin_stop(&self) {
        self.shared.stop.cancel();
        let held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().for_each(|tokens| tokens.handover.cancel());
    }

    /// Lets go of everything at once, where nobody waits for [`Engine::stop`] any more: without a beat, what was held is
    /// rescued by others.
    pub fn abandon(&self) {
        self.begin_stop();
        self.shared.grace_over.cancel();
        self.shared.beat_stop.cancel();
    }

    /// The process ends now, whatever is under way: writes into the log what nobody else knows.
    pub fn end_now(&self) {
        self.begin_stop();
        self.shared.unwritten.say_all();
    }

    /// Something that cannot happen has: leave, and say so with the exit code.
    pub fn fail(&self, why: &str) {
        self.shared.fail(why);
        self.begin_stop();
    }

    /// Leaves: awaits what is held for the grace, has the rest written, and takes this worker's row away. Returns whether
    /// everything was settled or handed over.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.begin_stop();
        // A claim that is under way is let in first: what it took is held, and handed over like the rest.
        let claimer = self.claimer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(claimer) = claimer
            && tokio::time::timeout(WRITING, claimer).await.is_err()
        {
            tracing::warn!("a claim is not answered: what it took waits for its rescue");
        }
        if tokio::time::timeout(grace, self.idle()).await.is_err() {
            tracing::warn!(grace = ?grace, "the grace is over: submits that are still out are written as unknown");
            self.shared.grace_over.cancel();
            // What remains is a statement or two a job.
            if tokio::time::timeout(WRITING, self.idle()).await.is_err() {
                tracing::error!("not everything could be settled: the rest waits for its rescue");
            }
        }
        let settled = self.is_idle();
        // A claim or a hand-over whose answer was lost: what nobody here knows is handed over as well.
        if self.shared.reconcile.load(Ordering::Acquire) {
            let reconciled = within(WRITING, || reconcile::reconcile(&self.shared)).await;
            if let Err(error) = reconciled {
                tracing::warn!(%error, "not compared with what PostgreSQL says is ours");
            }
        }
        self.shared.beat_stop.cancel();
        let beat = self.beat.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(beat) = beat {
            // The thread is at most in the middle of a beat, which has a bound.
            let _ = tokio::task::spawn_blocking(move || beat.join()).await;
        }
        let name = self.shared.incarnation();
        let how = if self.shared.failed.load(Ordering::Acquire) { "failed" } else { "stopped" };
        // Repeated as it is when its answer is lost: a row that is gone already is no error.
        let ended = within(WRITING, async || {
            let mut connection = self.shared.connections.pool().acquire().await?;
            Ok(incarnation::end(&self.shared.connections, &mut connection, &name, how).await?)
        })
        .await;
        if let Err(error) = &ended {
            tracing::warn!(%error, worker = %name, "its row stays for its rescuer");
        }
        self.shared.connections.close().await;
        tracing::info!(worker = %name, how, "stopped");
        settled && ended.is_ok() && !self.shared.failed.load(Ordering::Acquire)
    }

    /// Whether no job is held: each slot is given back when its job is settled.
    pub(super) fn is_idle(&self) -> bool {
        self.served.values().all(|served| served.slots.used() == 0)
    }

    async fn idle(&self) {
        while self.served.values().any(|served| served.slots.used() > 0) {
            tokio::select! {
                () = self.shared.wake.told() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }
}

/// Tries something again until it succeeds, is refused, or the time is over.
async fn within<T>(limit: Duration, mut attempt: impl AsyncFnMut() -> Result<T, QueueError>) -> Result<T, QueueError> {
    let began = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        match attempt().await {
            Err(error) if !error.is_refused() && began.elapsed() + pause < limit => {
                tracing::debug!(%error, "once more");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            done => return done,
        }
    }
}

/// Says that the main runtime ticks.
async fn tick(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(shared.options.beat / 4);
    loop {
        tokio::select! {
            _ = interval.tick() => { shared.ticks.fetch_add(1, Ordering::AcqRel); }
            () = shared.beat_stop.cancelled() => return,
        }
    }
}
