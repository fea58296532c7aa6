//! Settings: where they come from, what they are, and what is wrong with them.
//!
//! Every setting stands in the built-in `Config.toml`. Later layers beat earlier ones: the built-in file, a
//! `Config.toml` of the operator's, `.env`, `.env.<profile>`, the environment.

mod check;
mod duration;
mod fault;
mod files;
mod load;
mod merge;
mod optional;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
mod variables;

pub use duration::parse_duration;
pub use fault::{ConfigError, Fault};
pub use load::{LoadOptions, Loaded, load};
pub use merge::Entry;
pub use settings::*;
