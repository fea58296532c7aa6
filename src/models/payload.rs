//! What a job carries: ids, and the version of its own form. The queue names never change meaning and are never renamed.
//!
//! Old and new workers drain one queue together. So a form that changes gets a higher `VERSION`, whose jobs older workers leave
//! to newer ones, and goes on reading every version before it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One cell of a task: make its picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerateImage {
    /// Version of this form.
    pub version: u32,
    /// The cell.
    pub subtask_id: Uuid,
}

impl GenerateImage {
    /// The queue's name.
    pub const QUEUE: &'static str = "imagemill.generate_image";

    /// The version that is written, and the newest that is read.
    pub const VERSION: u32 = 1;

    /// The payload for a cell.
    pub fn new(subtask_id: Uuid) -> Self {
        Self { version: Self::VERSION, subtask_id }
    }

    /// The job's idempotency key: the cell's id.
    pub fn key(subtask_id: Uuid) -> String {
        subtask_id.to_string()
    }
}

/// One round of a task: roll it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteTask {
    /// Version of this form.
    pub version: u32,
    /// The task.
    pub task_id: Uuid,
    /// The round that ended.
    pub round: i32,
}

impl CompleteTask {
    /// The queue's name.
    pub const QUEUE: &'static str = "imagemill.complete_task";

    /// The version that is written, and the newest that is read.
    pub const VERSION: u32 = 1;

    /// The payload for a round of a task.
    pub fn new(task_id: Uuid, round: i32) -> Self {
        Self { version: Self::VERSION, task_id, round }
    }

    /// The job's idempotency key: one completion a round.
    pub fn key(task_id: Uuid, round: i32) -> String {
        format!("{task_id}:{round}")
    }
}
