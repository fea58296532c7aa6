//! A task file: read and checked as a whole.

use std::{io::Read as _, path::Path};

use super::report::Failure;
use crate::{
    config::LimitSettings,
    models::{Faults, TaskDefinition},
};

/// Reads a task; `-` means standard input. Every fault is named in one line, each with its path.
pub fn read(file: &Path, limits: &LimitSettings) -> Result<TaskDefinition, Failure> {
    read_beside(file, limits, Faults(Vec::new()))
}

/// The same beside faults of what was said with it: they are named in the same line.
pub fn read_beside(file: &Path, limits: &LimitSettings, others: Faults) -> Result<TaskDefinition, Failure> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let text = text.map_err(|error| Failure::usage(format_args!("cannot read {name}: {error}; name a task file (JSON)")))?;
    parse_beside(&name, &text, limits, others)
}

/// The same for a text.
pub(super) fn parse(name: &str, text: &str, limits: &LimitSettings) -> Result<TaskDefinition, Failure> {
    parse_beside(name, text, limits, Faults(Vec::new()))
}

fn parse_beside(name: &str, text: &str, limits: &LimitSettings, others: Faults) -> Result<TaskDefinition, Failure> {
    let value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Failure::usage(format_args!("{name} is not JSON: {error}")))?;
    let (definition, faults) = match TaskDefinition::from_json(&value, &limits.into()) {
        Ok(definition) => (Some(definition), others),
        Err(Faults(faults)) => (None, Faults([faults, others.0].concat())),
    };
    match definition {
        Some(definition) if faults.0.is_empty() => Ok(definition),
        _ => {
            let count = faults.0.len();
            let noun = if count == 1 { "fault" } else { "faults" };
            Err(Failure::usage(format_args!("{name} has {count} {noun}: {faults}")))
        }
    }
}
