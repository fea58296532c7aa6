//! Opening ended cells again.

use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use super::subtasks::Move;
use crate::models::status::{ErrorKind, RetryMode, Status};

/// Who steers one task does so one after another: to be taken before any other lock.
///
/// # Errors
/// What PostgreSQL says.
pub async fn lock_steering(connection: &mut PgConnection, task_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('imagemill.steering/' || $1, 0))")
        .bind(task_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// A cell that may be run again, now or when it has ended.
#[derive(Debug, Clone, FromRow)]
pub struct EndedCell {
    /// Itself.
    pub id: Uuid,
    /// 0-based ordinal.
    pub cell: i32,
    /// Its lane.
    pub lane: String,
    /// Its state.
    pub status: Status,
    /// Why it failed.
    pub error_kind: Option<ErrorKind>,
    /// A cancel was asked for, and its worker has not ended it yet.
    pub is_being_cancelled: bool,
}

/// Which cells.
#[derive(Debug, Clone, Copy)]
pub enum Chosen<'a> {
    /// Those that failed for one of these reasons.
    Kinds(&'a [ErrorKind]),
    /// These, whatever their state.
    Cells(&'a [i32]),
    /// Every one that failed or was cancelled, or is being cancelled.
    All,
}

/// The cells of a task that were chosen, in the order of their ids.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_chosen(connection: &mut PgConnection, task_id: Uuid, chosen: Chosen<'_>) -> Result<Vec<EndedCell>, sqlx::Error> {
    let (kinds, cells) = match chosen {
        Chosen::Kinds(kinds) => (Some(kinds.iter().map(|kind| kind.as_str().to_owned()).collect::<Vec<_>>()), None),
        Chosen::Cells(cells) => (None, Some(cells)),
        Chosen::All => (None, None),
    };
    sqlx::query_as(
        "select id, cell, lane, status, error_kind, completed_at is null and cancel_requested_at is not null as is_being_cancelled
         from imagemill.subtasks
         where task_id = $1
           and case when $2::text[] is not null then error_kind = any ($2)
                    when $3::integer[] is not null then cell = any ($3)
                    else status in ('failed', 'cancelled') or (completed_at is null and cancel_requested_at is not null) end
         order by id",
    )
    .bind(task_id)
    .bind(kinds)
    .bind(cells)
    .fetch_all(connection)
    .await
}

/// Opens ended cells again, in a round that begins: pending, with the seed that they have. Returns those that had failed or were
/// cancelled. To be called under the locks of their jobs.
///
/// # Errors
/// What PostgreSQL says.
pub async fn reopen(connection: &mut PgConnection, ids: &[Uuid], mode: RetryMode, round: i32) -> Result<Vec<Move>, sqlx::Error> {
    sqlx::query_as(
        "with before as materialized (
             select id, status from imagemill.subtasks
             where id = any ($1) and status in ('failed', 'cancelled') order by id for update
         )
         update imagemill.subtasks s
         set status = 'pending', error_kind = null, error = null, completed_at = null, cancel_requested_at = null,
             retry_mode = $2, retry_round = $3, updated_at = now()
         from before where s.id = before.id
         returning s.task_id, before.status as from_status, s.status as to_status",
    )
    .bind(ids)
    .bind(mode.as_str())
    .bind(round)
    .fetch_all(connection)
    .await
}

/// Begins a task's next round: it is processing, what was asked of cancel is cleared, and its rate is counted from here on. To be
/// called when its counts say that the cells are open again. False: it is in another round by now.
///
/// # Errors
/// What PostgreSQL says.
pub async fn begin_round(connection: &mut PgConnection, task_id: Uuid, ended_round: i32) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "update imagemill.tasks
         set round = round + 1, status = 'processing', started_at = coalesce(started_at, now()), completed_at = null,
             round_started_at = now(), cancel_requested_at = null, updated_at = now(),
             ended_before_round = (select c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks
                                   from imagemill.task_counts c where c.task_id = tasks.id)
         where id = $1 and round = $2 and not is_deleted",
    )
    .bind(task_id)
    .bind(ended_round)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Whether a task is a try against the simulator.
///
/// # Errors
/// What PostgreSQL says.
pub async fn is_alone(connection: &mut PgConnection, task_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select is_alone from imagemill.tasks where id = $1").bind(task_id).fetch_one(connection).await
}

/// Key of the advisory lock under which one worker at a time looks for ids that came late ("imaglate" in ASCII).
const LATE_LOCK: i64 = 0x696d_6167_6c61_7465;

/// Cells that failed because it was not known whether they were paid for, by task; none where another worker looks just now. A
/// task whose last moment is over takes nothing up again.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_unknown(connection: &mut PgConnection, limit: i64) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
    let is_ours: bool =
        sqlx::query_scalar("select pg_try_advisory_xact_lock($1)").bind(LATE_LOCK).fetch_one(&mut *connection).await?;
    if !is_ours {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "select s.task_id, s.id from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
         where s.error_kind = 'unknown_submit' and not t.is_deleted and not t.is_alone
           and (t.not_after is null or t.not_after > now())
         order by s.task_id limit $1",
    )
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// One attempt of a cell was surely not billed after all: it is not counted.
///
/// # Errors
/// What PostgreSQL says.
pub async fn uncount_attempt(connection: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update imagemill.subtasks set attempt_count = attempt_count - 1, updated_at = now() where id = $1 and attempt_count > 0",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// A cell's task and that task's owner, with the cell's row locked; none: there is no such cell.
///
/// # Errors
/// What PostgreSQL says.
pub async fn lock_cell(connection: &mut PgConnection, id: Uuid) -> Result<Option<(Uuid, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "select t.id, t.user_id from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
         where s.id = $1 for update of s",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}
