//! The job `imagemill.generate_image`: one cell, one picture.
//!
//! Enqueued by `create_task`, one a cell, in the task's own transaction. Writes the cell's result, its rows of the ledger
//! and its task's counts. Ends done (a picture), failed (with a kind), cancelled, or goes back to wait. It may run twice,
//! because what it finds in the ledger says where to go on: an upstream id is polled, never submitted again.

use imagemill::{
    models::payload::GenerateImage,
    queue::{Engine, Job, Outcome},
    services::{context::Context, subtask_service},
};

/// Runs one cell.
pub(crate) async fn generate_image(payload: GenerateImage, job: Job, engine: Engine, context: Context) -> Outcome {
    subtask_service::run_cell(&context, &engine, &job, &payload).await
}
