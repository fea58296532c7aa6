//! Whether the workers of this host live: what a probe asks.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::incarnation;

/// The last beat of one worker process.
#[derive(Debug, Clone, PartialEq)]
pub struct HostBeat {
    /// Its incarnation.
    pub name: String,
    /// Its process, in the namespace that it ran in.
    pub pid: i32,
    /// Since its last beat, by the database's clock.
    pub age: Duration,
}

/// Name of this host, as workers register with it.
pub fn host() -> String {
    incarnation::host()
}

/// The last beats of the workers that registered from this host and have not ended: of each process its latest incarnation, since
/// a container's first process has the number of the one before it, whose row waits for its rescuer.
///
/// # Errors
/// What PostgreSQL says.
pub async fn beats_of_host(connection: &mut PgConnection) -> Result<Vec<HostBeat>, sqlx::Error> {
    // In a transaction and without a name of its own, so that any pooler may stand between.
    let mut transaction = connection.begin().await?;
    let rows: Vec<(String, i32, f64)> = sqlx::query_as(
        "select distinct on (incarnation.pid) incarnation.name, incarnation.pid,
                extract(epoch from clock_timestamp() - worker.last_seen)::float8
         from imagemill.incarnations as incarnation join apalis.workers as worker on worker.id = incarnation.name
         where incarnation.host = $1 and incarnation.ended_at is null
         order by incarnation.pid, incarnation.started_at desc",
    )
    .bind(host())
    .persistent(false)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.rollback().await?;
    let beats = rows.into_iter().map(|(name, pid, age)| HostBeat { name, pid, age: Duration::from_secs_f64(age.max(0.0)) });
    Ok(beats.collect())
}
