//! Deleting tasks that ended long ago, so that the database does not grow for ever. What was paid for stays as sums.
//!
//! A task goes in many short transactions, its row last, and each of them may be the last one that is made: the next purge goes
//! on. The rows of the ledger and the sums of these very rows are changed together, or not at all.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError};
use crate::{
    crud::{
        audit::{self, NewAudit},
        purge::{self, EndedTask},
        spend_sums::{self, Spent},
    },
    models::{
        Permission,
        payload::{CompleteTask, GenerateImage},
    },
    queue::{self, SpentSum},
};

/// Cells of one transaction: with attempts and jobs, some tens of milliseconds.
const CELLS: i64 = 500;
/// Tasks that are looked up at once.
const TASKS: i64 = 100;

/// What to purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// Tasks that ended so long ago, or longer.
    pub older_than: Duration,
    /// Everybody's, not only one's own.
    pub everybody: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// What was purged; after a dry run what would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Purged {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Tasks.
    pub tasks: u64,
    /// Cells; after a dry run those that the tasks began with.
    pub cells: u64,
    /// Rows of the ledger; none after a dry run.
    pub attempts: u64,
    /// Finished jobs that had not been pruned yet; none after a dry run.
    pub jobs: u64,
    /// Tasks that were left, and why; after a dry run those that would be.
    pub left: Vec<LeftTask>,
}

/// A task that could not be purged.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeftTask {
    /// The task.
    pub id: Uuid,
    /// Why, in words.
    pub why: &'static str,
}

const IS_OPEN: &str = "it is open, or its upstream may still be working: another purge takes it later";

/// Purges tasks that ended long ago: cells, attempts, remarks, favourites and finished jobs. One's own need `manage_own`,
/// everybody's `manage_any`. Kept pictures stay where they are.
///
/// It may be cut short at any point: what is gone is in the sums, and the next purge goes on with the rest.
///
/// # Errors
/// See [`ServiceError`]; what is gone by then is gone.
pub async fn purge_tasks(context: &Context, actor: &Actor, what: Purge) -> Result<Purged, ServiceError> {
    actor.require(if what.everybody { Permission::ManageAny } else { Permission::ManageOwn })?;
    let owner = (!what.everybody).then_some(actor.id);
    if context.settings.database.pooler {
        // Many transactions on one session.
        let way_out = "task purge needs PostgreSQL itself, and database.pooler says that a pooler stands between: \
                       for this command set DATABASE_URL to the server, and IMAGEMILL_DATABASE__POOLER=false";
        return Err(ServiceError::Usage(way_out.to_owned()));
    }
    let mut connection = context.reader().await?;
    let before = purge::time_ago(&mut connection, what.older_than).await?;
    let mut purged = Purged { dry_run: what.dry_run, ..Purged::default() };
    let mut after = Uuid::nil();
    loop {
        let tasks = purge::get_ended(&mut connection, owner, before, after, TASKS).await?;
        let Some(last) = tasks.last() else { return Ok(purged) };
        after = last.id;
        for task in tasks {
            let is_taken = if what.dry_run {
                count_task(&mut connection, &task, before, &mut purged).await?
            } else {
                purge_task(&mut connection, actor, &task, before, &mut purged).await?
            };
            if !is_taken {
                purged.left.push(LeftTask { id: task.id, why: IS_OPEN });
            }
        }
    }
}

/// Counts one task that would be purged now. False: it would be left.
async fn count_task(
    connection: &mut PgConnection,
    task: &EndedTask,
    before: DateTime<Utc>,
    purged: &mut Purged,
) -> Result<bool, ServiceError> {
    if is_at_work(connection, task).await? {
        return Ok(false);
    }
    let in_flight = queue::cells_in_flight(connection).await?;
    let is_taken = purge::may_hide(connection, task.id, before, &in_flight).await?;
    if is_taken {
        purged.tasks += 1;
        purged.cells += u64::from(task.total_images.unsigned_abs());
    }
    Ok(is_taken)
}

/// Whether a job of the task is open.
async fn is_at_work(connection: &mut PgConnection, task: &EndedTask) -> Result<bool, ServiceError> {
    let queues = [GenerateImage::QUEUE.to_owned(), CompleteTask::QUEUE.to_owned()];
    Ok(queue::any_open(connection, &queues, Some(&task.id.to_string())).await?)
}

/// Purges one task. False: it was left.
async fn purge_task(
    connection: &mut PgConnection,
    actor: &Actor,
    task: &EndedTask,
    before: DateTime<Utc>,
    purged: &mut Purged,
) -> Result<bool, ServiceError> {
    if !hide(connection, actor, task, before).await? {
        return Ok(false);
    }
    let mut after = -1;
    loop {
        let cells = purge::get_cells(connection, task.id, after, CELLS).await?;
        let Some((last, _)) = cells.last() else { break };
        after = *last;
        let ids: Vec<Uuid> = cells.into_iter().map(|(_, id)| id).collect();
        if !delete_cells(connection, task, &ids, purged).await? {
            return Ok(false);
        }
    }
    let mut transaction = connection.begin().await?;
    let completions: Vec<String> = (1..=task.round).map(|round| CompleteTask::key(task.id, round)).collect();
    let jobs = queue::delete_ended(&mut transaction, CompleteTask::QUEUE, &completions).await?;
    // Another purge at the same time may have been first: then it is the one that counts it.
    let is_ours = purge::delete_task(&mut transaction, task.id).await?;
    transaction.commit().await?;
    purged.jobs += jobs;
    purged.tasks += u64::from(is_ours);
    tracing::info!(task = %task.id, by = %actor.username, "task purged");
    Ok(true)
}

/// Hides the task and writes the purge into the audit, before anything of it goes. False: it is to be left.
async fn hide(
    connection: &mut PgConnection,
    actor: &Actor,
    task: &EndedTask,
    before: DateTime<Utc>,
) -> Result<bool, ServiceError> {
    let mut transaction = connection.begin().await?;
    if is_at_work(&mut transaction, task).await? {
        return Ok(false);
    }
    let in_flight = queue::cells_in_flight(&mut transaction).await?;
    if !purge::hide(&mut transaction, task.id, before, &in_flight).await? {
        return Ok(false);
    }
    let subject = format!("task/{}", task.id);
    let action =
        NewAudit { who: &actor.username, what: "purge_tasks", subject: &subject, old_value: Some(json!(task)), new_value: None };
    audit::insert(&mut transaction, &action).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Deletes some cells with their jobs and their ledger, whose sums it keeps, in one transaction. False: the task is not hidden
/// any more, or a cell is open again; nothing was changed.
async fn delete_cells(
    connection: &mut PgConnection,
    task: &EndedTask,
    ids: &[Uuid],
    purged: &mut Purged,
) -> Result<bool, ServiceError> {
    let mut transaction = connection.begin().await?;
    let keys: Vec<String> = ids.iter().map(|id| GenerateImage::key(*id)).collect();
    let jobs = queue::delete_ended(&mut transaction, GenerateImage::QUEUE, &keys).await?;
    if purge::lock_cells(&mut transaction, ids).await? > 0 {
        return Ok(false);
    }
    let sums = queue::delete_attempts(&mut transaction, ids).await?;
    let attempts: i64 = sums.iter().map(|sum| sum.attempts).sum();
    let cells = purge::delete_cells(&mut transaction, ids).await?;
    if !purge::is_hidden(&mut transaction, task.id).await? {
        return Ok(false);
    }
    let spent: Vec<Spent> = sums.into_iter().map(spent).collect();
    spend_sums::add(&mut transaction, task.user_id, task.id, &spent).await?;
    transaction.commit().await?;
    purged.jobs += jobs;
    purged.cells += cells;
    purged.attempts += attempts.unsigned_abs();
    Ok(true)
}

fn spent(sum: SpentSum) -> Spent {
    Spent { day: sum.day, lane: sum.lane, accepted: sum.accepted, unknown: sum.unknown }
}
