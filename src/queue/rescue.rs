//! Rescue by watching: only a worker whose `last_seen` stood still for a whole lease of one's own clock, one's own beats
//! succeeding throughout, is dead. So neither an outage nor a clock jump makes everybody look dead at once.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{connections::Connections, job::SOLITARY};

/// What one worker has seen of the others.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashMap<String, (DateTime<Utc>, Duration)>,
    /// When the last look was taken.
    last: Option<Duration>,
}

impl Watch {
    /// Takes one look at the others; returns those that are dead, with the `last_seen` they died with.
    ///
    /// The look was asked for at `sent` and its answer came at `received`, on one's own clock. Who did not look for half a
    /// lease, because this process or the whole machine stood still, has not watched: it begins anew.
    pub(super) fn look(
        &mut self,
        others: Vec<(String, DateTime<Utc>)>,
        sent: Duration,
        received: Duration,
        lease: Duration,
    ) -> Vec<(String, DateTime<Utc>)> {
        if self.last.replace(received).is_some_and(|last| received.saturating_sub(last) > lease / 2) {
            self.seen.clear();
        }
        let mut dead = Vec::new();
        let mut seen = HashMap::with_capacity(others.len());
        for (name, last_seen) in others {
            let since = match self.seen.get(&name) {
                Some((before, since)) if *before == last_seen => *since,
                _ => received,
            };
            if sent.saturating_sub(since) >= lease {
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
pub(super) async fn rescue(
    connections: &Connections,
    connection: &mut PgConnection,
    dead: &str,
    last_seen: DateTime<Utc>,
    rescuer: &str,
) -> Result<Option<u64>, sqlx::Error> {
    let mut transaction = connections.begin(connection).await?;
    // In the order of the ids, as everybody locks jobs. A settle of the dead that is under way is waited for.
    let held: Vec<String> = sqlx::query_scalar(
        "select id from apalis.jobs where lock_by = $1 and status = 'Running' and job_type like 'imagemill.%' order by id for update",
    )
    .bind(dead)
    .fetch_all(&mut *transaction)
    .await?;
    // A rescue counts against a job only if its ledger says the same as at the last one: rows that were begun, accepted, ended.
    let jobs = sqlx::query(
        "update apalis.jobs as job
         set status = 'Pending', run_at = now(), lock_by = null, lock_at = null,
             metadata = delete(job.metadata, 'resume')
                        || hstore(array['ledger', 'crashes'], array[found.steps::text, found.crashes::text])
                        || case when found.is_open then hstore('resume', 'true') else ''::hstore end
                        || case when found.crashes >= $2 then hstore('solitary', 'true') else ''::hstore end
         from (select held.id, ledger.steps, ledger.is_open,
                      coalesce((held.metadata -> 'crashes')::integer, 0)
                          + case when ledger.steps > coalesce((held.metadata -> 'ledger')::bigint, 0) then 0 else 1 end as crashes
               from apalis.jobs held
               cross join lateral (
                   select count(*) + count(accepted_at) + count(reopened_at) + count(finished_at) as steps,
                          coalesce(bool_or(finished_at is null), false) as is_open
                   from imagemill.attempts
                   where subtask_id = imagemill.as_uuid(held.idempotency_key)) as ledger
               where held.id = any ($1)) as found
         where job.id = found.id",
    )
    .bind(held)
    .bind(SOLITARY)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    // What was claimed since is a sign of life, as a beat is.
    let gone = sqlx::query(
        "delete from apalis.workers
         where id = $1 and last_seen = $2 and not exists (select from apalis.jobs where lock_by = $1)",
    )
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

    /// Looks every 3 s from one second on to another, at a worker whose last beat was that; returns when it was found dead.
    fn watch(watch: &mut Watch, beat: i64, from: u64, to: u64) -> Option<u64> {
        (from..=to).step_by(3).find(|second| {
            let at = Duration::from_secs(*second);
            let other = ("other".to_owned(), DateTime::from_timestamp(beat, 0).unwrap());
            !watch.look(vec![other], at, at, LEASE).is_empty()
        })
    }

    #[test]
    fn a_worker_that_stands_still_for_a_lease_is_dead() {
        assert_eq!(watch(&mut Watch::default(), 1, 0, 60), Some(15));
    }

    #[test]
    fn a_beat_begins_the_watch_anew() {
        let mut other = Watch::default();
        assert_eq!(watch(&mut other, 1, 0, 12), None);
        assert_eq!(watch(&mut other, 2, 15, 60), Some(30));
    }

    #[test]
    fn the_age_of_last_seen_proves_nothing_by_itself() {
        // First look, at a row that is years old: nobody has watched it for a lease.
        assert_eq!(watch(&mut Watch::default(), 0, 1_000_000, 1_000_012), None);
    }

    #[test]
    fn an_outage_of_ones_own_proves_nothing() {
        let mut other = Watch::default();
        assert_eq!(watch(&mut other, 1, 0, 12), None);
        other.forget();
        assert_eq!(watch(&mut other, 1, 15, 27), None);
    }

    #[test]
    fn who_slept_has_not_watched() {
        let mut other = Watch::default();
        assert_eq!(watch(&mut other, 1, 0, 12), None);
        // Stopped and continued, or a machine that was suspended: the clock ran on.
        assert_eq!(watch(&mut other, 1, 3600, 3612), None);
        assert_eq!(watch(&mut other, 1, 3615, 3615), Some(3615));
    }
}
