//! Writing a task in Rust.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{ConstantPrompt, Faults, Prompt, PromptKind, Setting, TaskDefinition, TaskLimits, VariablePrompt};

/// A task as a producer writes it; checked by [`TaskInput::validate`] with the same rules as JSON, and its own JSON form
/// is what the front end sends.
///
/// ```
/// use imagemill::models::{Prompt, TaskInput, TaskLimits};
///
/// let task = TaskInput::new("lantern market")
///     .prompt(Prompt::freetext("a night market").weight(1.2))
///     .variable_prompt("light", [Prompt::freetext(""), Prompt::freetext("backlit")])
///     .ratio(["1:1", "3:4"])
///     .seed(7)
///     .validate(&TaskLimits::default())?;
/// assert_eq!(task.prompts().len(), 2);
/// # Ok::<(), imagemill::models::Faults>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInput {
    name: String,
    prompts: Vec<Prompt>,
    rest: Map<String, Value>,
}

impl TaskInput {
    /// A task with this name, no prompts yet and every setting at its default.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), prompts: Vec::new(), rest: Map::new() }
    }

    /// One more prompt, the last in the list.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<Prompt>) -> Self {
        self.prompts.push(prompt.into());
        self
    }

    /// One more prompt that is an axis with this name; its `variable_id` is `prompt_` and its place in the list.
    #[must_use]
    pub fn variable_prompt(self, name: impl Into<String>, values: impl IntoIterator<Item = ConstantPrompt>) -> Self {
        let values: Vec<ConstantPrompt> = values.into_iter().collect();
        let prompt = VariablePrompt {
            kind: values.first().map_or(PromptKind::Freetext, |value| value.kind),
            variable_id: format!("prompt_{}", self.prompts.len()),
            variable_name: name.into(),
            values,
        };
        self.prompt(prompt)
    }

    /// Of the sides, as `"3:4"`. This and the other settings take one value, or a list that makes the setting an axis.
    #[must_use]
    pub fn ratio(self, ratio: impl IntoSetting) -> Self {
        self.setting("ratio", ratio)
    }

    /// 1..=2147483647; `None` and 0 mean a random one per cell.
    #[must_use]
    pub fn seed(self, seed: impl IntoSetting) -> Self {
        self.setting("seed", seed)
    }

    /// Copies of every combination, 1..=16; no axis.
    #[must_use]
    pub fn batch_size(self, batch_size: i32) -> Self {
        self.setting("batch_size", batch_size)
    }

    /// Whether the upstream rewrites the prompts.
    #[must_use]
    pub fn use_polish(self, use_polish: impl IntoSetting) -> Self {
        self.setting("use_polish", use_polish)
    }

    /// Whether lumina makes the picture.
    #[must_use]
    pub fn is_lumina(self, is_lumina: impl IntoSetting) -> Self {
        self.setting("is_lumina", is_lumina)
    }

    /// Lumina's checkpoint.
    #[must_use]
    pub fn lumina_model_name(self, lumina_model_name: impl IntoSetting) -> Self {
        self.setting("lumina_model_name", lumina_model_name)
    }

    /// Lumina's guidance scale, 0.1..=10.
    #[must_use]
    pub fn lumina_cfg(self, lumina_cfg: impl IntoSetting) -> Self {
        self.setting("lumina_cfg", lumina_cfg)
    }

    /// Lumina's number of steps, 1..=50.
    #[must_use]
    pub fn lumina_step(self, lumina_step: impl IntoSetting) -> Self {
        self.setting("lumina_step", lumina_step)
    }

    /// 1..=8.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.rest.insert("priority".to_owned(), json!(priority));
        self
    }

    /// All cells on this lane.
    #[must_use]
    pub fn lane(mut self, lane: impl Into<String>) -> Self {
        let lane: String = lane.into();
        self.rest.insert("make_api_queue".to_owned(), json!(lane));
        self
    }

    /// Under which a second call returns the first task.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        let key: String = key.into();
        self.rest.insert("idempotency_key".to_owned(), json!(key));
        self
    }

    /// What the front end would send.
    pub fn to_json(&self) -> Value {
        let mut task = self.rest.clone();
        task.insert("name".to_owned(), json!(self.name));
        task.insert("prompts".to_owned(), json!(self.prompts));
        Value::Object(task)
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// Every fault at once, each with its path in the JSON form.
    pub fn validate(&self, limits: &TaskLimits) -> Result<TaskDefinition, Faults> {
        TaskDefinition::from_json(&self.to_json(), limits)
    }

    fn setting(mut self, name: &str, setting: impl IntoSetting) -> Self {
        let setting = match setting.into_setting() {
            SettingInput::One(value) => Setting::Constant(value),
            SettingInput::List(values) => {
                Setting::Variable { variable_id: name.to_owned(), variable_name: name.to_owned(), values }
            }
        };
        self.rest.insert(name.to_owned(), setting.to_json(name));
        self
    }
}

impl Serialize for TaskInput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// What a producer gave for a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingInput {
    /// A constant.
    One(Value),
    /// An axis.
    List(Vec<Value>),
}

/// One value of a setting, an `Option` of one, or an array, slice or vector of them: then the setting is an axis.
pub trait IntoSetting {
    /// The value or values as JSON.
    fn into_setting(self) -> SettingInput;
}

/// One bare value.
trait IntoBareValue {
    fn into_bare_value(self) -> Value;
}

macro_rules! bare_values {
    ($($kind:ty),+) => {
        $(impl IntoBareValue for $kind {
            fn into_bare_value(self) -> Value {
                Value::from(self)
            }
        })+
    };
}

bare_values!(&str, String, bool, i32, u32, i64, u64);

impl IntoBareValue for f64 {
    /// `Value::from` makes null of what is not finite, and null may be right: as text it is a fault that can be read.
    fn into_bare_value(self) -> Value {
        if self.is_finite() { Value::from(self) } else { Value::from(self.to_string()) }
    }
}

impl<T: IntoBareValue> IntoBareValue for Option<T> {
    fn into_bare_value(self) -> Value {
        self.map_or(Value::Null, T::into_bare_value)
    }
}

#[allow(private_bounds, reason = "sealed: the values are those of the settings")]
impl<T: IntoBareValue> IntoSetting for T {
    fn into_setting(self) -> SettingInput {
        SettingInput::One(self.into_bare_value())
    }
}

fn list(values: impl IntoIterator<Item = impl IntoBareValue>) -> SettingInput {
    let values = values.into_iter().map(IntoBareValue::into_bare_value);
    SettingInput::List(values.collect())
}

#[allow(private_bounds, reason = "sealed: the values are those of the settings")]
impl<T: IntoBareValue, const N: usize> IntoSetting for [T; N] {
    fn into_setting(self) -> SettingInput {
        list(self)
    }
}

#[allow(private_bounds, reason = "sealed: the values are those of the settings")]
impl<T: IntoBareValue> IntoSetting for Vec<T> {
    fn into_setting(self) -> SettingInput {
        list(self)
    }
}

#[allow(private_bounds, reason = "sealed: the values are those of the settings")]
impl<T: IntoBareValue + Clone> IntoSetting for &[T] {
    fn into_setting(self) -> SettingInput {
        list(self.iter().cloned())
    }
}
