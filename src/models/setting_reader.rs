//! The rules on settings.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Faults, MAX_SEED, Ratio, Setting, Settings,
    reader::{Reader, join, shown},
};

/// Names of all settings: the axes in axis order, then `batch_size`.
pub(super) const SETTING_NAMES: [&str; 8] =
    ["ratio", "seed", "use_polish", "is_lumina", "lumina_model_name", "lumina_cfg", "lumina_step", "batch_size"];

const SETTING_KEYS: &[&str] = &["type", "value", "is_variable", "variable_id", "variable_name", "variable_values", "format"];

/// Reads one setting by its name.
///
/// # Errors
/// Every fault of the setting at once, each path beginning with its name; an unknown name is a fault too.
pub fn validate_setting(name: &str, value: &Value) -> Result<Setting<Value>, Faults> {
    let mut reader = Reader::default();
    let setting = match name {
        "ratio" => reader.untyped(name, value, ratio),
        "seed" => reader.untyped(name, value, seed),
        "batch_size" => reader.untyped(name, value, batch_size),
        "use_polish" | "is_lumina" => reader.untyped(name, value, switch),
        "lumina_model_name" => reader.untyped(name, value, model_name),
        "lumina_cfg" => reader.untyped(name, value, lumina_cfg),
        "lumina_step" => reader.untyped(name, value, lumina_step),
        _ => {
            let known = SETTING_NAMES.join(", ");
            let message = format!("is not a setting; settings are {known}");
            reader.fault(join("", name), message);
            None
        }
    };
    reader.finish(setting)
}

/// Reads an object of settings, as [`Settings`] serializes.
///
/// # Errors
/// Every fault at once.
pub fn validate_settings(value: &Value) -> Result<Settings, Faults> {
    let mut reader = Reader::default();
    let settings = match reader.object("settings", value) {
        None => None,
        Some(map) => {
            reader.known_keys("", map, &SETTING_NAMES);
            let settings = reader.settings(map);
            reader.distinct_variable_ids();
            settings
        }
    };
    reader.finish(settings)
}

impl Reader {
    /// The settings of a task; what is left out has its default.
    pub(super) fn settings(&mut self, task: &Map<String, Value>) -> Option<Settings> {
        let default = Settings::default();
        let ratio = self.setting_of(task, "ratio", default.ratio, ratio);
        let seed = self.setting_of(task, "seed", default.seed, seed);
        let use_polish = self.setting_of(task, "use_polish", default.use_polish, switch);
        let is_lumina = self.setting_of(task, "is_lumina", default.is_lumina, switch);
        let lumina_model_name = self.setting_of(task, "lumina_model_name", default.lumina_model_name, model_name);
        let lumina_cfg = self.setting_of(task, "lumina_cfg", default.lumina_cfg, lumina_cfg);
        let lumina_step = self.setting_of(task, "lumina_step", default.lumina_step, lumina_step);
        let one = Setting::Constant(default.batch_size);
        let batch_size = match self.setting_of(task, "batch_size", one, batch_size) {
            Some(Setting::Constant(copies)) => Some(copies),
            // `setting` has recorded the fault of a variable.
            Some(Setting::Variable { .. }) | None => None,
        };
        Some(Settings {
            ratio: ratio?,
            seed: seed?,
            batch_size: batch_size?,
            use_polish: use_polish?,
            is_lumina: is_lumina?,
            lumina_model_name: lumina_model_name?,
            lumina_cfg: lumina_cfg?,
            lumina_step: lumina_step?,
        })
    }

    fn setting_of<T>(
        &mut self,
        task: &Map<String, Value>,
        name: &str,
        default: Setting<T>,
        read: fn(&Value) -> Result<T, String>,
    ) -> Option<Setting<T>> {
        match task.get(name) {
            None => Some(default),
            Some(value) => self.setting(name, value, read),
        }
    }

    fn untyped<T: Serialize>(
        &mut self,
        name: &str,
        value: &Value,
        read: fn(&Value) -> Result<T, String>,
    ) -> Option<Setting<Value>> {
        let setting = self.setting(name, value, read);
        setting.map(|setting| setting.to_values())
    }

    fn setting<T>(&mut self, name: &str, value: &Value, read: fn(&Value) -> Result<T, String>) -> Option<Setting<T>> {
        if value.is_null() {
            // As if its value were null: right for those that may be, a fault for the others.
            return self.bare(name, value, read).map(Setting::Constant);
        }
        let map = self.object(name, value)?;
        self.known_keys(name, map, SETTING_KEYS);
        if let Some(kind) = map.get("type").filter(|kind| kind.as_str() != Some(name)) {
            let message = format!("must be \"{name}\", not {}", shown(kind));
            self.fault(join(name, "type"), message);
        }
        self.optional_text(name, map, "format");
        if !self.is_variable(name, map) {
            self.no_values(name, map);
            self.optional_text(name, map, "variable_id");
            self.optional_text(name, map, "variable_name");
            let path = join(name, "value");
            let Some(value) = map.get("value") else {
                self.fault(path, "is missing");
                return None;
            };
            return self.bare(&path, value, read).map(Setting::Constant);
        }
        if name == "batch_size" {
            self.fault(join(name, "is_variable"), "batch_size is no axis: it makes copies of every combination");
            return None;
        }
        let (variable_id, variable_name, values) =
            self.variable(name, map, |reader, path, value| reader.bare(path, value, read))?;
        Some(Setting::Variable { variable_id, variable_name, values })
    }

    fn bare<T>(&mut self, path: &str, value: &Value, read: fn(&Value) -> Result<T, String>) -> Option<T> {
        read(value).map_err(|message| self.fault(path, message)).ok()
    }
}

fn ratio(value: &Value) -> Result<Ratio, String> {
    let text = value.as_str().ok_or_else(|| {
        let shown = shown(value);
        format!("must be text such as \"3:4\", not {shown}")
    })?;
    Ratio::parse(text).map_err(|error| format!("{}: {error}", shown(value)))
}

fn seed(value: &Value) -> Result<Option<i64>, String> {
    optional(value, |value| whole(value, 0, MAX_SEED))
}

fn batch_size(value: &Value) -> Result<i32, String> {
    whole(value, 1, 16).map(|copies| copies as i32)
}

fn switch(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", shown(value)))
}

fn model_name(value: &Value) -> Result<Option<String>, String> {
    optional(value, |value| match value.as_str() {
        None => Err(format!("must be text or null, not {}", shown(value))),
        Some(text) if text.contains('\0') => Err("holds a NUL character, which PostgreSQL cannot store".to_owned()),
        Some(text) => Ok(text.to_owned()),
    })
}

fn lumina_cfg(value: &Value) -> Result<Option<f64>, String> {
    optional(value, |value| {
        value
            .as_f64()
            .filter(|cfg| (0.1..=10.0).contains(cfg))
            .ok_or_else(|| format!("must be a number from 0.1 to 10, not {}", shown(value)))
    })
}

fn lumina_step(value: &Value) -> Result<Option<i32>, String> {
    optional(value, |value| whole(value, 1, 50).map(|step| step as i32))
}

fn optional<T>(value: &Value, read: impl Fn(&Value) -> Result<T, String>) -> Result<Option<T>, String> {
    if value.is_null() {
        return Ok(None);
    }
    read(value).map(Some)
}

pub(super) fn whole(value: &Value, least: i64, most: i64) -> Result<i64, String> {
    value.as_i64().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let shown = shown(value);
        format!("must be a whole number from {least} to {most}, not {shown}")
    })
}
