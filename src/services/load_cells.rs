//! What is known of cells when their runs begin. Cells that were claimed together are loaded by one statement; what their
//! tasks have in common is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::time::Instant;
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

/// Values of prompts that are kept, of all tasks together: some ten MB at most. Where a thousand tasks share a lane each claim is of
/// as many tasks as cells, and reading their prompts anew cost a worker a seventh of its time.
const KEPT_VALUES: usize = 100_000;

/// A task's prompts, or why they are none.
pub(super) type Prompts = Arc<Result<Vec<Prompt>, String>>;

/// A cell to be run.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) row: RunRow,
    pub(super) prompts: Prompts,
    pub(super) past: Past,
    /// When it was asked for: what the row says is left of a time counts from here, so that nobody waits too long.
    pub(super) asked: Instant,
}

/// A cell to be loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) cell: Uuid,
    /// Its task, where its job says it.
    pub(super) task: Option<Uuid>,
    /// Whether it may have a past: at its job's first claim it has none.
    pub(super) may_have_past: bool,
}

/// Loads cells in groups. Cheap to clone; it begins with its first use.
#[derive(Clone, Default)]
pub struct CellLoader {
    group: Arc<OnceLock<Group<LoadCells>>>,
}

impl CellLoader {
    /// Loads a cell; none: there is no such cell.
    pub(super) async fn load(&self, connections: &Connections, wanted: Wanted) -> Result<Option<Found>, QueueError> {
        let group =
            self.group.get_or_init(|| Group::start(LoadCells { connections: connections.clone(), kept: Mutex::default() }));
        group.join(wanted).await
    }
}

struct LoadCells {
    connections: Connections,
    kept: Mutex<Kept>,
}

/// Prompts by task, and how many values they have.
#[derive(Default)]
struct Kept {
    prompts: HashMap<Uuid, Prompts>,
    values: usize,
}

impl Kept {
    /// Of the tasks of these cells, as far as their jobs say which they are.
    fn of(&self, wanted: &[Wanted]) -> HashMap<Uuid, Prompts> {
        let tasks = wanted.iter().filter_map(|wanted| wanted.task);
        tasks.filter_map(|task| Some((task, Arc::clone(self.prompts.get(&task)?)))).collect()
    }

    fn keep(&mut self, prompts: &HashMap<Uuid, Prompts>) {
        if prompts.is_empty() {
            // As after most loads. What came together may be more than is kept, and stays until something else comes.
            return;
        }
        let values: usize = prompts.values().map(values).sum();
        if self.values + values > KEPT_VALUES {
            *self = Self::default();
        }
        for (task, prompts) in prompts {
            if self.prompts.insert(*task, Arc::clone(prompts)).is_none() {
                self.values += self::values(prompts);
            }
        }
    }
}

fn values(prompts: &Prompts) -> usize {
    let of = |prompt: &Prompt| match prompt {
        Prompt::Constant(_) => 1,
        Prompt::Variable(axis) => axis.values.len(),
    };
    prompts.as_ref().as_ref().map_or(1, |prompts| prompts.iter().map(of).sum())
}

#[async_trait]
impl GroupWork for LoadCells {
    type Member = Wanted;
    type Answer = Option<Found>;
    const WHAT: &'static str = "cells were not loaded";

    async fn work(&self, wanted: &[Wanted], _: LockWait) -> Result<Vec<Option<Found>>, QueueError> {
        let mut found = self.connections.statement(async |connection| self.read(connection, wanted).await).await?;
        Ok(wanted.iter().map(|wanted| found.remove(&wanted.cell)).collect())
    }
}

impl LoadCells {
    async fn read(&self, connection: &mut PgConnection, wanted: &[Wanted]) -> Result<HashMap<Uuid, Found>, QueueError> {
        let asked = Instant::now();
        let cells: Vec<Uuid> = wanted.iter().map(|wanted| wanted.cell).collect();
        let mut prompts = self.lock().of(wanted);
        let mut rows = subtasks::get_to_run(connection, &cells, &prompts.keys().copied().collect::<Vec<_>>()).await?;
        prompts.extend(self.read_prompts(&mut rows));
        let may_have_past = |row: &RunRow| {
            // The job of a retried cell may be a new one, whose first claim this is.
            let has_past = row.status != Status::Pending || row.retry.round.is_some();
            has_past || wanted.iter().any(|wanted| wanted.cell == row.id && wanted.may_have_past)
        };
        let rounds: Vec<(Uuid, i32)> = rows.iter().filter(|row| may_have_past(row)).map(|row| (row.id, row.round)).collect();
        let mut pasts = if rounds.is_empty() { HashMap::new() } else { ledger::pasts(connection, &rounds).await? };
        let found = rows.into_iter().filter_map(|row| {
            let past = pasts.remove(&row.id).unwrap_or_default();
            let prompts = Arc::clone(prompts.get(&row.task_id)?);
            Some((row.id, Found { row, prompts, past, asked }))
        });
        Ok(found.collect())
    }

    /// Prompts that came with these cells. They never change, so they are kept.
    fn read_prompts(&self, rows: &mut [RunRow]) -> HashMap<Uuid, Prompts> {
        let read = |row: &mut RunRow| {
            let prompts =
                models::validate_prompts(&row.prompts.take()?).map_err(|faults| format!("the task's prompts: {faults}"));
            Some((row.task_id, Arc::new(prompts)))
        };
        let prompts: HashMap<Uuid, Prompts> = rows.iter_mut().filter_map(read).collect();
        self.lock().keep(&prompts);
        prompts
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
