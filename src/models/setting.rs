//! Settings: constant, or a variable with its values.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::Ratio;

/// One setting. With `T` = [`Value`] in the form of any setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting<T> {
    /// The same in every cell.
    Constant(T),
    /// An axis.
    Variable {
        /// Unique among the axes of the task.
        variable_id: String,
        /// What people call the axis.
        variable_name: String,
        /// At least one.
        values: Vec<T>,
    },
}

impl<T: Serialize> Setting<T> {
    /// The same setting with its values as bare JSON.
    pub(super) fn to_values(&self) -> Setting<Value> {
        match self {
            Self::Constant(value) => Setting::Constant(json!(value)),
            Self::Variable { variable_id, variable_name, values } => Setting::Variable {
                variable_id: variable_id.clone(),
                variable_name: variable_name.clone(),
                values: values.iter().map(|value| json!(value)).collect(),
            },
        }
    }
}

impl Setting<Value> {
    /// As the front end writes it.
    pub fn to_json(&self, name: &str) -> Value {
        let format = match name {
            "ratio" | "lumina_model_name" => "string",
            "use_polish" | "is_lumina" => "bool",
            "lumina_cfg" => "float",
            _ => "int",
        };
        match self {
            Self::Constant(value) => {
                json!({ "type": name, "is_variable": false, "value": value, "format": format })
            }
            Self::Variable { variable_id, variable_name, values } => json!({
                "type": name,
                "is_variable": true,
                "variable_id": variable_id,
                "variable_name": variable_name,
                "variable_values": values,
                "format": format,
            }),
        }
    }
}

/// All settings of a task. Serializes as an object of the settings as the front end writes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Of the sides; 1:1.
    pub ratio: Setting<Ratio>,
    /// 1..=2147483647; null and 0 mean a random one per cell.
    pub seed: Setting<Option<i64>>,
    /// Copies of every combination, 1..=16. No axis.
    pub batch_size: i32,
    /// Whether the upstream rewrites the prompts.
    pub use_polish: Setting<bool>,
    /// Whether the cell is made by lumina.
    pub is_lumina: Setting<bool>,
    /// Its checkpoint.
    pub lumina_model_name: Setting<Option<String>>,
    /// Its guidance scale, 0.1..=10.
    pub lumina_cfg: Setting<Option<f64>>,
    /// Its number of steps, 1..=50.
    pub lumina_step: Setting<Option<i32>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ratio: Setting::Constant(Ratio::square()),
            seed: Setting::Constant(None),
            batch_size: 1,
            use_polish: Setting::Constant(false),
            is_lumina: Setting::Constant(false),
            lumina_model_name: Setting::Constant(None),
            lumina_cfg: Setting::Constant(None),
            lumina_step: Setting::Constant(None),
        }
    }
}

impl Settings {
    /// The settings that can be axes, in axis order.
    pub(super) fn axis_settings(&self) -> [(&'static str, Setting<Value>); 7] {
        [
            ("ratio", self.ratio.to_values()),
            ("seed", self.seed.to_values()),
            ("use_polish", self.use_polish.to_values()),
            ("is_lumina", self.is_lumina.to_values()),
            ("lumina_model_name", self.lumina_model_name.to_values()),
            ("lumina_cfg", self.lumina_cfg.to_values()),
            ("lumina_step", self.lumina_step.to_values()),
        ]
    }

    pub(super) fn to_map(&self) -> Map<String, Value> {
        let batch_size = Setting::Constant(Value::from(self.batch_size));
        self.axis_settings()
            .into_iter()
            .chain([("batch_size", batch_size)])
            .map(|(name, setting)| (name.to_owned(), setting.to_json(name)))
            .collect()
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_map().serialize(serializer)
    }
}
