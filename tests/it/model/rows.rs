//! What is compared: the tables, as far as the model knows them.

use std::collections::BTreeMap;

use imagemill::queue::Verdict;
use serde::Deserialize;
use uuid::Uuid;

/// A row of `apalis.jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct JobRow {
    pub(super) key: String,
    pub(super) queue: String,
    pub(super) status: String,
    pub(super) worker: Option<String>,
    pub(super) claim: i32,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CellRow {
    pub(super) status: String,
    pub(super) attempt_count: i32,
    pub(super) error_kind: Option<String>,
    pub(super) is_cancel_requested: bool,
}

/// An attempt; its ordinal is its place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct AttemptRow {
    pub(super) state: String,
    pub(super) claim: i32,
    pub(super) worker: String,
    pub(super) upstream_id: Option<String>,
}

impl AttemptRow {
    pub(super) fn is_open(&self) -> bool {
        ["submitting", "accepted"].contains(&self.state.as_str())
    }
}

/// Completed, failed and cancelled cells, and the task's own state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct TaskData {
    pub(super) completed: i32,
    pub(super) failed: i32,
    pub(super) cancelled: i32,
    pub(super) status: String,
}

/// All that is compared with the tables.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Tables {
    pub(super) jobs: BTreeMap<String, JobRow>,
    pub(super) cells: BTreeMap<Uuid, CellRow>,
    pub(super) attempts: BTreeMap<Uuid, Vec<AttemptRow>>,
    pub(super) task: TaskData,
    pub(super) stale_writes: i64,
}

/// Whether a cell or a task in this state goes on.
pub(super) fn is_open(status: &str) -> bool {
    ["pending", "processing"].contains(&status)
}

/// The state of a job after this verdict.
pub(super) fn status_after(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Done => "Done",
        Verdict::Failed => "Failed",
        Verdict::Cancelled => "Killed",
        _ => "Pending",
    }
}
