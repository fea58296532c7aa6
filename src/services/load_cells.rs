//! What is known of cells when their runs begin. Cells that were claimed together are loaded by one statement; what their
//! tasks have in common is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    crud::subtasks::{self, RunRow},
    models::{self, Prompt, status::Status},
    queue::{
        Connections, LockWait, QueueError,
        group::{Group, GroupWork},
        ledger::{self, Past},
    },
};

/// Tasks whose prompts are kept; a worker runs cells of a few at a time.
const KEPT_TASKS: usize = 256;

/// A task's prompts, or why they are none.
pub(super) type Prompts = Arc<Result<Vec<Prompt>, String>>;

/// A cell to be run.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) row: RunRow,
    pub(super) prompts: Prompts,
    pub(super) past: Past,
}

/// Which cell, and whether it may have a past: at its job's first claim it has none.
pub(super) type Wanted = (Uuid, bool);

/// Loads cells in groups. Cheap to clone; it begins with its first use.
#[derive(Clone, Default)]
pub struct CellLoader {
    group: Arc<OnceLock<Group<LoadCells>>>,
}

impl CellLoader {
    /// Loads a cell; none: there is no such cell.
    pub(super) async fn load(&self, connections: &Connections, wanted: Wanted) -> Result<Option<Found>, QueueError> {
        let group =
            self.group.get_or_init(|| Group::start(LoadCells { connections: connections.clone(), prompts: Mutex::default() }));
        group.join(wanted).await
    }
}

struct LoadCells {
    connections: Connections,
    prompts: Mutex<HashMap<Uuid, Prompts>>,
}

#[async_trait]
impl GroupWork for LoadCells {
    type Member = Wanted;
    type Answer = Option<Found>;
    const WHAT: &'static str = "cells were not loaded";

    async fn work(&self, wanted: &[Wanted], _: LockWait) -> Result<Vec<Option<Found>>, QueueError> {
        let mut found = self.connections.statement(async |connection| self.read(connection, wanted).await).await?;
        Ok(wanted.iter().map(|(cell, _)| found.remove(cell)).collect())
    }
}

impl LoadCells {
    async fn read(&self, connection: &mut PgConnection, wanted: &[Wanted]) -> Result<HashMap<Uuid, Found>, QueueError> {
        let cells: Vec<Uuid> = wanted.iter().map(|(cell, _)| *cell).collect();
        let kept: Vec<Uuid> = self.lock().keys().copied().collect();
        let mut rows = subtasks::get_to_run(connection, &cells, &kept).await?;
        let prompts = self.prompts_of(&mut rows);
        let may_have_past = |row: &RunRow| {
            // The job of a retried cell may be a new one, whose first claim this is.
            let has_past = row.status != Status::Pending || row.retry.round.is_some();
            has_past || wanted.iter().any(|(cell, may_have_past)| *cell == row.id && *may_have_past)
        };
        let rounds: Vec<(Uuid, i32)> = rows.iter().filter(|row| may_have_past(row)).map(|row| (row.id, row.round)).collect();
        let mut pasts = if rounds.is_empty() { HashMap::new() } else { ledger::pasts(connection, &rounds).await? };
        let found = rows.into_iter().filter_map(|row| {
            let past = pasts.remove(&row.id).unwrap_or_default();
            let prompts = Arc::clone(prompts.get(&row.task_id)?);
            Some((row.id, Found { row, prompts, past }))
        });
        Ok(found.collect())
    }

    /// The prompts of these cells' tasks: read once a task, since they never change.
    fn prompts_of(&self, rows: &mut [RunRow]) -> HashMap<Uuid, Prompts> {
        let read = |row: &mut RunRow| {
            let prompts =
                models::validate_prompts(&row.prompts.take()?).map_err(|faults| format!("the task's prompts: {faults}"));
            Some((row.task_id, Arc::new(prompts)))
        };
        let mut prompts: HashMap<Uuid, Prompts> = rows.iter_mut().filter_map(read).collect();
        let mut kept = self.lock();
        let before = rows.iter().filter_map(|row| Some((row.task_id, Arc::clone(kept.get(&row.task_id)?))));
        let before: Vec<(Uuid, Prompts)> = before.collect();
        if kept.len() + prompts.len() > KEPT_TASKS {
            kept.clear();
        }
        kept.extend(prompts.iter().map(|(task, prompts)| (*task, Arc::clone(prompts))));
        prompts.extend(before);
        prompts
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Prompts>> {
        self.prompts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
