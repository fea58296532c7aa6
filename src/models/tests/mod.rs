//! The rules from the task to the body, tried from outside.

mod accepted;
mod bodies;
mod cells;
mod rejected;
mod rejected_whole;

use serde_json::{Value, json};

use super::*;

const FRONT_END_FORM: &str = include_str!("../../../examples/front-end-form.json");
const GRID_3024: &str = include_str!("../../../examples/grid-3024.json");
const FAULTY: &str = include_str!("../../../examples/faulty.json");

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The least that is a task.
fn small() -> Value {
    json!({ "name": "small", "prompts": [{ "type": "freetext", "value": "rain" }] })
}

fn defined(value: &Value) -> TaskDefinition {
    TaskDefinition::from_json(value, &TaskLimits::default()).unwrap()
}

fn paths(faults: &Faults) -> Vec<&str> {
    faults.0.iter().map(|fault| fault.path.as_str()).collect()
}
