//! Rescue by watching: only a worker whose `last_seen` stood still for a whole lease of one's own clock, one's own beats
//! succeeding throughout, is dead. So neither an outage nor a clock jump makes everybody look dead at once.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};

/// What one worker has seen of the others.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashMap<String, (DateTime<Utc>, Duration)>,
}

impl Watch {
    /// Takes one look at the others; returns those that are dead, with the `last_seen` they died with.
    ///
    /// `at` is when the look was taken, on one's own clock.
    pub(super) fn look(
        &mut self,
        others: Vec<(String, DateTime<Utc>)>,
        at: Duration,
        lease: Duration,
    ) -> Vec<(String, DateTime<Utc>)> {
        let mut dead = Vec::new();
        let mut seen = HashMap::with_capacity(others.len());
        for (name, last_seen) in others {
            let since = match self.seen.get(&name) {
                Some((before, since)) if *before == last_seen => *since,
                _ => at,
            };
            if at.saturating_sub(since) >= lease {
                dead.push((name.clone(), last_seen));
            }
            seen.insert(name, (last_seen, since));
        }
        self.seen = seen;
        dead
    }

    /// One's own beat failed: what was seen before proves nothing.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }
}

/// Puts a dead worker's jobs back and deletes its row: the missing row is the tombstone. Returns the number of jobs; none:
/// it lives after all, or another rescuer was first.
///
/// Counting crashes against jobs belongs here (design, section 7: crashes).
pub(super) async fn rescue(
    connection: &mut PgConnection,
    dead: &str,
    last_seen: DateTime<Utc>,
    rescuer: &str,
) -> Result<Option<u64>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // In the order of the ids, as everybody locks jobs. A settle of the dead that is under way is waited for.
    sqlx::query("select 1 from apalis.jobs where lock_by = $1 and status = 'Running' and job_type like 'imagemill.%' order by id for update")
        .bind(dead)
        .execute(&mut *transaction)
        .await?;
    let jobs = sqlx::query(
        "update apalis.jobs as job
         set status = 'Pending', run_at = now(), lock_by = null, lock_at = null,
             metadata = case when job.idempotency_key in (select subtask_id::text from imagemill.attempts
                                                          where state in ('submitting', 'accepted'))
                             then job.metadata || hstore('resume', 'true')
                             else delete(job.metadata, 'resume') end
         where lock_by = $1 and status = 'Running' and job_type like 'imagemill.%'",
    )
    .bind(dead)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    let gone = sqlx::query("delete from apalis.workers where id = $1 and last_seen = $2")
        .bind(dead)
        .bind(last_seen)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if gone == 0 {
        transaction.rollback().await?;
        return Ok(None);
    }
    sqlx::query("update imagemill.incarnations set ended_at = now(), how = 'rescued', rescued_by = $2 where name = $1 and ended_at is null")
        .bind(dead)
        .bind(rescuer)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("select pg_notify($1, '')").bind(super::enqueue::WAKE_CHANNEL).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Some(jobs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn worker(beat: i64) -> Vec<(String, DateTime<Utc>)> {
        vec![("other".to_owned(), DateTime::from_timestamp(beat, 0).unwrap())]
    }

    #[test]
    fn a_worker_that_stands_still_for_a_lease_is_dead() {
        let mut watch = Watch::default();
        assert!(watch.look(worker(1), at(0), LEASE).is_empty());
        assert!(watch.look(worker(1), at(14), LEASE).is_empty());
        assert_eq!(watch.look(worker(1), at(15), LEASE).len(), 1);
    }

    #[test]
    fn a_beat_begins_the_watch_anew() {
        let mut watch = Watch::default();
        assert!(watch.look(worker(1), at(0), LEASE).is_empty());
        assert!(watch.look(worker(2), at(14), LEASE).is_empty());
        assert!(watch.look(worker(2), at(28), LEASE).is_empty());
        assert_eq!(watch.look(worker(2), at(29), LEASE).len(), 1);
    }

    #[test]
    fn the_age_of_last_seen_proves_nothing_by_itself() {
        let mut watch = Watch::default();
        // First look, at a row that is years old: nobody has watched it for a lease.
        assert!(watch.look(worker(0), at(1_000_000), LEASE).is_empty());
    }

    #[test]
    fn an_outage_of_ones_own_proves_nothing() {
        let mut watch = Watch::default();
        assert!(watch.look(worker(1), at(0), LEASE).is_empty());
        watch.forget();
        assert!(watch.look(worker(1), at(60), LEASE).is_empty());
    }
}
