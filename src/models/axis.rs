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

impl Axis {
    /// What people read at a value: a prompt's name, else its words; a setting's value as text. None outside the list.
    pub fn label(&self, index: usize) -> Option<String> {
        self.values.get(index).map(|value| if self.kind == "prompt" { prompt_label(value) } else { value_label(value) })
    }

    /// The labels of all its values.
    pub fn labels(&self) -> Vec<String> {
        (0..self.values.len()).filter_map(|index| self.label(index)).collect()
    }
}

/// A constant prompt as people read it. An empty value leaves it out of the cell.
pub fn prompt_label(prompt: &Value) -> String {
    let text = |key: &str| prompt.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let Some(value) = text("value") else { return "(without)".to_owned() };
    let name = text("name").unwrap_or(value);
    match prompt.get("weight").and_then(Value::as_f64) {
        Some(weight) if (weight - 1.0).abs() > f64::EPSILON => format!("{name} \u{d7} {weight}"),
        _ => name.to_owned(),
    }
}

/// A setting's value as people read it.
pub fn value_label(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(is_on) => if *is_on { "on" } else { "off" }.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
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
