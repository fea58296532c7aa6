//! A task file: read and checked as a whole.

use std::{io::Read as _, path::Path};

use super::report::Failure;
use crate::{config::LimitSettings, models::TaskDefinition};

/// Reads a task; `-` means standard input. Every fault is named in one line, each with its path.
pub fn read(file: &Path, limits: &LimitSettings) -> Result<TaskDefinition, Failure> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let text = text.map_err(|error| Failure::usage(format_args!("cannot read {name}: {error}; name a task file (JSON)")))?;
    parse(&name, &text, limits)
}

/// The same for a text.
pub(super) fn parse(name: &str, text: &str, limits: &LimitSettings) -> Result<TaskDefinition, Failure> {
    let value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Failure::usage(format_args!("{name} is not JSON: {error}")))?;
    TaskDefinition::from_json(&value, &limits.into()).map_err(|faults| {
        let count = faults.0.len();
        let noun = if count == 1 { "fault" } else { "faults" };
        Failure::usage(format_args!("{name} has {count} {noun}: {faults}"))
    })
}
