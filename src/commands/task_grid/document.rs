//! The data in a page, as small as they can be: lists by cell, texts that come often once, what is rare by its cell alone.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::pictures::Pictures;
use crate::{
    models::{prompt_label, status::Status, value_label},
    services::grid_service::Grid,
};

/// What the page's script reads: `model.js`.
#[derive(Debug, Serialize)]
pub(super) struct Document<'g> {
    task: Task<'g>,
    axes: Vec<AxisLabels<'g>>,
    copies: usize,
    /// A letter a cell.
    states: String,
    /// Beginnings of addresses, up to the last slash.
    places: Vec<String>,
    /// Which of them, where it is not the first.
    place: BTreeMap<usize, usize>,
    /// The rest of each address.
    names: Vec<Option<String>>,
    seeds: Vec<i64>,
    sizes: Vec<String>,
    /// Which of them by cell; empty: all have the first.
    size: Vec<usize>,
    /// Kinds and messages.
    reasons: Vec<(Option<&'g str>, Option<&'g str>)>,
    reason: BTreeMap<i32, usize>,
    ratings: BTreeMap<i32, i16>,
    /// Where they are not one.
    attempts: BTreeMap<i32, i32>,
}

#[derive(Debug, Serialize)]
struct Task<'g> {
    id: Uuid,
    name: &'g str,
    owner: &'g str,
    status: &'static str,
    created_at: String,
    written_at: String,
    /// Names and values of what no axis varies.
    shared: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
struct AxisLabels<'g> {
    name: &'g str,
    kind: &'g str,
    values: Vec<String>,
}

/// Texts, each once.
#[derive(Debug)]
struct Once<T> {
    values: Vec<T>,
    numbers: HashMap<T, usize>,
}

impl<T: Clone + Eq + std::hash::Hash> Once<T> {
    fn new() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }

    fn number(&mut self, value: T) -> usize {
        let next = self.values.len();
        let number = *self.numbers.entry(value.clone()).or_insert(next);
        if number == next {
            self.values.push(value);
        }
        number
    }
}

impl<'g> Document<'g> {
    pub(super) fn of(grid: &'g Grid, pictures: &Pictures, now: DateTime<Utc>) -> Self {
        let (mut places, mut sizes, mut reasons) = (Once::new(), Once::new(), Once::new());
        let mut document = Self {
            task: task(grid, now),
            axes: grid
                .head
                .axes
                .iter()
                .map(|axis| AxisLabels { name: &axis.name, kind: &axis.kind, values: axis.labels() })
                .collect(),
            copies: grid.copies(),
            states: String::with_capacity(grid.cells.len()),
            places: Vec::new(),
            place: BTreeMap::new(),
            names: Vec::with_capacity(grid.cells.len()),
            seeds: grid.cells.iter().map(|cell| cell.seed).collect(),
            sizes: Vec::new(),
            size: Vec::new(),
            reasons: Vec::new(),
            reason: BTreeMap::new(),
            ratings: BTreeMap::new(),
            attempts: BTreeMap::new(),
        };
        for (index, (cell, address)) in grid.cells.iter().zip(&pictures.addresses).enumerate() {
            document.states.push(letter(cell.status));
            document.names.push(address.as_ref().map(|address| {
                let (place, name) = address.split_at(address.rfind('/').map_or(0, |slash| slash + 1));
                let number = places.number(place.to_owned());
                if number > 0 {
                    document.place.insert(index, number);
                }
                name.to_owned()
            }));
            document.size.push(sizes.number((cell.width, cell.height)));
            // What a picture that is shown lacks is of no interest here.
            if address.is_none() && (cell.error_kind.is_some() || cell.error.is_some()) {
                document.reason.insert(cell.cell, reasons.number((cell.error_kind.as_deref(), cell.error.as_deref())));
            }
            if let Some(rating) = cell.rating {
                document.ratings.insert(cell.cell, rating);
            }
            if cell.attempt_count != 1 {
                document.attempts.insert(cell.cell, cell.attempt_count);
            }
        }
        document.places = places.values;
        document.reasons = reasons.values;
        document.sizes = sizes.values.iter().map(|(width, height)| format!("{width} \u{d7} {height}")).collect();
        if document.sizes.len() <= 1 {
            document.size.clear();
        }
        document
    }
}

fn letter(status: Status) -> char {
    match status {
        Status::Completed => 'c',
        Status::Failed => 'f',
        Status::Cancelled => 'x',
        Status::Processing => 'r',
        Status::Pending => 'p',
    }
}

fn task(grid: &Grid, now: DateTime<Utc>) -> Task<'_> {
    let time = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC").to_string();
    Task {
        id: grid.task.id,
        name: &grid.task.name,
        owner: &grid.task.owner,
        status: grid.task.status.as_str(),
        created_at: time(grid.task.created_at),
        written_at: time(now),
        shared: shared(&grid.head.prompts, &grid.head.settings),
    }
}

/// What is the same in every cell.
fn shared(prompts: &Value, settings: &Value) -> Vec<(String, String)> {
    let is_variable = |given: &Value| given.get("is_variable").and_then(Value::as_bool).unwrap_or_default();
    let prompts = prompts.as_array().into_iter().flatten().filter(|prompt| !is_variable(prompt));
    let mut shared: Vec<(String, String)> = prompts.map(|prompt| ("prompt".to_owned(), prompt_label(prompt))).collect();
    let value = |name: &str| settings.get(name).filter(|given| !is_variable(given)).and_then(|given| given.get("value"));
    let is_without_lumina = value("is_lumina") == Some(&Value::Bool(false));
    let names = ["ratio", "seed", "use_polish", "is_lumina", "lumina_model_name", "lumina_cfg", "lumina_step"];
    for name in names {
        // Kept in the task, and not sent without lumina.
        if name.starts_with("lumina_") && is_without_lumina {
            continue;
        }
        if let Some(value) = value(name) {
            let text = if name == "seed" && (value.is_null() || value == 0) { "random".to_owned() } else { value_label(value) };
            shared.push((name.to_owned(), text));
        }
    }
    shared
}
