//! Axes: what varies in a task.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Prompt, Setting, TaskDefinition};

/// A prompt or a setting that is a variable, as it is stored with the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// From 0; the last one varies fastest.
    pub number: i32,
    /// `prompt`, or the name of the setting.
    pub kind: String,
    /// Unique among the axes of the task.
    pub variable_id: String,
    /// What people call it.
    pub name: String,
    /// Constant prompts, or bare values of the setting.
    pub values: Vec<Value>,
}

/// The axes of a task: variable prompts in list order, then settings in their fixed order.
pub(super) fn axes(definition: &TaskDefinition) -> Vec<Axis> {
    let mut axes = Vec::new();
    for prompt in definition.prompts() {
        if let Prompt::Variable(prompt) = prompt {
            let values = prompt.values.iter().map(|value| json!(value)).collect();
            push(&mut axes, "prompt", &prompt.variable_id, &prompt.variable_name, values);
        }
    }
    for (kind, setting) in definition.settings().axis_settings() {
        if let Setting::Variable { variable_id, variable_name, values } = setting {
            push(&mut axes, kind, &variable_id, &variable_name, values);
        }
    }
    axes
}

fn push(axes: &mut Vec<Axis>, kind: &str, variable_id: &str, name: &str, values: Vec<Value>) {
    axes.push(Axis {
        number: axes.len() as i32,
        kind: kind.to_owned(),
        variable_id: variable_id.to_owned(),
        name: name.to_owned(),
        values,
    });
}
