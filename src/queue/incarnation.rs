//! One OS process registers one row in `apalis.workers`, under a name that is never used again: its incarnation.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{connections::Connections, engine::Queue};

/// `worker_type` of our rows in `apalis.workers`, by which they are told from those of stock apalis queues.
pub(super) const WORKER_TYPE: &str = "imagemill";

/// What a worker takes: for people who ask why nobody takes a job.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    /// Lanes that it claims from; a queue without lanes says nothing of them.
    lanes: Vec<String>,
    /// Jobs of this group alone.
    only_group: Option<String>,
}

impl Serving {
    pub(super) fn of(queues: &[Queue]) -> Self {
        let claimed = || queues.iter().filter(|queue| queue.claimed);
        let mut lanes: Vec<String> =
            claimed().flat_map(|queue| queue.lanes.iter()).filter(|lane| !lane.is_empty()).cloned().collect();
        lanes.sort_unstable();
        lanes.dedup();
        Self { lanes, only_group: claimed().find_map(|queue| queue.group.clone()) }
    }
}

/// A name for a new incarnation: host, process, and what makes it unique.
pub(super) fn new_name() -> Arc<str> {
    let unique = Uuid::now_v7().simple().to_string();
    format!("{}-{}-{unique}", host(), std::process::id()).into()
}

pub(super) fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().unwrap_or("unnamed").to_owned()
}

/// Registers it with apalis, and in our own list that stays.
pub(super) async fn register(
    connections: &Connections,
    connection: &mut PgConnection,
    name: &str,
    (lease, token_hash): (Duration, &str),
    serving: &Serving,
) -> Result<(), sqlx::Error> {
    let mut transaction = connections.begin(connection).await?;
    sqlx::query(
        "insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at)
         values ($1, $2, 'imagemill', '', clock_timestamp(), clock_timestamp())",
    )
    .bind(name)
    .bind(WORKER_TYPE)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "insert into imagemill.incarnations (name, host, pid, version, lease, token_hash, lanes, only_group)
         values ($1, $2, $3, $4, make_interval(secs => $5), nullif($6, ''), $7, $8)",
    )
    .bind(name)
    .bind(host())
    .bind(i32::try_from(std::process::id()).unwrap_or_default())
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(lease.as_secs_f64())
    .bind(token_hash)
    .bind(&serving.lanes)
    .bind(&serving.only_group)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// The token that it submits with from now on; empty: none.
pub(super) async fn set_token(connection: &mut PgConnection, name: &str, token_hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query("update imagemill.incarnations set token_hash = nullif($2, '') where name = $1")
        .bind(name)
        .bind(token_hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Its end by its own hand. Fails on the foreign key while it still holds jobs: then the row stays for its rescuer.
pub(super) async fn end(
    connections: &Connections,
    connection: &mut PgConnection,
    name: &str,
    how: &str,
) -> Result<(), sqlx::Error> {
    let mut transaction = connections.begin(connection).await?;
    sqlx::query("delete from apalis.workers where id = $1").bind(name).execute(&mut *transaction).await?;
    sqlx::query("update imagemill.incarnations set ended_at = now(), how = $2 where name = $1 and ended_at is null")
        .bind(name)
        .bind(how)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}
