//! `imagemill task show`: a task and its cells.

use std::io::Write;

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure, summary::counted, table::table};
use crate::{
    crud::{subtasks::SubtaskRow, tasks::TaskRow},
    services::{actor::Actor, context::Context, grid_service, subtask_service, task_progress, task_service},
};

/// Cells that are shown unless all are asked for.
const MOST_CELLS: usize = 200;

/// Characters of a value of an axis, as in the views.
const VALUE_CHARACTERS: usize = 60;

/// Prints a task, its counts and its cells: of many the first ones, unless all are asked for.
pub async fn show(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    all: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let task = task_service::get_task(context, actor, id).await?;
    let outcomes = task_progress::get_outcomes(context, actor, id).await?;
    let cells = subtask_service::list_subtasks(context, actor, id).await?;
    if json {
        return output::json(&json!({ "task": task, "outcomes": outcomes, "cells": cells }), out);
    }
    output::text(&head(&task), out)?;
    let counts = outcomes
        .iter()
        .map(|row| [row.status.to_string(), row.error_kind.clone().unwrap_or_else(|| "-".to_owned()), row.cells.to_string()]);
    output::text(&format!("{}\n", table(["STATUS", "WHY", "CELLS"], counts)), out)?;
    let axes: Vec<(String, Vec<String>)> = grid_service::get_axes(context, actor, id)
        .await?
        .iter()
        .map(|axis| {
            (axis.name.clone(), axis.labels().iter().map(|label| label.chars().take(VALUE_CHARACTERS).collect()).collect())
        })
        .collect();
    let shown = if all { cells.len() } else { cells.len().min(MOST_CELLS) };
    output::text(&cells_table(&cells[..shown], &axes), out)?;
    if shown < cells.len() {
        output::note(&format!(
            "the first {shown} of {}; --all shows every one, the view subtask_details those that you ask for",
            counted(cells.len(), "cell")
        ));
    }
    Ok(())
}

/// Where a cell stands: name and value of each axis.
fn position(cell: &SubtaskRow, axes: &[(String, Vec<String>)]) -> String {
    let values = cell.variable_indices.iter().zip(axes).map(|(index, (name, labels))| {
        let label = usize::try_from(*index).ok().and_then(|index| labels.get(index));
        format!("{name}={}", label.map_or("", String::as_str))
    });
    values.collect::<Vec<_>>().join(", ")
}

fn head(task: &TaskRow) -> String {
    let time = |time: Option<_>| time.map_or_else(|| "-".to_owned(), output::time);
    let lines = [
        ("task", task.id.to_string()),
        ("name", task.name.replace(char::is_control, " ")),
        ("owner", task.owner.clone()),
        ("status", task.status.to_string()),
        ("round", round(task)),
        ("priority", task.priority.to_string()),
        ("lane", task.lane.clone().unwrap_or_else(|| "by cell".to_owned())),
        ("ended", format!("{} of {} cells ({}%)", task.processed_images(), task.total_images, task.progress())),
        ("budget", task.bounds.max_submits.map_or_else(|| "-".to_owned(), |limit| format!("{limit} submits"))),
        ("not before", time(task.bounds.not_before)),
        ("not after", time(task.bounds.not_after)),
        ("created", output::time(task.created_at)),
        ("started", time(task.started_at)),
        ("completed", time(task.completed_at)),
    ];
    lines.map(|(name, value)| format!("{name:10} {value}\n")).concat()
}

/// Its round, and since when, where that is not since its start.
fn round(task: &TaskRow) -> String {
    match task.round_started_at {
        Some(since) if task.round > 1 => format!("{}, since {}", task.round, output::time(since)),
        _ => task.round.to_string(),
    }
}

fn cells_table(cells: &[SubtaskRow], axes: &[(String, Vec<String>)]) -> String {
    let rows = cells.iter().map(|cell| {
        let what = match (&cell.error_kind, &cell.error, &cell.result_file, &cell.result) {
            (Some(kind), Some(error), ..) => format!("{kind}: {error}"),
            (Some(kind), None, ..) => kind.clone(),
            (None, _, Some(file), _) => file.clone(),
            (None, _, None, Some(url)) => url.clone(),
            (None, Some(error), None, None) => error.clone(),
            (None, None, None, None) => "-".to_owned(),
        };
        [
            cell.cell.to_string(),
            position(cell, axes),
            cell.status.to_string(),
            cell.lane.clone(),
            cell.seed.to_string(),
            format!("{}x{}", cell.width, cell.height),
            cell.attempt_count.to_string(),
            what,
        ]
    });
    table(["CELL", "POSITION", "STATUS", "LANE", "SEED", "SIZE", "ATTEMPTS", "PICTURE OR WHY NOT"], rows)
}
