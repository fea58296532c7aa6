//! The hook of `imagemill.complete_task`: the roll-up, in the transaction that acknowledges its job.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    crud::{
        task_counts::{self, Counts},
        tasks,
    },
    models::status::Status,
    queue::{Job, Moved, Opened, Outcome, QueueError, Settle, Verdict, ledger::Submit},
};

/// The hook of `imagemill.complete_task`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TaskHook;

#[async_trait]
impl Settle for TaskHook {
    async fn open_cells(&self, _: &mut PgConnection, _: &[&(Job, Submit)]) -> Result<Opened, QueueError> {
        // A completion submits nothing.
        Ok(Opened::default())
    }

    async fn open_groups(&self, _: &mut PgConnection, _: &[String]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn settle_cells(&self, _: &mut PgConnection, _: &[&(Job, Outcome)]) -> Result<Vec<Moved>, QueueError> {
        Ok(Vec::new())
    }

    async fn settle_groups(
        &self,
        connection: &mut PgConnection,
        settles: &[&(Job, Outcome)],
        _: &[Moved],
        _: &BTreeMap<String, i64>,
    ) -> Result<(), QueueError> {
        let mut rounds = Vec::with_capacity(settles.len());
        for (job, outcome) in settles {
            if outcome.verdict != Verdict::Done {
                continue;
            }
            let key = job.key.split_once(':').and_then(|(task, round)| Some((Uuid::parse_str(task).ok()?, round.parse().ok()?)));
            let Some(round) = key else {
                let message = "the key is not `task:round`".to_owned();
                return Err(QueueError::Hook { queue: job.queue.to_string(), key: job.key.clone(), message });
            };
            rounds.push(round);
        }
        // In the order of the ids, as everybody locks the counts.
        rounds.sort_unstable();
        for (task_id, round) in rounds {
            roll_up(connection, task_id, round).await?;
        }
        Ok(())
    }
}

/// Counts the rows, and writes the end of the round where no cell is open and the round is still the task's.
async fn roll_up(connection: &mut PgConnection, task_id: Uuid, round: i32) -> Result<(), sqlx::Error> {
    // This locks the counts: no settle of a cell of this task, no cancel and no retry is under way from here on.
    let Some((before, counts)) = task_counts::update_progress(connection, task_id).await? else {
        tracing::warn!(task = %task_id, "a completion without its task: it was purged");
        return Ok(());
    };
    let Some(task) = tasks::get_round(connection, task_id).await? else { return Ok(()) };
    if task.round != round {
        tracing::info!(task = %task_id, round, now = task.round, "a retry began another round: nothing to roll up");
        return Ok(());
    }
    if before != counts {
        tracing::error!(task = %task_id, ?before, ?counts, "the counts were wrong and have been put right");
    }
    if counts.processed_images() < task.total_images {
        tracing::warn!(task = %task_id, round, "cells are still open: not rolled up");
        return Ok(());
    }
    let status = end_of(counts, task.is_cancel_requested);
    if tasks::roll_up(connection, task_id, round, status).await? {
        tracing::info!(task = %task_id, round, %status, completed = counts.completed_subtasks, failed = counts.failed_subtasks,
            cancelled = counts.cancelled_subtasks, "task rolled up");
    }
    Ok(())
}

/// How a task without open cells ends (design, section 6).
fn end_of(counts: Counts, is_cancel_requested: bool) -> Status {
    if is_cancel_requested && counts.cancelled_subtasks > 0 {
        Status::Cancelled
    } else if counts.completed_subtasks > 0 {
        Status::Completed
    } else if counts.cancelled_subtasks == counts.processed_images() {
        Status::Cancelled
    } else {
        Status::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_task_follows_its_cells() {
        let table = [
            // completed, failed, cancelled, cancel asked for, end
            (3, 0, 0, false, Status::Completed),
            (1, 2, 0, false, Status::Completed),
            (0, 3, 0, false, Status::Failed),
            (0, 0, 3, false, Status::Cancelled),
            (0, 1, 2, false, Status::Failed),
            (1, 0, 2, false, Status::Completed),
            (1, 0, 2, true, Status::Cancelled),
            (0, 1, 2, true, Status::Cancelled),
            // It was asked for too late: nothing was cancelled.
            (3, 0, 0, true, Status::Completed),
            (0, 3, 0, true, Status::Failed),
        ];
        for (completed_subtasks, failed_subtasks, cancelled_subtasks, asked, end) in table {
            let counts = Counts { completed_subtasks, failed_subtasks, cancelled_subtasks, ..Counts::default() };
            assert_eq!(end_of(counts, asked), end, "{counts:?} {asked}");
        }
    }
}
