//! Retention: finished jobs go after a while, in small batches, one worker at a time. Results live in cells and attempts.
//!
//! No index serves it, since each would cost every job: ids begin with the time at which they were made, so a walk along the
//! primary key meets the oldest first, and ends at the first that is too young to have ended long ago.

use std::time::Duration;

use sqlx::PgConnection;

use super::{connections::Connections, error::QueueError};
use tokio::time::Instant;

/// Key of the advisory lock under which one batch at a time runs ("imagprun" in ASCII). It ends with its transaction, since
/// one of a session would be left on another's connection by a `PgBouncer`.
const PRUNE_LOCK: i64 = 0x696d_6167_7072_756e;

/// Jobs that one batch looks at, at most: a few milliseconds.
pub const BATCH: i64 = 1_000;
/// The smallest batch, where the disk is slow.
const SMALLEST_BATCH: i64 = 100;
/// A batch that took longer is followed by one of half its size.
const SLOW: Duration = Duration::from_millis(50);

/// After a whole batch of jobs that are gone, and less after fewer: together 2,000 a second, a million in ten minutes with some to spare.
/// Faster than that it only takes from others.
const PAUSE: Duration = Duration::from_millis(500);
/// Where none had to go, so many times what the batch took: a twenty-fifth of one connection's time for the whole fleet. Not more than the
/// other, since on a busy machine everything takes long.
const SHARE: u32 = 24;
/// And this much at least, however slow it is.
const LEAST_SHARE: u32 = 4;
/// The shortest pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// Batches in a row that found another worker's under way before the round is given up.
const MOST_REFUSED: u32 = 20;

/// Between two rounds, at least.
const INTERVAL: Duration = Duration::from_mins(1);
/// Between two rounds, at most.
const LONGEST_INTERVAL: Duration = Duration::from_hours(1);
/// A round that stepped over many jobs comes again the later: so many a second.
const KEPT_A_SECOND: u64 = 1_000;
/// Every so many rounds begin at the very first job.
const WHOLE_ROUND: u32 = 60;

/// What one batch did.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PrunedBatch {
    /// False: another worker's batch is under way, and nothing was done.
    pub is_ours: bool,
    /// Jobs that it looked at, those of other queues included.
    pub looked: i64,
    /// Jobs that are gone.
    pub deleted: i64,
    /// The last one that it looked at; none: there was none.
    pub last: Option<String>,
    /// Workers that live, which share the pace.
    pub workers: i64,
}

/// Looks at the next jobs after an id, at most so many, and deletes those of our queues that ended longer ago than the
/// retention. One statement, which is its own transaction.
///
/// # Errors
/// What PostgreSQL says.
pub async fn prune_batch(
    connection: &mut PgConnection,
    after: &str,
    limit: i64,
    retention: Duration,
) -> Result<PrunedBatch, sqlx::Error> {
    // A job that somebody holds just now, to open it again, is left for the next round. What is locked is looked at again as
    // it then is.
    sqlx::query_as(
        "with locked as materialized (
             select pg_try_advisory_xact_lock($1) as is_ours
         ), retention as materialized (
             select cut, substr(millis, 1, 8) || '-' || substr(millis, 9) as first_young_id
             from (select now() - make_interval(secs => $4) as cut) as given,
                  lateral (select lpad(to_hex((extract(epoch from cut) * 1000)::bigint), 12, '0') as millis) as made
         ), looked as materialized (
             select id, ctid as place,
                    job_type like 'imagemill.%' and status in ('Done', 'Failed', 'Killed')
                        and done_at < (select cut from retention) as is_over
             from apalis.jobs
             where (select is_ours from locked) and id > $2 and id < (select first_young_id from retention)
             order by id limit $3
         ), held as materialized (
             select ctid as place from apalis.jobs
             where ctid = any (array(select place from looked where is_over))
               and job_type like 'imagemill.%' and status in ('Done', 'Failed', 'Killed')
               and done_at < (select cut from retention)
             for update skip locked
         ), deleted as (
             delete from apalis.jobs where ctid = any (array(select place from held)) returning 1
         )
         select (select is_ours from locked), (select count(*) from looked) as looked, (select count(*) from deleted) as deleted,
                (select max(id) from looked) as last,
                (select count(*) from apalis.workers where worker_type = $5) as workers",
    )
    .bind(PRUNE_LOCK)
    .bind(after)
    .bind(limit)
    .bind(retention.as_secs_f64())
    .bind(super::incarnation::WORKER_TYPE)
    .fetch_one(connection)
    .await
}

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrunedRound {
    /// Jobs that are gone.
    pub deleted: u64,
    /// Jobs that it stepped over.
    pub kept: u64,
    /// Workers that share the pace; 1 at least.
    pub workers: u32,
}

/// One worker's part in it.
#[derive(Debug)]
pub struct Pruner {
    connections: Connections,
    retention: Duration,
    /// Where the next round begins: nothing of ours stood before it. An index keeps what was deleted until a vacuum; to step
    /// over a million of such entries each minute would cost more than the round.
    begin: String,
    rounds: u32,
}

impl Pruner {
    /// Keeps finished jobs for so long.
    pub fn new(connections: Connections, retention: Duration) -> Self {
        Self { connections, retention, begin: String::new(), rounds: 0 }
    }

    /// Prunes for as long as it is polled: a round at once, and then now and then.
    pub async fn run(mut self) {
        loop {
            let pause = match self.round().await {
                Ok(round) => {
                    if round.deleted > 0 {
                        tracing::info!(jobs = round.deleted, "finished jobs pruned");
                    }
                    until_next(round, self.retention)
                }
                Err(error) => {
                    tracing::warn!(%error, "finished jobs were not pruned; the next round comes");
                    INTERVAL
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One round: from the first job to the first that is too young, in batches with pauses between them.
    ///
    /// # Errors
    /// What PostgreSQL says; what is gone by then is gone.
    pub async fn round(&mut self) -> Result<PrunedRound, QueueError> {
        if self.rounds.is_multiple_of(WHOLE_ROUND) {
            self.begin.clear();
        }
        self.rounds = self.rounds.wrapping_add(1);
        let mut round = PrunedRound { workers: 1, ..PrunedRound::default() };
        let (mut cursor, mut size, mut refused, mut nothing_kept) = (self.begin.clone(), BATCH, 0, true);
        loop {
            let began = Instant::now();
            let retention = self.retention;
            let batch =
                self.connections.statement(async |connection| Ok(prune_batch(connection, &cursor, size, retention).await?));
            let batch = batch.await?;
            let took = began.elapsed();
            let pause = pause_after(size, batch.deleted, took);
            round.workers = u32::try_from(batch.workers).unwrap_or(u32::MAX).max(1);
            if batch.is_ours {
                refused = 0;
                round.deleted += batch.deleted.unsigned_abs();
                round.kept += (batch.looked - batch.deleted).unsigned_abs();
                nothing_kept &= batch.looked == batch.deleted;
                let Some(last) = batch.last else { return Ok(round) };
                if nothing_kept {
                    self.begin.clone_from(&last);
                }
                if batch.looked < size {
                    return Ok(round);
                }
                cursor = last;
                size = next_size(size, took);
            } else {
                refused += 1;
                if refused > MOST_REFUSED {
                    return Ok(round);
                }
            }
            // Each worker has its own round; together they keep one worker's pace.
            tokio::time::sleep(pause.saturating_mul(round.workers)).await;
        }
    }
}

fn next_size(size: i64, took: Duration) -> i64 {
    if took > SLOW { (size / 2).max(SMALLEST_BATCH) } else { (size * 2).min(BATCH) }
}

fn pause_after(size: i64, deleted: i64, took: Duration) -> Duration {
    let paced = |jobs: i64| PAUSE.mul_f64(jobs as f64 / BATCH as f64);
    let looked = (took * SHARE).min(paced(size)).max(took * LEAST_SHARE);
    looked.max(paced(deleted)).max(SHORTEST_PAUSE)
}

fn until_next(round: PrunedRound, retention: Duration) -> Duration {
    let kept = Duration::from_secs(round.kept / KEPT_A_SECOND).saturating_mul(round.workers);
    kept.clamp(INTERVAL.min(retention), LONGEST_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_batch_is_followed_by_smaller_ones() {
        let sizes =
            |took: Duration| std::iter::successors(Some(BATCH), |size| Some(next_size(*size, took))).take(6).collect::<Vec<_>>();
        assert_eq!(sizes(Duration::from_millis(51)), [1_000, 500, 250, 125, 100, 100]);
        assert_eq!(sizes(Duration::from_millis(50)), [BATCH; 6]);
        assert_eq!(next_size(300, Duration::from_millis(1)), 600);
    }

    #[test]
    fn the_pace_is_that_of_the_jobs_that_go_however_busy_the_machine() {
        let after = |size: i64, deleted: i64, took: u64| pause_after(size, deleted, Duration::from_millis(took)).as_millis();
        assert_eq!((after(BATCH, BATCH, 1), after(BATCH, BATCH, 100), after(250, 250, 20)), (500, 500, 125));
        assert_eq!((after(BATCH, 0, 0), after(BATCH, 0, 1), after(BATCH, 0, 10), after(BATCH, 0, 40)), (5, 24, 240, 500));
        assert_eq!((after(BATCH, 100, 1), after(BATCH, BATCH, 150), after(SMALLEST_BATCH, 100, 60)), (50, 600, 240));
    }

    #[test]
    fn the_more_a_round_stepped_over_the_later_the_next_one_comes() {
        let after =
            |kept: u64, workers: u32, retention: Duration| until_next(PrunedRound { deleted: 7, kept, workers }, retention);
        let day = Duration::from_hours(24);
        assert_eq!(after(0, 1, day), Duration::from_mins(1));
        assert_eq!(after(59_000, 1, day), Duration::from_mins(1));
        assert_eq!(after(1_000_000, 1, day), Duration::from_secs(1_000));
        assert_eq!(after(100_000, 4, day), Duration::from_secs(400));
        assert_eq!(after(1_000_000, 16, day), Duration::from_hours(1));
        assert_eq!(after(0, 1, Duration::from_secs(5)), Duration::from_secs(5));
    }
}
