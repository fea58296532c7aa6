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
    /// Its task, known before the cell is read; none in a job of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
}

impl GenerateImage {
    /// The queue's name.
    pub const QUEUE: &'static str = "imagemill.generate_image";

    /// The version that is written, and the newest that is read.
    pub const VERSION: u32 = 2;

    /// The payload for a cell of a task.
    pub fn new(subtask_id: Uuid, task_id: Uuid) -> Self {
        Self { version: Self::VERSION, subtask_id, task_id: Some(task_id) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cells_job_is_read_in_both_versions_and_written_in_the_newer() {
        let (cell, task) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let older = format!(r#"{{"version":1,"subtask_id":"{cell}"}}"#);
        let older: GenerateImage = serde_json::from_str(&older).unwrap();
        assert_eq!(older, GenerateImage { version: 1, subtask_id: cell, task_id: None });
        let newer = format!(r#"{{"version":2,"subtask_id":"{cell}","task_id":"{task}"}}"#);
        assert_eq!(serde_json::to_string(&GenerateImage::new(cell, task)).unwrap(), newer);
        assert_eq!(serde_json::from_str::<GenerateImage>(&newer).unwrap(), GenerateImage::new(cell, task));
    }
}
