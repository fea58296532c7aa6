//! Rating pictures.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    crud::ratings,
    models::{CellRating, Fault, Faults, RatingEntry, RatingFile, status::Status},
};

/// Rates cells of a task: all of them, or none where anything is wrong. One's own need `manage_own`, others' `manage_any`.
/// Returns how many cells it is.
///
/// # Errors
/// [`ServiceError::Input`] has every fault: a rating that is not 1 to 5, a cell that comes twice, that is not there, or that has
/// no picture.
pub async fn rate_task(context: &Context, actor: &Actor, task_id: Uuid, given: &[CellRating]) -> Result<u64, ServiceError> {
    let entries: Vec<RatingEntry> = given.iter().copied().enumerate().map(RatingEntry::from).collect();
    rate(context, actor, task_id, Vec::new(), &entries).await
}

/// The same with what was read from a file.
///
/// # Errors
/// [`ServiceError::Input`] has every fault, those of the file's form too.
pub async fn rate_file(context: &Context, actor: &Actor, task_id: Uuid, file: &RatingFile) -> Result<u64, ServiceError> {
    let mut faults = file.faults.clone();
    if let Some(other) = file.task_id.filter(|other| *other != task_id) {
        let message = format!("the file rates task {other}, and not {task_id}: name that one");
        faults.push(Fault { path: "task_id".to_owned(), message });
        // Whether its cells are there is of no interest here.
        faults.extend(file.entries.iter().flat_map(|entry| entry.faults.clone()));
        return Err(Faults(faults).into());
    }
    rate(context, actor, task_id, faults, &file.entries).await
}

async fn rate(
    context: &Context,
    actor: &Actor,
    task_id: Uuid,
    mut faults: Vec<Fault>,
    entries: &[RatingEntry],
) -> Result<u64, ServiceError> {
    let mut transaction = context.begin().await?;
    let task = task_service::get_or_say_why_not(&mut transaction, task_id).await?;
    actor.require_manage(task.user_id)?;
    let rated: Vec<(i32, Option<i16>)> = entries.iter().filter_map(|entry| Some((entry.cell?, entry.rating))).collect();
    let cells: Vec<i32> = rated.iter().map(|(cell, _)| *cell).collect();
    let found: BTreeMap<i32, Status> = ratings::lock_cells(&mut transaction, task_id, &cells).await?.into_iter().collect();
    faults.extend(faults_of(entries, &found, task.total_images));
    if !faults.is_empty() {
        return Err(Faults(faults).into());
    }
    let changed = ratings::set_many(&mut transaction, task_id, &rated).await?;
    transaction.commit().await?;
    Ok(changed)
}

fn faults_of(entries: &[RatingEntry], found: &BTreeMap<i32, Status>, total_images: i32) -> Vec<Fault> {
    let mut seen = BTreeMap::new();
    let mut faults = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        faults.extend(entry.faults.iter().cloned());
        let Some(cell) = entry.cell else { continue };
        let mut fault = |message: String| faults.push(Fault { path: format!("ratings[{place}].cell"), message });
        if let Some(first) = seen.insert(cell, place) {
            fault(format!("{cell} stands in ratings[{first}] already"));
        }
        match found.get(&cell) {
            None => fault(format!("{cell} is not there: the task has the cells 0 to {}", total_images - 1)),
            Some(Status::Completed) => {}
            Some(status) => fault(format!("{cell} is {status} and has no picture")),
        }
    }
    faults
}
