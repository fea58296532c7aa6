//! The beat: on a thread, a runtime and a connection of its own, so that nothing that keeps the process busy keeps it
//! from saying that it lives. Beat, rescue check and count of running jobs are one statement.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};

use super::{clock, error::QueueError, incarnation, rescue, shared::Shared};

/// When the last successful beat was sent, on [`clock::now`], in milliseconds: what the self-fence counts from.
#[derive(Debug, Default)]
pub(super) struct LastBeat(AtomicU64);

impl LastBeat {
    pub(super) fn succeeded(&self, sent: Duration) {
        self.0.store(u64::try_from(sent.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    pub(super) fn age(&self) -> Duration {
        clock::now().saturating_sub(Duration::from_millis(self.0.load(Ordering::Acquire)))
    }
}

/// What one beat found.
pub(super) struct Beat {
    pub(super) alive: bool,
    running: i64,
    pub(super) others: Vec<(String, DateTime<Utc>)>,
    /// Lanes whose polls are limited.
    limited: Vec<String>,
    /// Whether a pause names this process's token: somebody else may have met it.
    is_refused: bool,
}

/// Starts the thread; it ends when the engine's `beat_stop` is cancelled.
pub(super) fn start(shared: Arc<Shared>, options: PgConnectOptions) -> Result<JoinHandle<()>, QueueError> {
    std::thread::Builder::new()
        .name("imagemill-beat".to_owned())
        .spawn(move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(&shared, &options)),
            Err(error) => {
                tracing::error!(%error, "the beat has no runtime");
                shared.fail("the beat has no runtime");
            }
        })
        .map_err(|error| QueueError::Thread(Arc::new(error)))
}

async fn run(shared: &Arc<Shared>, options: &PgConnectOptions) {
    let mut watch = rescue::Watch::default();
    let mut connection: Option<PgConnection> = None;
    let mut differed = false;
    let mut ticks_before = None;
    let mut interval = tokio::time::interval(shared.options.beat);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = shared.beat_stop.cancelled() => return,
        }
        // A process whose main runtime hangs must not look alive: what it holds would never end.
        let ticks = shared.ticks.load(Ordering::Acquire);
        if ticks_before.replace(ticks) == Some(ticks) {
            tracing::warn!("the main runtime stands still: no beat");
            watch.forget();
            continue;
        }
        let sent = clock::now();
        // A statement that hangs is an outage: two beats are given to it, well within the lease.
        let done = tokio::time::timeout(
            shared.options.beat * 2,
            once(shared, options, &mut connection, &mut watch, &mut differed, sent),
        )
        .await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "a beat failed");
                connection = None;
                watch.forget();
                shared.reconcile.store(true, Ordering::Release);
            }
            Err(_) => {
                tracing::warn!("a beat was not answered in time");
                connection = None;
                watch.forget();
                shared.reconcile.store(true, Ordering::Release);
            }
        }
    }
}

async fn once(
    shared: &Arc<Shared>,
    options: &PgConnectOptions,
    kept: &mut Option<PgConnection>,
    watch: &mut rescue::Watch,
    differed: &mut bool,
    sent: Duration,
) -> Result<(), sqlx::Error> {
    if kept.is_none() {
        *kept = Some(options.connect().await?);
    }
    let Some(connection) = kept.as_mut() else { return Ok(()) };
    let (name, token_hash) = (shared.incarnation(), shared.gate.token_hash());
    let beat = if shared.options.is_pooled {
        let mut transaction = shared.connections.begin(connection).await?;
        let beat = beat(&mut transaction, &name, &token_hash).await?;
        transaction.commit().await?;
        beat
    } else {
        beat(connection, &name, &token_hash).await?
    };
    if !beat.alive {
        // The row is gone: somebody found us dead. What we held is no longer ours.
        shared.lost_incarnation(connection, &name).await?;
        return Ok(());
    }
    shared.last_beat.succeeded(sent);
    shared.polls.saw(&beat.limited);
    if beat.is_refused {
        shared.gate.tell();
    }
    if shared.reconcile.load(Ordering::Acquire) {
        // PostgreSQL is there again.
        shared.wake.tell();
    }
    // Once may be a claim or a settle that is under way; twice running is compared by the claimer.
    let differs = usize::try_from(beat.running).unwrap_or_default() != shared.held_now();
    if differs && *differed {
        shared.reconcile.store(true, Ordering::Release);
        shared.wake.tell();
    }
    *differed = differs;
    for (dead, last_seen) in watch.look(beat.others, sent, clock::now(), shared.options.lease) {
        // None: it lives after all, or somebody else was first.
        if let Some(jobs) = rescue::rescue(&shared.connections, connection, &dead, last_seen, &name).await? {
            tracing::warn!(worker = %dead, jobs, "rescued: it gave no beat for a whole lease");
        }
    }
    Ok(())
}

pub(super) async fn beat(connection: &mut PgConnection, name: &str, token_hash: &str) -> Result<Beat, sqlx::Error> {
    let query = sqlx::query_as::<_, (bool, i64, Vec<String>, Vec<DateTime<Utc>>, Vec<String>, bool)>(
        "with mine as (
             update apalis.workers set last_seen = clock_timestamp() where id = $1 returning id
         ), others as (
             select id, last_seen from apalis.workers where worker_type = $2 and id <> $1
         )
         select exists (select from mine),
                (select count(*) from apalis.jobs
                 where lock_by = $1 and status = 'Running' and job_type like 'imagemill.%'),
                array(select id from others order by id),
                array(select last_seen from others order by id),
                array(select lane from imagemill.lanes where polls_per_second is not null),
                exists (select from imagemill.pauses where token_hash = $3 and reason in ('auth', 'payment'))",
    );
    let (alive, running, names, seen, limited, is_refused) =
        query.bind(name).bind(incarnation::WORKER_TYPE).bind(token_hash).fetch_one(connection).await?;
    Ok(Beat { alive, running, others: names.into_iter().zip(seen).collect(), limited, is_refused })
}
