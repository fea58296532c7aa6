//! A task as it is accepted: read from JSON, checked as a whole.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{
    Faults, Prompt, Setting, Settings,
    reader::{AxisSite, Reader, shown},
    setting_reader::{SETTING_NAMES, whole},
};

/// The lanes that a task may name.
pub const LANES: [&str; 3] = ["prod", "ops", "dev"];

/// Characters of a task's name, and of its idempotency key.
const MAX_CHARACTERS: usize = 255;
const MAX_PRIORITY: i64 = 8;

/// What a task may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLimits {
    /// Axes a task.
    pub max_axes: usize,
    /// Values an axis.
    pub max_values_per_axis: usize,
    /// Cells a task, copies counted; never more than an `i32` counts.
    pub max_cells: usize,
}

impl TaskLimits {
    pub(super) fn most_cells(&self) -> usize {
        self.max_cells.min(i32::MAX as usize)
    }
}

impl Default for TaskLimits {
    /// 6 axes, 100 values an axis, 50,000 cells a task.
    fn default() -> Self {
        Self { max_axes: 6, max_values_per_axis: 100, max_cells: 50_000 }
    }
}

/// A task that keeps every rule. Serializes as the front end writes it, everything that was left out written out.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDefinition {
    name: String,
    prompts: Vec<Prompt>,
    settings: Settings,
    priority: i16,
    lane: Option<&'static str>,
    idempotency_key: Option<String>,
}

impl TaskDefinition {
    /// Reads what the front end sends.
    ///
    /// # Errors
    /// Every fault of the input at once, each with its path.
    pub fn from_json(value: &Value, limits: &TaskLimits) -> Result<Self, Faults> {
        let mut reader = Reader::default();
        let definition = match reader.object("task", value) {
            None => None,
            Some(map) => reader.task(map, limits),
        };
        reader.finish(definition)
    }

    /// 1 to 255 characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// At least one.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// All of them, defaults included.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// 1..=8, the task's weight among the tasks of its owner.
    pub fn priority(&self) -> i16 {
        self.priority
    }

    /// The lane that the task names, one of [`LANES`]; none: each cell by its own.
    pub fn lane(&self) -> Option<&'static str> {
        self.lane
    }

    /// Under which a second call returns the first task.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }

    /// The list of prompts as the front end writes it.
    pub fn prompts_json(&self) -> Value {
        json!(self.prompts)
    }

    /// The settings as the front end writes them, in one object.
    pub fn settings_json(&self) -> Value {
        Value::Object(self.settings.to_map())
    }

    /// The whole task as the front end writes it.
    pub fn to_json(&self) -> Value {
        let mut task = self.settings.to_map();
        task.insert("name".to_owned(), json!(self.name));
        task.insert("prompts".to_owned(), self.prompts_json());
        task.insert("priority".to_owned(), json!(self.priority));
        task.insert("make_api_queue".to_owned(), json!(self.lane));
        task.insert("idempotency_key".to_owned(), json!(self.idempotency_key));
        Value::Object(task)
    }

    /// Where the axes stand in the input, for faults of the grid as a whole.
    pub(super) fn axis_sites(&self) -> Vec<AxisSite> {
        let mut sites = Vec::new();
        for (index, prompt) in self.prompts.iter().enumerate() {
            if let Prompt::Variable(prompt) = prompt {
                sites.push(AxisSite {
                    path: format!("prompts[{index}]"),
                    variable_id: Some(prompt.variable_id.clone()),
                    values: prompt.values.len(),
                });
            }
        }
        for (name, setting) in self.settings.axis_settings() {
            if let Setting::Variable { variable_id, values, .. } = setting {
                sites.push(AxisSite { path: name.to_owned(), variable_id: Some(variable_id), values: values.len() });
            }
        }
        sites
    }
}

impl Serialize for TaskDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl Reader {
    fn task(&mut self, map: &Map<String, Value>, limits: &TaskLimits) -> Option<TaskDefinition> {
        let name = self.needed_text("", map, "name").and_then(|name| self.short("name", name));
        let prompts = if let Some(prompts) = map.get("prompts") {
            self.prompts("prompts", prompts)
        } else {
            self.fault("prompts", "is missing");
            None
        };
        let settings = self.settings(map);
        let priority = self.priority(map);
        let lane = self.lane(map);
        let idempotency_key = match map.get("idempotency_key") {
            None | Some(Value::Null) => Some(None),
            Some(_) => self.needed_text("", map, "idempotency_key").and_then(|key| self.short("idempotency_key", key)).map(Some),
        };
        let mut known = vec!["name", "prompts", "priority", "make_api_queue", "idempotency_key"];
        known.extend(SETTING_NAMES);
        self.known_keys("", map, &known);
        self.distinct_variable_ids();
        self.limits(limits, copies(map));
        Some(TaskDefinition {
            name: name?,
            prompts: prompts?,
            settings: settings?,
            priority: priority?,
            lane: lane?,
            idempotency_key: idempotency_key?,
        })
    }

    fn short(&mut self, path: &str, text: String) -> Option<String> {
        let characters = text.chars().count();
        if characters > MAX_CHARACTERS {
            let message = format!("{characters} characters are over the limit of {MAX_CHARACTERS}");
            self.fault(path, message);
            return None;
        }
        Some(text)
    }

    fn priority(&mut self, map: &Map<String, Value>) -> Option<i16> {
        let Some(value) = map.get("priority") else {
            return Some(1);
        };
        whole(value, 1, MAX_PRIORITY).map(|priority| priority as i16).map_err(|message| self.fault("priority", message)).ok()
    }

    #[allow(clippy::option_option, reason = "outer: was it right, inner: is it there")]
    fn lane(&mut self, map: &Map<String, Value>) -> Option<Option<&'static str>> {
        let Some(value) = map.get("make_api_queue") else {
            return Some(None);
        };
        if value.is_null() || value.as_str() == Some("") {
            return Some(None);
        }
        let lane = LANES.into_iter().find(|lane| value.as_str() == Some(*lane));
        if lane.is_none() {
            let known = LANES.join(", ");
            let message = format!("{} is unknown; lanes are {known}", shown(value));
            self.fault("make_api_queue", message);
        }
        lane.map(Some)
    }
}

/// The copies that the input asks for, as far as that can be told when other settings are wrong.
fn copies(map: &Map<String, Value>) -> usize {
    map.get("batch_size")
        .and_then(|setting| setting.get("value"))
        .and_then(|value| whole(value, 1, 16).ok())
        .map_or(1, |copies| copies as usize)
}
