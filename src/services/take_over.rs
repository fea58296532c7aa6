//! Which pictures of earlier tasks a new one takes over: those that were paid for with the same body.
//!
//! Nothing is kept for it while cells run: the bodies of earlier cells are made again from their tasks' prompts, newest task
//! first, and only for tasks that may have a body in common with the new one.

use std::collections::{HashMap, HashSet, VecDeque};

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::ServiceError;
use crate::{
    crud::reusable::{self, EarlierCell},
    models::{self, Cell, Plan, Prompt, RequestCell, TaskDefinition},
};

/// Newest tasks of the owner that are looked at.
const TASKS: i64 = 200;
/// Their cells that are looked at, at most: two seconds or so.
const CELLS: usize = 200_000;
/// Cells that are read at once.
const PAGE: i64 = 5_000;

/// Cells of the new task that have the same body but for the seed.
#[derive(Default)]
struct Wanted {
    /// Those whose seed is given, by it.
    given: HashMap<i64, VecDeque<usize>>,
    /// Those whose seed is drawn: any does, but each its own.
    drawn: VecDeque<usize>,
    /// Seeds that no drawn one may take.
    seeds: HashSet<i64>,
}

impl Wanted {
    /// The cell that is to have the picture of this seed.
    fn take(&mut self, seed: i64) -> Option<usize> {
        if let Some(place) = self.given.get_mut(&seed).and_then(VecDeque::pop_front) {
            return Some(place);
        }
        if self.drawn.is_empty() || !self.seeds.insert(seed) {
            return None;
        }
        self.drawn.pop_front()
    }
}

/// Finds a picture for each of these cells, where there is one: of the same owner, body and lane, each taken once. A cell whose
/// seed was to be drawn gets the picture's. Returns the pictures by the places of the cells.
pub(super) async fn take_over(
    connection: &mut PgConnection,
    owner: Uuid,
    definition: &TaskDefinition,
    plan: &Plan,
    cells: &mut [Cell],
) -> Result<HashMap<usize, EarlierCell>, ServiceError> {
    let prompts = definition.prompts();
    let mut wanted: HashMap<(String, &'static str), Wanted> = HashMap::new();
    for (place, cell) in cells.iter().enumerate() {
        let group = wanted.entry((unseeded(prompts, &RequestCell::from(cell))?, cell.lane)).or_default();
        if plan.draws_seed(&cell.variable_indices) {
            group.drawn.push_back(place);
        } else {
            group.seeds.insert(cell.seed);
            group.given.entry(cell.seed).or_default().push_back(place);
        }
    }
    let mut found = HashMap::new();
    let mut origins = HashSet::new();
    let mut looked_at = 0;
    for task in reusable::get_tasks(connection, owner, TASKS).await? {
        let earlier: Vec<Prompt> = match serde_json::from_value(task.prompts) {
            Ok(earlier) => earlier,
            Err(error) => {
                tracing::warn!(task = %task.id, %error, "its prompts cannot be read: none of its pictures is taken over");
                continue;
            }
        };
        if !models::may_share_cells(prompts, &earlier) {
            continue;
        }
        let mut after = -1;
        loop {
            if found.len() == cells.len() || looked_at >= CELLS {
                return Ok(found);
            }
            let page = reusable::get_cells(connection, task.id, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.cell;
            looked_at += page.len();
            for picture in page {
                let Some(place) = place_of(&picture, &earlier, &mut wanted, &mut origins) else { continue };
                cells[place].seed = picture.seed;
                found.insert(place, picture);
            }
        }
    }
    Ok(found)
}

/// The cell that takes this picture over.
fn place_of(
    picture: &EarlierCell,
    prompts: &[Prompt],
    wanted: &mut HashMap<(String, &'static str), Wanted>,
    origins: &mut HashSet<Uuid>,
) -> Option<usize> {
    let lane = models::LANES.into_iter().find(|lane| *lane == picture.lane)?;
    let body = models::request_body(prompts, &RequestCell::from(picture)).ok()?;
    let group = wanted.get_mut(&(models::unseeded_sha256(&body), lane))?;
    // What was submitted is what we would submit, and the picture is not taken already, perhaps from a task that took it over.
    if models::request_sha256(&body) != picture.request_sha256 || origins.contains(&picture.origin) {
        return None;
    }
    let place = group.take(picture.seed)?;
    origins.insert(picture.origin);
    Some(place)
}

fn unseeded(prompts: &[Prompt], cell: &RequestCell<'_>) -> Result<String, ServiceError> {
    let body = models::request_body(prompts, cell).map_err(|error| ServiceError::Usage(error.to_string()))?;
    Ok(models::unseeded_sha256(&body))
}
