//! The tasks that are run: grids of two prompts and a ratio.

use uuid::Uuid;

use super::ground::{Database, Ground};
use crate::{
    commands::report::Failure,
    models::{Prompt, Role, TaskDefinition, TaskInput, TaskLimits},
    services::{actor::Actor, task_service, user_service},
};

/// Ratios, as many as an axis of them may need.
const RATIOS: [&str; 10] = ["1:1", "2:3", "3:2", "3:4", "4:3", "3:5", "5:3", "16:9", "9:16", "21:9"];

/// Sides of a grid: characters, styles, ratios.
pub(super) type Grid = [usize; 3];

/// 50,000 cells.
pub(super) const LARGE: Grid = [100, 50, 10];
/// 1,000 cells.
pub(super) const DRAINED: Grid = [10, 10, 10];
/// 3,024 cells: a real experiment.
pub(super) const REAL: Grid = [42, 24, 3];
/// One cell.
pub(super) const SINGLE: Grid = [1, 1, 1];

/// A grid with about this share of the cells, at least one a side.
pub(super) fn scaled([characters, styles, ratios]: Grid, scale: f64) -> Grid {
    let share = |side: usize, scale: f64| ((side as f64 * scale).round() as usize).clamp(1, side);
    let fewer = share(characters, scale);
    // What the first side cannot give the second does.
    let left = scale * characters as f64 / fewer as f64;
    [fewer, share(styles, left), ratios]
}

/// Its cells.
pub(super) fn cells(grid: Grid) -> usize {
    grid.iter().product()
}

/// A task of this grid.
pub(super) fn definition(name: &str, grid: Grid) -> Result<TaskDefinition, Failure> {
    prior(name, grid, 1)
}

/// The same with a priority.
pub(super) fn prior(name: &str, [characters, styles, ratios]: Grid, priority: i32) -> Result<TaskDefinition, Failure> {
    let prompt = |kind: &str, number: usize| Prompt::freetext(format!("{kind} {number}, seen from below in the evening light"));
    let input = TaskInput::new(name)
        .prompt(Prompt::freetext("a night market by the river, lanterns on the water, many people, finely drawn"))
        .variable_prompt("character", (0..characters).map(|number| prompt("character", number)))
        .variable_prompt("style", (0..styles).map(|number| prompt("style", number)))
        .ratio(RATIOS.into_iter().take(ratios).collect::<Vec<_>>())
        .priority(priority);
    input.validate(&TaskLimits::default()).map_err(Failure::failed)
}

/// Creates so many tasks of this grid.
pub(super) async fn create(ground: &Ground, database: &Database, count: usize, grid: Grid) -> Result<Vec<Uuid>, Failure> {
    let mut tasks = Vec::with_capacity(count);
    for number in 0..count {
        let definition = definition(&format!("bench {number}"), grid)?;
        tasks.push(task_service::create_task(&database.context, &ground.actor, &definition).await?.id);
    }
    Ok(tasks)
}

/// Somebody else who creates tasks.
pub(super) async fn another_owner(ground: &Ground, database: &Database, name: &str) -> Result<Actor, Failure> {
    Ok(user_service::create_user(&database.context, &ground.actor, name, None, &[Role::ProUser]).await?.into())
}

/// Creates one task for this owner.
pub(super) async fn create_for(database: &Database, owner: &Actor, definition: &TaskDefinition) -> Result<Uuid, Failure> {
    Ok(task_service::create_task(&database.context, owner, definition).await?.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_grid_has_about_that_share_of_the_cells() {
        for (grid, scale, expected) in [
            (LARGE, 1.0, 50_000),
            (LARGE, 0.1, 5_000),
            (LARGE, 0.001, 50),
            (DRAINED, 0.01, 10),
            (DRAINED, 0.05, 50),
            (SINGLE, 0.01, 1),
        ] {
            assert_eq!(cells(scaled(grid, scale)), expected, "{grid:?} {scale}");
        }
    }

    #[test]
    fn a_task_has_the_cells_of_its_grid() {
        for grid in [LARGE, DRAINED, REAL, SINGLE] {
            let plan = crate::models::plan(&definition("a", grid).unwrap(), &TaskLimits::default()).unwrap();
            assert_eq!(plan.total_images as usize, cells(grid));
        }
    }
}
