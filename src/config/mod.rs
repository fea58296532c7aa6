//! Settings: where they come from, what they are, and what is wrong with them.

mod duration;
mod settings;

pub use settings::*;
