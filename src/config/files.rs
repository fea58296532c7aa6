//! The layers that files hold: `Config.toml` and the `.env` files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    fault::{ConfigError, Fault},
    schema::{self, Layer, Schema},
    variables::VariableLayer,
};

/// The layers of a TOML text, weakest first: `[default]`, then the profile. Every profile's names are checked,
/// the picked one or not.
pub(super) fn toml_layers(text: &str, source: &str, profile: &str, schema: &Schema, faults: &mut Vec<Fault>) -> Vec<Layer> {
    let mut profiles = match schema::profiles(text, source) {
        Ok(profiles) => profiles,
        Err(wrong) => {
            faults.extend(wrong);
            return Vec::new();
        }
    };
    for (name, values) in &mut profiles {
        values.retain(|key, _| {
            let known = schema.has(key);
            if !known {
                faults.push(unknown(key, format!("{source} [{name}]"), schema));
            }
            known
        });
    }
    ["default", profile]
        .into_iter()
        .filter_map(|name| {
            let source = format!("{source} [{name}]");
            let values = profiles.remove(name)?;
            Some(Layer { source, values })
        })
        .collect()
}

/// The fault of a name that is no setting. Its value is left out: it may be a misspelled secret.
pub(super) fn unknown(key: &str, source: String, schema: &Schema) -> Fault {
    let reason = if schema.has_section(key) { "is a section, not a setting" } else { "there is no such setting" };
    Fault { key: key.to_owned(), value: None, source, reason: reason.to_owned() }
}

/// Reads a `.env` file; a missing one is an empty one. In one file the last of two equal names counts, and
/// `$NAME` outside single quotes is replaced.
pub(super) fn env_file(path: &Path, faults: &mut Vec<Fault>) -> Result<VariableLayer, ConfigError> {
    let source = path.display().to_string();
    let text = read(path.to_owned())?.unwrap_or_default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut variables = BTreeMap::new();
    for item in dotenvy::from_read_iter(text.as_bytes()) {
        match item {
            Ok((name, value)) => {
                variables.insert(name, value);
            }
            // The error itself repeats the line, which may hold a secret.
            Err(dotenvy::Error::LineParse(line, _)) => faults.push(Fault {
                key: "file".to_owned(),
                value: None,
                source: match line_number(text, &line) {
                    Some(number) => format!("{source} line {number}"),
                    None => source.clone(),
                },
                reason: "is not NAME=value; a value with spaces or quotes stands in quotes".to_owned(),
            }),
            Err(error) => {
                return Err(ConfigError::Unreadable { path: path.to_owned(), source: io::Error::other(error) });
            }
        }
    }
    Ok(VariableLayer { file: Some(source), variables })
}

/// The text of a file, or none if there is no such file.
pub(super) fn read(path: PathBuf) -> Result<Option<String>, ConfigError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

fn line_number(text: &str, line: &str) -> Option<usize> {
    let first = line.lines().next()?;
    let index = text.lines().position(|line| line.starts_with(first))?;
    Some(index + 1)
}
