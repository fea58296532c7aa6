//! Waiting for locks beside a live fleet.
//!
//! Who asks for a strong lock stands in the queue for it, and everybody behind waits as well, however short the statement
//! would be. So each wait is short, and the fleet has the tables to itself for as long between two tries.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::migrate::MigrateError;

/// How long the schema's changes wait for locks.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one lock: who queues behind waits no longer.
    pub lock: Duration,
    /// For all the tries of one step together.
    pub bound: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { lock: Duration::from_secs(2), bound: Duration::from_mins(1) }
    }
}

/// Sets how long this session waits for a lock; zero is for ever.
pub(super) async fn set_lock_timeout(connection: &mut PgConnection, timeout: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select set_config('lock_timeout', $1, false)").bind(timeout).execute(connection).await?;
    Ok(())
}

/// Milliseconds as PostgreSQL's settings take them.
pub(super) fn milliseconds(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}

/// Does a step, and again while a lock that it needs is held by others, up to the bound.
///
/// # Errors
/// [`MigrateError::Locked`] at the bound; what the step says otherwise.
pub(super) async fn patiently<F>(connection: &mut PgConnection, patience: Patience, step: F) -> Result<(), MigrateError>
where
    F: AsyncFn(&mut PgConnection) -> Result<(), MigrateError>,
{
    let began = Instant::now();
    loop {
        match step(connection).await {
            Err(error) if error.is_lock() => {
                let holders = holders(connection).await?;
                if began.elapsed() >= patience.bound {
                    return Err(MigrateError::Locked { seconds: patience.bound.as_secs(), way_out: way_out(&holders) });
                }
                tracing::info!("a lock is held by others ({}); trying again", described(&holders));
            }
            done => return done,
        }
        // At random, so that what comes at intervals does not meet it every time.
        tokio::time::sleep(patience.lock.mul_f64(rand::random_range(1.0..=2.0))).await;
    }
}

/// Process, name and age in seconds of a transaction.
type Holder = (i32, String, i64);

/// The oldest open transactions that hold locks on what init-db changes.
async fn holders(connection: &mut PgConnection) -> Result<Vec<Holder>, sqlx::Error> {
    sqlx::query_as(
        "select a.pid, coalesce(nullif(a.application_name, ''), 'no name'), extract(epoch from now() - a.xact_start)::bigint
         from pg_stat_activity a
         where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null
           and exists (select from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
                       where l.pid = a.pid and l.granted and n.nspname in ('apalis', 'imagemill'))
         order by a.xact_start limit 3",
    )
    .fetch_all(connection)
    .await
}

fn described(holders: &[Holder]) -> String {
    let described: Vec<String> = holders.iter().map(|(pid, name, age)| format!("{pid} ({name}, open for {age} s)")).collect();
    if described.is_empty() { "they are gone by now".to_owned() } else { described.join(", ") }
}

fn way_out(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "run it again when there is less traffic".to_owned();
    }
    format!("wait for these sessions, or end them with pg_terminate_backend, and run it again: {}", described(holders))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_names_who_is_in_the_way() {
        let holders = [(12, "psql".to_owned(), 90), (13, "no name".to_owned(), 3)];
        let line = way_out(&holders);
        assert!(line.ends_with("12 (psql, open for 90 s), 13 (no name, open for 3 s)"), "{line}");
        assert_eq!(way_out(&[]), "run it again when there is less traffic");
    }
}
