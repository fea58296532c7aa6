//! Attempts of which it is not known whether they were paid for: unknown is not the end.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    crud::{
        audit::{self, NewAudit},
        retries, subtasks,
    },
    models::Permission,
    queue::ledger,
};

pub use crate::queue::ledger::{Resolution, UnknownAttempt};

/// An unknown attempt, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedAttempt {
    /// The attempt.
    #[serde(flatten)]
    pub attempt: UnknownAttempt,
    /// The task of its cell.
    pub task: Uuid,
    /// The cell's 0-based ordinal in the task, as `task retry --cell` takes it.
    pub cell_number: i32,
}

/// Unknown attempts, oldest first; of one task, if one is named.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_unknown_attempts(
    context: &Context,
    actor: &Actor,
    task: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ListedAttempt>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let cells = match task {
        None => None,
        Some(task) => {
            task_service::get_or_say_why_not(&mut connection, task).await?;
            let cells = subtasks::get_by_task(&mut connection, task).await?;
            Some(cells.into_iter().map(|cell| cell.id).collect::<Vec<_>>())
        }
    };
    let unknown = ledger::unknown(&mut connection, cells.as_deref(), limit).await?;
    let ids: Vec<Uuid> = unknown.iter().map(|attempt| attempt.cell).collect();
    let places = subtasks::get_places(&mut connection, &ids).await?;
    // A task that is purged just now takes its cells and their attempts along.
    let listed = unknown.into_iter().filter_map(|attempt| {
        let (task, cell_number) = *places.get(&attempt.cell)?;
        Some(ListedAttempt { attempt, task, cell_number })
    });
    Ok(listed.collect())
}

/// Says of an unknown attempt what the upstream's bill says. With an id its cell, if it failed for it, is polled by a worker's next
/// sweep, and nothing is paid; not billed, it is not counted; billed, a retry pays again. The cell itself stays as it is. Returns
/// until when an answer may still come to what was said not to be billed: a retry waits for that.
///
/// # Errors
/// See [`ServiceError`]; nothing is changed then.
pub async fn resolve_attempt(
    context: &Context,
    actor: &Actor,
    cell: Uuid,
    ordinal: i32,
    resolution: &Resolution,
) -> Result<Option<DateTime<Utc>>, ServiceError> {
    let missing = || ServiceError::NotFound { what: "unknown attempt", id: format!("{cell}/{ordinal}") };
    let said = match resolution {
        Resolution::UpstreamId(id) => {
            // As the submit reads them: it goes into a path.
            if id.is_empty() || id.len() > 200 || !id.chars().all(|character| character.is_ascii_graphic()) {
                return Err(ServiceError::Usage(format!("{id:?} is no upstream id: 1 to 200 printable characters, no space")));
            }
            json!({ "upstream_id": id })
        }
        Resolution::NotBilled => json!({ "billed": false }),
        Resolution::Billed => json!({ "billed": true }),
    };
    let mut transaction = context.begin().await?;
    let (_, owner) = retries::lock_cell(&mut transaction, cell).await?.ok_or_else(missing)?;
    actor.require_manage(owner)?;
    if let Resolution::UpstreamId(id) = resolution
        && let Some((other, number)) = ledger::holder_of(&mut transaction, cell, ordinal, id).await?
    {
        return Err(ServiceError::Usage(format!("{id} is the id of attempt {other}/{number}: one picture is not two cells'")));
    }
    let note = format!("resolved by {}", actor.username);
    if !ledger::resolve(&mut transaction, cell, ordinal, resolution, &note).await? {
        return Err(missing());
    }
    let mut answer_until = None;
    if *resolution == Resolution::NotBilled {
        retries::uncount_attempt(&mut transaction, cell).await?;
        answer_until = ledger::answer_until(&mut transaction, cell, ordinal).await?;
    }
    let subject = format!("subtask/{cell}");
    let action = NewAudit {
        who: &actor.username,
        what: "resolve_attempt",
        subject: &subject,
        old_value: Some(json!({ "ordinal": ordinal, "state": "unknown" })),
        new_value: Some(said),
    };
    audit::insert(&mut transaction, &action).await?;
    transaction.commit().await?;
    Ok(answer_until)
}
