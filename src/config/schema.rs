//! The built-in `Config.toml`, and what it says of each setting: its name, its form, its default.

use std::collections::BTreeMap;

use figment::{
    Provider,
    providers::{Format, Toml},
    value::{Dict, Value},
};

use super::fault::Fault;

/// The text that is built in.
pub(super) const BUILT_IN: &str = include_str!("../../Config.toml");

/// Settings that are never shown.
const SECRETS: [&str; 2] = ["database.url", "upstream.api_token"];

/// Values of one source, by dotted key.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// The source, as people read it.
    pub(super) source: String,
    /// The values.
    pub(super) values: BTreeMap<String, Value>,
}

/// Every setting with its default.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) defaults: BTreeMap<String, Value>,
}

impl Schema {
    /// Whether there is such a setting.
    pub(super) fn has(&self, key: &str) -> bool {
        self.defaults.contains_key(key)
    }

    /// Whether settings stand below this name.
    pub(super) fn has_section(&self, name: &str) -> bool {
        let below = format!("{name}.");
        self.defaults.keys().any(|key| key.starts_with(&below))
    }

    /// The setting that a path of serde, perhaps into an array, points at.
    pub(super) fn setting_of(&self, path: &[String]) -> Option<String> {
        (1..=path.len()).rev().map(|length| path[..length].join(".")).find(|key| self.has(key))
    }

    /// Reads the text of a variable in the form of the setting's default, so that a token of digits stays a text.
    pub(super) fn read(&self, key: &str, text: &str) -> Value {
        let parsed = |text: &str| text.parse().unwrap_or_else(|never| match never {});
        match self.defaults.get(key) {
            Some(Value::Num(..) | Value::Bool(..)) => parsed(text),
            Some(Value::Array(..)) if text.trim_start().starts_with('[') => parsed(text),
            Some(Value::Array(..)) => parsed(&format!("[{text}]")),
            _ => Value::from(text),
        }
    }
}

/// A value as people may see it.
pub(super) fn shown(key: &str, value: &Value) -> String {
    let text = match value {
        Value::String(_, text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_else(|error| error.to_string()),
    };
    // A password in a base URL is refused, so it must not be shown in the refusal.
    let hidden = SECRETS.contains(&key) || (key.ends_with(".base_url") && text.contains('@'));
    if hidden && !text.is_empty() { "***".to_owned() } else { text }
}

/// Whether errors of this setting must leave out what serde says, which may repeat the value.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// The profiles of a TOML text, each with its values by dotted key.
///
/// # Errors
/// Where the text is no TOML, or a value stands outside a profile.
pub(super) fn profiles(text: &str, source: &str) -> Result<BTreeMap<String, BTreeMap<String, Value>>, Vec<Fault>> {
    let data = Toml::string(text).data().map_err(|error| {
        vec![Fault { key: "file".to_owned(), value: None, source: source.to_owned(), reason: syntax(&error.kind.to_string()) }]
    })?;
    let mut profiles = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, value) in data.into_values().flatten() {
        match value {
            Value::Dict(_, dict) if ["default", "dev", "prod"].contains(&name.as_str()) => {
                let mut values = BTreeMap::new();
                flatten("", dict, &mut values);
                profiles.insert(name, values);
            }
            _ => faults.push(Fault {
                reason: format!("stands outside the profiles default, dev and prod; write it below one, as in [default.{name}]"),
                key: name,
                value: None,
                source: source.to_owned(),
            }),
        }
    }
    if faults.is_empty() { Ok(profiles) } else { Err(faults) }
}

/// The place and the reason. What stands between them repeats the line, which may hold a secret.
fn syntax(message: &str) -> String {
    let mut lines = message.lines().filter(|line| !line.trim().is_empty());
    let place = lines.next().unwrap_or("not TOML");
    match lines.next_back() {
        Some(reason) if !reason.contains('|') => format!("{place}: {reason}"),
        _ => place.to_owned(),
    }
}

fn flatten(prefix: &str, dict: Dict, values: &mut BTreeMap<String, Value>) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, dict) => flatten(&key, dict, values),
            value => {
                values.insert(key, value);
            }
        }
    }
}
