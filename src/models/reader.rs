//! Reads untrusted JSON and gathers faults instead of stopping at the first.
//!
//! Every reading function answers `None` only after it has recorded a fault, so a caller can go on with what follows.

use std::collections::{HashMap, hash_map::Entry};

use serde_json::{Map, Value};

use super::{Fault, Faults, TaskLimits};

/// Longest part of a wrong value that a message repeats, in characters.
const SHOWN_CHARACTERS: usize = 60;

/// Where an axis stands in the input, and as much of it as the rules on the grid as a whole need.
pub(super) struct AxisSite {
    pub(super) path: String,
    pub(super) variable_id: Option<String>,
    pub(super) values: usize,
}

#[derive(Default)]
pub(super) struct Reader {
    faults: Vec<Fault>,
    sites: Vec<AxisSite>,
}

impl Reader {
    pub(super) fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.faults.push(Fault { path: path.into(), message: message.into() });
    }

    /// The value, if nothing was wrong anywhere.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.faults)),
        }
    }

    /// Everything that was found to be wrong.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    pub(super) fn object<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let map = value.as_object();
        if map.is_none() {
            self.fault(path, format!("must be an object, not {}", shown(value)));
        }
        map
    }

    /// A fault for each key that is not among `known`.
    pub(super) fn known_keys(&mut self, path: &str, map: &Map<String, Value>, known: &[&str]) {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            self.fault(join(path, key), "is not a known key");
        }
    }

    /// Text that PostgreSQL can store.
    pub(super) fn text(&mut self, path: &str, value: &Value) -> Option<String> {
        match value.as_str() {
            None => self.fault(path, format!("must be text, not {}", shown(value))),
            Some(text) if text.contains('\0') => {
                self.fault(path, "holds a NUL character, which PostgreSQL cannot store");
            }
            Some(text) => return Some(text.to_owned()),
        }
        None
    }

    /// Text that says something; a missing key is a fault.
    pub(super) fn needed_text(&mut self, path: &str, map: &Map<String, Value>, key: &str) -> Option<String> {
        let path = join(path, key);
        let Some(value) = map.get(key) else {
            self.fault(path, "is missing");
            return None;
        };
        let text = self.text(&path, value)?;
        if text.trim().is_empty() {
            self.fault(path, "must not be blank");
            return None;
        }
        Some(text)
    }

    /// Text, or null or nothing at all; `Some(None)` for those two.
    #[allow(clippy::option_option, reason = "outer: was it right, inner: is it there")]
    pub(super) fn optional_text(&mut self, path: &str, map: &Map<String, Value>, key: &str) -> Option<Option<String>> {
        match map.get(key) {
            None | Some(Value::Null) => Some(None),
            Some(value) => self.text(&join(path, key), value).map(Some),
        }
    }

    /// Whether a prompt or a setting is a variable. A wrong value is a fault, and the rest is then read as what it looks like.
    pub(super) fn is_variable(&mut self, path: &str, map: &Map<String, Value>) -> bool {
        match map.get("is_variable") {
            None => false,
            Some(Value::Bool(is_variable)) => *is_variable,
            Some(other) => {
                let message = format!("must be true or false, not {}", shown(other));
                self.fault(join(path, "is_variable"), message);
                map.contains_key("variable_values")
            }
        }
    }

    /// A constant must not carry values: somebody meant it to be a variable.
    pub(super) fn no_values(&mut self, path: &str, map: &Map<String, Value>) {
        if map.get("variable_values").is_some_and(|values| !values.is_null()) {
            self.fault(join(path, "variable_values"), "does not belong to a constant; a variable has is_variable: true");
        }
    }

    /// Id, name and values of a variable, each value read by `read`.
    pub(super) fn variable<T>(
        &mut self,
        path: &str,
        map: &Map<String, Value>,
        mut read: impl FnMut(&mut Self, &str, &Value) -> Option<T>,
    ) -> Option<(String, String, Vec<T>)> {
        let variable_id = self.needed_text(path, map, "variable_id");
        let name = self.needed_text(path, map, "variable_name");
        let values_path = join(path, "variable_values");
        let list = match map.get("variable_values") {
            None | Some(Value::Null) => {
                self.fault(&values_path, "is missing");
                &[][..]
            }
            Some(Value::Array(list)) => {
                if list.is_empty() {
                    self.fault(&values_path, "the list is empty");
                }
                list
            }
            Some(other) => {
                self.fault(&values_path, format!("must be a list, not {}", shown(other)));
                &[]
            }
        };
        let read: Vec<Option<T>> =
            list.iter().enumerate().map(|(index, value)| read(self, &format!("{values_path}[{index}]"), value)).collect();
        self.sites.push(AxisSite { path: path.to_owned(), variable_id: variable_id.clone(), values: list.len() });
        let values = read.into_iter().collect::<Option<Vec<T>>>()?;
        (!values.is_empty()).then_some((variable_id?, name?, values))
    }

    /// What must hold between the axes: each `variable_id` once.
    pub(super) fn distinct_variable_ids(&mut self) {
        let mut first_paths: HashMap<&str, &str> = HashMap::new();
        let mut repeated = Vec::new();
        for site in &self.sites {
            let Some(id) = &site.variable_id else {
                continue;
            };
            match first_paths.entry(id) {
                Entry::Vacant(vacant) => {
                    vacant.insert(&site.path);
                }
                Entry::Occupied(first) => {
                    let id = shown(&Value::from(id.as_str()));
                    let message = format!("{id} is the variable_id of {} already", first.get());
                    repeated.push((join(&site.path, "variable_id"), message));
                }
            }
        }
        for (path, message) in repeated {
            self.fault(path, message);
        }
    }

    /// The limits on the grid of all axes that were read, with `copies` of each combination.
    pub(super) fn limits(&mut self, limits: &TaskLimits, copies: usize) {
        let axes = self.sites.len();
        if axes > limits.max_axes {
            let message = format!("{axes} axes are over the limit of {}", limits.max_axes);
            self.fault("axes", message);
        }
        let mut cells = copies as u128;
        let mut too_long = Vec::new();
        for site in &self.sites {
            // An empty list has its own fault; it must not make the product 0.
            cells = cells.saturating_mul(site.values.max(1) as u128);
            if site.values > limits.max_values_per_axis {
                too_long.push((join(&site.path, "variable_values"), site.values));
            }
        }
        for (path, values) in too_long {
            let most = limits.max_values_per_axis;
            self.fault(path, format!("{values} values are over the limit of {most}"));
        }
        let most = limits.most_cells();
        if cells > most as u128 {
            // A product that no longer fits is said to be at least what it was cut to.
            let at_least = if cells == u128::MAX { "at least " } else { "" };
            let message = format!("{at_least}{cells} cells are over the limit of {most}");
            self.fault("cells", message);
        }
    }

    /// For rules on axes that are known to be right already.
    pub(super) fn of_sites(sites: Vec<AxisSite>) -> Self {
        Self { faults: Vec::new(), sites }
    }
}

/// The path of a key; a key that is not a plain word is quoted, so that every path stays on one line.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '-');
    match (path, plain) {
        ("", true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{}]", shown(&Value::from(key))),
    }
}

/// A value as a message repeats it: JSON, so on one line, and not too long.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARACTERS {
        return text;
    }
    let beginning: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("{beginning}...")
}
