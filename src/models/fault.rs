//! What is wrong with an input: every fault at once, each with its path.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where: `prompts[2].weight`, `seed.value`; `axes` and `cells` for what is wrong with the grid as a whole.
    pub path: String,
    /// What is wrong and what would be right, on one line.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}

/// Every fault of one input, in the order of the input; as text one line, `path: message; path: message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", joined(.0))]
pub struct Faults(pub Vec<Fault>);

fn joined(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    lines.join("; ")
}
