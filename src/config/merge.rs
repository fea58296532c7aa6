//! From the layers to the settings: merge, read, check, and say where each value came from.

use std::collections::{BTreeMap, BTreeSet};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    value::{Dict, Map, Value},
};
use serde::Serialize;

use super::{
    check::check,
    fault::{ConfigError, Fault},
    schema::{self, Layer, Schema},
    settings::Settings,
};

/// The source of what nobody set.
pub(super) const BUILT_IN: &str = "built in";

/// One setting as people may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Dotted name, for instance `queue.lease`.
    pub key: String,
    /// The value as it was given; a secret is `***`, nothing is empty.
    pub value: String,
    /// Where the value came from: `built in`, a file and its profile, or a variable.
    pub source: String,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let dict = self.values.iter().fold(Dict::new(), |mut dict, (key, value)| {
            insert(&mut dict, key, value);
            dict
        });
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

fn insert(dict: &mut Dict, key: &str, value: &Value) {
    let Some((section, rest)) = key.split_once('.') else {
        dict.insert(key.to_owned(), value.clone());
        return;
    };
    let entry = dict.entry(section.to_owned()).or_insert_with(|| Dict::new().into());
    if let Value::Dict(_, inner) = entry {
        insert(inner, rest, value);
    }
}

/// The settings that the layers make, weakest first, and where each came from.
///
/// # Errors
/// `faults`, those of the layers, and every fault of the values.
pub(super) fn merge(layers: Vec<Layer>, schema: &Schema, mut faults: Vec<Fault>) -> Result<(Settings, Vec<Entry>), ConfigError> {
    let merged = layers.into_iter().fold(Figment::new(), Figment::merge);
    let fault = |key: &str, reason: String| {
        let entry = entry(&merged, key);
        Fault { key: entry.key, value: (!entry.value.is_empty()).then_some(entry.value), source: entry.source, reason }
    };
    // serde stops at the first wrong value. To find all, each gives way to its default and the rest is read again.
    let mut wrong = BTreeSet::new();
    let mut readable = merged.clone();
    let settings: Settings = loop {
        let error = match readable.extract() {
            Ok(settings) => break settings,
            Err(error) => error,
        };
        let key = schema.setting_of(&error.path);
        let default = key.as_ref().and_then(|key| schema.defaults.get(key));
        let (Some(key), Some(default)) = (key, default) else {
            faults.push(Fault {
                key: error.path.join("."),
                value: None,
                source: BUILT_IN.to_owned(),
                reason: "does not fit this program".to_owned(),
            });
            return Err(ConfigError::Wrong(faults));
        };
        faults.push(fault(&key, reason(&key, &error.kind)));
        readable =
            readable.merge(Layer { source: BUILT_IN.to_owned(), values: BTreeMap::from([(key.clone(), default.clone())]) });
        if !wrong.insert(key) {
            return Err(ConfigError::Wrong(faults));
        }
    };
    for finding in check(&settings) {
        // A default that stands in for a wrong value proves nothing.
        if !finding.keys.iter().any(|key| wrong.contains(key)) {
            faults.push(fault(&finding.keys[0], finding.reason));
        }
    }
    if !faults.is_empty() {
        return Err(ConfigError::Wrong(faults));
    }
    let entries = schema.defaults.keys().map(|key| entry(&merged, key)).collect();
    Ok((settings, entries))
}

fn entry(figment: &Figment, key: &str) -> Entry {
    let value = figment.find_value(key).ok();
    let source = figment.find_metadata(key).map(|metadata| metadata.name.to_string());
    Entry {
        key: key.to_owned(),
        value: value.map(|value| schema::shown(key, &value)).unwrap_or_default(),
        source: source.unwrap_or_else(|| BUILT_IN.to_owned()),
    }
}

/// What is wrong, without the value: the fault names it, unless it is a secret.
fn reason(key: &str, kind: &Kind) -> String {
    match kind {
        _ if schema::is_secret(key) => "must be text".to_owned(),
        Kind::Message(message) => message.clone(),
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => match expected.as_str() {
            "u16" | "u32" | "u64" | "usize" => "must be a whole number, 0 or more".to_owned(),
            expected => format!("must be {expected}"),
        },
        Kind::UnknownVariant(_, variants) => format!("must be one of {}", variants.join(", ")),
        Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "is out of range".to_owned(),
        other => other.to_string(),
    }
}
