//! What people say of pictures.

use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    crud::remarks::{self, RemarkRow},
    models::{Fault, Faults, Permission},
};

/// Most characters of a remark.
const MAX_CHARACTERS: usize = 2_000;

/// Adds a remark to a cell, and returns its id. Whoever may see a picture may say something of it.
///
/// # Errors
/// See [`ServiceError`].
pub async fn add_remark(context: &Context, actor: &Actor, task_id: Uuid, cell: i32, text: &str) -> Result<Uuid, ServiceError> {
    let task = task_service::get_task(context, actor, task_id).await?;
    if let Some(message) = fault(text) {
        return Err(Faults(vec![Fault { path: "remark".to_owned(), message }]).into());
    }
    let mut transaction = context.begin().await?;
    let id = Uuid::now_v7();
    if !remarks::insert(&mut transaction, id, task_id, cell, actor.id, text.trim()).await? {
        return Err(task_service::no_cell(&task, cell));
    }
    transaction.commit().await?;
    Ok(id)
}

/// Removes a remark: one's own, or with `manage_any` anybody's.
///
/// # Errors
/// See [`ServiceError`].
pub async fn remove_remark(context: &Context, actor: &Actor, task_id: Uuid, id: Uuid) -> Result<(), ServiceError> {
    task_service::get_task(context, actor, task_id).await?;
    let missing = || ServiceError::NotFound { what: "remark", id: id.to_string() };
    let mut transaction = context.begin().await?;
    let author = remarks::get_author(&mut transaction, task_id, id).await?.ok_or_else(missing)?;
    if author != actor.id {
        actor.require(Permission::ManageAny)?;
    }
    if !remarks::delete(&mut transaction, id).await? {
        return Err(missing());
    }
    transaction.commit().await?;
    Ok(())
}

/// The remarks on a task's cells, by cell and time; or on one of them.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_remarks(
    context: &Context,
    actor: &Actor,
    task_id: Uuid,
    cell: Option<i32>,
) -> Result<Vec<RemarkRow>, ServiceError> {
    let task = task_service::get_task(context, actor, task_id).await?;
    if let Some(cell) = cell.filter(|cell| !(0..task.total_images).contains(cell)) {
        return Err(task_service::no_cell(&task, cell));
    }
    let mut connection = context.reader().await?;
    let mut found = remarks::get_by_task(&mut connection, task_id).await?;
    found.retain(|remark| cell.is_none_or(|cell| remark.cell == cell));
    Ok(found)
}

fn fault(text: &str) -> Option<String> {
    let characters = text.chars().count();
    if text.trim().is_empty() {
        Some("must not be blank".to_owned())
    } else if text.contains('\0') {
        Some("must not hold a NUL".to_owned())
    } else if characters > MAX_CHARACTERS {
        Some(format!("{characters} characters are over the limit of {MAX_CHARACTERS}"))
    } else {
        None
    }
}
