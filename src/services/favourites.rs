//! The tasks that a user keeps at hand.

use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    crud::{
        favourites,
        tasks::{self, TaskRow},
    },
    models::Permission,
};

/// Keeps a task at hand, or lets go of it: everybody has favourites of their own. False: it was so already.
///
/// # Errors
/// See [`ServiceError`].
pub async fn set_favourite(context: &Context, actor: &Actor, task_id: Uuid, is_favourite: bool) -> Result<bool, ServiceError> {
    task_service::get_task(context, actor, task_id).await?;
    let mut transaction = context.begin().await?;
    let changed = if is_favourite {
        favourites::insert(&mut transaction, actor.id, task_id).await?
    } else {
        favourites::delete(&mut transaction, actor.id, task_id).await?
    };
    transaction.commit().await?;
    Ok(changed)
}

/// One's favourites, the latest first.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_favourites(context: &Context, actor: &Actor) -> Result<Vec<TaskRow>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let mut found = Vec::new();
    for id in favourites::get_by_user(&mut connection, actor.id).await? {
        // Deleted between the two looks: it is none any more.
        found.extend(tasks::get(&mut connection, id).await?);
    }
    Ok(found)
}
