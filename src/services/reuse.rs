//! A task's input, to be used again.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::crud::manifest;

/// The input of a task as JSON, ready for a new one: the same grid, without the idempotency key, under which there would be none.
/// Needs `view_results`. A seed that was drawn is drawn anew.
///
/// # Errors
/// See [`ServiceError`].
pub async fn reuse_task(context: &Context, actor: &Actor, id: Uuid) -> Result<Value, ServiceError> {
    task_service::get_task(context, actor, id).await?;
    let mut connection = context.reader().await?;
    let missing = || ServiceError::NotFound { what: "task", id: id.to_string() };
    let given = manifest::get_given(&mut connection, id).await?.ok_or_else(missing)?;
    let mut input = Map::new();
    input.insert("name".to_owned(), json!(given.name));
    input.insert("prompts".to_owned(), given.prompts);
    if let Value::Object(settings) = given.settings {
        input.extend(settings);
    }
    input.insert("priority".to_owned(), json!(given.priority));
    input.insert("make_api_queue".to_owned(), json!(given.lane));
    Ok(Value::Object(input))
}
