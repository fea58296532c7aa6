//! A claimed job, and the fence that every write for it carries.

use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{slots::Slot, tokens::JobTokens};

/// A job that this process holds.
#[derive(Debug, Clone)]
pub struct Job {
    /// Id of the row in `apalis.jobs`.
    pub id: String,
    /// The queue's name.
    pub queue: Arc<str>,
    /// Idempotency key: the cell's id, or `task:round`.
    pub key: String,
    /// As enqueued.
    pub payload: Vec<u8>,
    /// Number of this claim.
    pub claim: i32,
    /// The incarnation that claimed it.
    pub worker: Arc<str>,
    /// What ends its waiting early.
    pub tokens: JobTokens,
    /// Its place among this process's slots, given back when the last copy of the job goes: after its settle.
    pub(super) _slot: Arc<Slot>,
}

impl Job {
    /// The cell, where the key is one.
    pub fn cell(&self) -> Option<Uuid> {
        Uuid::parse_str(&self.key).ok()
    }

    /// Locks the job's row and says whether the claim still holds. The first statement of every transaction that
    /// writes for a job.
    pub(super) async fn fence(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let held: Option<i32> = sqlx::query_scalar(
            "select 1 from apalis.jobs
             where id = $1 and lock_by = $2 and attempts = $3 and status = 'Running'
             for update",
        )
        .bind(&self.id)
        .bind(&*self.worker)
        .bind(self.claim)
        .fetch_optional(connection)
        .await?;
        Ok(held.is_some())
    }
}
