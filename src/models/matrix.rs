//! One slice of a task's grid: which axes it shows, and what the others are held at.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// An axis of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MatrixAxis {
    /// An axis of the task, by its number.
    Axis(u32),
    /// The copies of each combination.
    Copy,
}

impl std::fmt::Display for MatrixAxis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Axis(number) => write!(formatter, "{number}"),
            Self::Copy => formatter.write_str("copy"),
        }
    }
}

/// What is asked for of a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixQuery {
    /// From left to right; none: one column.
    pub x_axis: Option<MatrixAxis>,
    /// From top to bottom; none: one row.
    pub y_axis: Option<MatrixAxis>,
    /// The index of the value at which another axis is held; those that are left out are at 0.
    pub fixed: BTreeMap<MatrixAxis, u32>,
    /// The first place of the page, counted row by row from 0.
    pub from_position: i64,
    /// Cells at most, 1 to 50,000.
    pub page_size: i32,
    /// Only cells that have changed since the cursor of an earlier answer.
    pub changed_since: Option<String>,
}

impl Default for MatrixQuery {
    /// The first cell alone; 1,000 cells a page.
    fn default() -> Self {
        Self { x_axis: None, y_axis: None, fixed: BTreeMap::new(), from_position: 0, page_size: 1_000, changed_since: None }
    }
}

impl MatrixQuery {
    /// The fixed values as SQL takes them: value indices by axis.
    pub fn fixed_json(&self) -> Value {
        Value::Object(self.fixed.iter().map(|(axis, index)| (axis.to_string(), json!(index))).collect::<Map<_, _>>())
    }
}
