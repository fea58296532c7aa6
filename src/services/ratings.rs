//! Rating pictures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError};
use crate::{
    crud::{ratings, tasks},
    models::{Fault, Faults, status::Status},
};

/// What the page of a grid exports, and `task rate --from` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatingFile {
    /// The task.
    pub task_id: Uuid,
    /// Of cells of it.
    pub ratings: Vec<CellRating>,
}

/// The rating of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellRating {
    /// Its ordinal in the task, from 0.
    pub cell: i32,
    /// 1 to 5; none takes the rating away.
    #[serde(deserialize_with = "needed")]
    pub rating: Option<i16>,
}

/// Null says that a rating is to go; where nothing is said, something was forgotten.
fn needed<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i16>, D::Error> {
    Option::deserialize(deserializer)
}

/// Rates cells of a task: all of them, or none where anything is wrong. One's own need `manage_own`, others' `manage_any`.
/// Returns how many cells it is.
///
/// # Errors
/// [`ServiceError::Input`] has every fault: a rating that is not 1 to 5, a cell that comes twice, that is not there, or that has
/// no picture.
pub async fn rate_task(context: &Context, actor: &Actor, task_id: Uuid, given: &[CellRating]) -> Result<u64, ServiceError> {
    let mut transaction = context.begin().await?;
    let task = tasks::get(&mut transaction, task_id).await?;
    let task = task.ok_or_else(|| ServiceError::NotFound { what: "task", id: task_id.to_string() })?;
    actor.require_manage(task.user_id)?;
    let cells: Vec<i32> = given.iter().map(|rating| rating.cell).collect();
    let found: BTreeMap<i32, Status> = ratings::lock_cells(&mut transaction, task_id, &cells).await?.into_iter().collect();
    let faults = faults(given, &found, task.total_images);
    if !faults.is_empty() {
        return Err(Faults(faults).into());
    }
    let rated: Vec<(i32, Option<i16>)> = given.iter().map(|rating| (rating.cell, rating.rating)).collect();
    let changed = ratings::set_many(&mut transaction, task_id, &rated).await?;
    transaction.commit().await?;
    Ok(changed)
}

fn faults(given: &[CellRating], found: &BTreeMap<i32, Status>, total_images: i32) -> Vec<Fault> {
    let mut seen = BTreeMap::new();
    let mut faults = Vec::new();
    for (place, CellRating { cell, rating }) in given.iter().enumerate() {
        let mut fault = |key: &str, message: String| faults.push(Fault { path: format!("ratings[{place}].{key}"), message });
        if rating.is_some_and(|rating| !(1..=5).contains(&rating)) {
            fault("rating", format!("{} is none: 1 to 5, or null", rating.unwrap_or_default()));
        }
        if let Some(first) = seen.insert(*cell, place) {
            fault("cell", format!("{cell} stands in ratings[{first}] already"));
        }
        match found.get(cell) {
            None => fault("cell", format!("{cell} is not there: the task has the cells 0 to {}", total_images - 1)),
            Some(Status::Completed) => {}
            Some(status) => fault("cell", format!("{cell} is {status} and has no picture")),
        }
    }
    faults
}
