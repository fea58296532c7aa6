//! Pure data: from a task to its cells and to the body of each submit. No IO, no clock.
//!
//! Reading order: [`task_definition`](TaskDefinition) (what is accepted), [`grid`](Plan) (how it becomes cells),
//! [`request_body()`] (what is sent for one cell), [`role`](Role) (who may do what).

mod axis;
mod canonical;
mod fault;
mod grid;
mod matrix;
pub mod payload;
mod prompt;
mod prompt_reader;
mod rating_file;
mod ratio;
mod reader;
mod request_body;
mod role;
mod seed;
mod setting;
mod setting_reader;
pub mod status;
mod task_definition;
mod task_input;

#[cfg(test)]
mod tests;

pub use axis::{Axis, prompt_label, value_label};
pub use canonical::{input_sha256, request_sha256, unseeded_sha256};
pub use fault::{Fault, Faults};
pub use grid::{Cell, Plan, plan};
pub use matrix::{MatrixAxis, MatrixQuery};
pub use prompt::{ConstantPrompt, Prompt, PromptKind, VariablePrompt};
pub use prompt_reader::validate_prompts;
pub use rating_file::{CellRating, RatingEntry, RatingFile};
pub use ratio::{Ratio, RatioError};
pub use request_body::{ExpandError, RequestCell, expanded_prompts, may_share_cells, request_body};
pub use role::{Permission, Role, UnknownRole, permissions};
pub use seed::{MAX_SEED, copy_seed, random_seed};
pub use setting::{Setting, Settings};
pub use setting_reader::{validate_setting, validate_settings};
pub use task_definition::{LANES, TaskDefinition, TaskLimits};
pub use task_input::{IntoSetting, SettingInput, TaskInput};
