//! The rules on prompts.

use serde_json::{Map, Value};

use super::{
    ConstantPrompt, Faults, Prompt, PromptKind, VariablePrompt,
    reader::{Reader, join, shown},
};

const PROMPT_KEYS: &[&str] =
    &["type", "value", "weight", "name", "img_url", "uuid", "is_variable", "variable_id", "variable_name", "variable_values"];
const VALUE_KEYS: &[&str] = &["type", "value", "weight", "name", "img_url", "uuid", "is_variable"];

/// Reads the `prompts` of a task.
///
/// # Errors
/// Every fault of the list at once, each path beginning with `prompts`.
pub fn validate_prompts(value: &Value) -> Result<Vec<Prompt>, Faults> {
    let mut reader = Reader::default();
    let prompts = reader.prompts("prompts", value);
    reader.distinct_variable_ids();
    reader.finish(prompts)
}

impl TryFrom<Value> for Prompt {
    type Error = Faults;

    fn try_from(value: Value) -> Result<Self, Faults> {
        let mut reader = Reader::default();
        let prompt = reader.prompt("prompt", &value);
        reader.finish(prompt)
    }
}

impl Reader {
    pub(super) fn prompts(&mut self, path: &str, value: &Value) -> Option<Vec<Prompt>> {
        let Some(list) = value.as_array() else {
            self.fault(path, format!("must be a list, not {}", shown(value)));
            return None;
        };
        if list.is_empty() {
            self.fault(path, "the list is empty");
            return None;
        }
        let prompts: Vec<Option<Prompt>> =
            list.iter().enumerate().map(|(index, prompt)| self.prompt(&format!("{path}[{index}]"), prompt)).collect();
        prompts.into_iter().collect()
    }

    fn prompt(&mut self, path: &str, value: &Value) -> Option<Prompt> {
        let map = self.object(path, value)?;
        self.known_keys(path, map, PROMPT_KEYS);
        if self.is_variable(path, map) {
            return self.variable_prompt(path, map).map(Prompt::Variable);
        }
        self.no_values(path, map);
        // What a switched-off variable left behind; it means nothing, but it must be what it says.
        self.optional_text(path, map, "variable_id");
        self.optional_text(path, map, "variable_name");
        self.constant_prompt(path, map).map(Prompt::Constant)
    }

    fn variable_prompt(&mut self, path: &str, map: &Map<String, Value>) -> Option<VariablePrompt> {
        let kind = self.kind(path, map);
        // Left over from when it was a constant: not used, but still what these keys may hold.
        self.weight(path, map);
        for key in ["value", "name", "img_url", "uuid"] {
            self.optional_text(path, map, key);
        }
        let variable = self.variable(path, map, Self::prompt_value);
        let (variable_id, variable_name, values) = variable?;
        Some(VariablePrompt { kind: kind?, variable_id, variable_name, values })
    }

    fn prompt_value(&mut self, path: &str, value: &Value) -> Option<ConstantPrompt> {
        let map = self.object(path, value)?;
        self.known_keys(path, map, VALUE_KEYS);
        if self.is_variable(path, map) {
            self.fault(join(path, "is_variable"), "a value of a variable is a constant");
        }
        self.constant_prompt(path, map)
    }

    fn constant_prompt(&mut self, path: &str, map: &Map<String, Value>) -> Option<ConstantPrompt> {
        let kind = self.kind(path, map);
        let value = if let Some(value) = map.get("value") {
            self.text(&join(path, "value"), value)
        } else {
            self.fault(join(path, "value"), "is missing; \"\" leaves the prompt out");
            None
        };
        let weight = self.weight(path, map);
        let name = match kind {
            Some(PromptKind::OcVtokenAdaptor | PromptKind::Elementum) => self.needed_text(path, map, "name").map(Some),
            Some(PromptKind::Freetext) | None => self.optional_text(path, map, "name"),
        };
        let img_url = self.optional_text(path, map, "img_url");
        let uuid = self.optional_text(path, map, "uuid");
        Some(ConstantPrompt { kind: kind?, value: value?, weight: weight?, name: name?, img_url: img_url?, uuid: uuid? })
    }

    fn kind(&mut self, path: &str, map: &Map<String, Value>) -> Option<PromptKind> {
        let path = join(path, "type");
        let Some(value) = map.get("type") else {
            self.fault(path, "is missing");
            return None;
        };
        let kind = PromptKind::ALL.into_iter().find(|kind| value.as_str() == Some(kind.as_str()));
        if kind.is_none() {
            let known = PromptKind::ALL.map(PromptKind::as_str).join(", ");
            let message = format!("{} is unknown; known are {known}", shown(value));
            self.fault(path, message);
        }
        kind
    }

    fn weight(&mut self, path: &str, map: &Map<String, Value>) -> Option<f64> {
        let Some(value) = map.get("weight") else {
            return Some(1.0);
        };
        let weight = value.as_f64().filter(|weight| (0.0..=10.0).contains(weight));
        if weight.is_none() {
            let message = format!("must be a number from 0 to 10, not {}", shown(value));
            self.fault(join(path, "weight"), message);
        }
        weight
    }
}
