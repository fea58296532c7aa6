//! What is wrong with the settings.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

/// Why there are no settings. Each is one line, and none holds a secret.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that is there, or was named, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Wrong values: all that were found.
    #[error("{}", list(.0))]
    Wrong(Vec<Fault>),
}

/// One wrong value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted name of the setting, for instance `queue.lease`.
    pub key: String,
    /// The value as given; none when there is none, or when it may be a secret.
    pub value: Option<String>,
    /// Where the value came from: a file, or an environment variable.
    pub source: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(value) = &self.value {
            // A value with a line break must not make the error two lines.
            let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            write!(f, " = `{value}`")?;
        }
        write!(f, " ({}): {}", self.source, self.reason)
    }
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    let noun = match faults.len() {
        1 => "1 wrong setting".to_owned(),
        number => format!("{number} wrong settings"),
    };
    format!("{noun}: {}", lines.join("; "))
}
