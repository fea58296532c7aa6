//! Deleting a task so that it can be had back. A purge is what deletes for good.

use serde_json::json;
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError};
use crate::crud::{
    audit::{self, NewAudit},
    deletion,
};

/// Deletes an ended task: nobody sees it any more, its rows stay until a purge, and what it cost stays in the sums. One's own need
/// `manage_own`, others' `manage_any`.
///
/// # Errors
/// [`ServiceError::Usage`] where it has not ended: its cells would go on, and be paid for.
pub async fn delete_task(context: &Context, actor: &Actor, id: Uuid) -> Result<(), ServiceError> {
    set_deleted(context, actor, id, true).await
}

/// Takes a deleted task back.
///
/// # Errors
/// [`ServiceError::Usage`] where a purge has begun with it.
pub async fn restore_task(context: &Context, actor: &Actor, id: Uuid) -> Result<(), ServiceError> {
    set_deleted(context, actor, id, false).await
}

async fn set_deleted(context: &Context, actor: &Actor, id: Uuid, is_deleted: bool) -> Result<(), ServiceError> {
    let missing = || ServiceError::NotFound { what: "task", id: id.to_string() };
    let mut transaction = context.begin().await?;
    let task = deletion::get(&mut transaction, id).await?.ok_or_else(missing)?;
    actor.require_manage(task.user_id)?;
    if task.is_deleted == is_deleted {
        return if is_deleted {
            Err(ServiceError::Deleted(id))
        } else {
            Err(ServiceError::Usage(format!("task {id} is not deleted")))
        };
    }
    let done =
        if is_deleted { deletion::delete(&mut transaction, id).await? } else { deletion::restore(&mut transaction, id).await? };
    if !done {
        let why = if is_deleted {
            format!(
                "task {id} is {} and would go on, and cost: only an ended task can be deleted; wait for its end, or cancel it",
                task.status
            )
        } else {
            format!("task {id} cannot be restored: a purge has begun with its cells")
        };
        return Err(ServiceError::Usage(why));
    }
    let subject = format!("task/{id}");
    let what = if is_deleted { "delete_task" } else { "restore_task" };
    let (old_value, new_value) = (Some(json!({ "is_deleted": !is_deleted })), Some(json!({ "is_deleted": is_deleted })));
    audit::insert(&mut transaction, &NewAudit { who: &actor.username, what, subject: &subject, old_value, new_value }).await?;
    transaction.commit().await?;
    tracing::info!(task = %id, by = %actor.username, what, "done");
    Ok(())
}
