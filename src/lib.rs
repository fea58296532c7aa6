//! imagemill: a durable job queue on PostgreSQL that runs image-generation experiments.
//!
//! A task describes a grid: prompts and settings, each a constant or an axis with several values. It is expanded into cells;
//! each cell is one picture and one job. Task, cells and jobs are committed together; worker processes call the image API
//! for each cell until it has its picture or a reason why not; then one completion job rolls the task up.
//!
//! # Table of contents
//!
//! The modules, in reading order:
//!
//! | module | what it holds | knows of |
//! |---|---|---|
//! | [`models`] | pure data: from a task's input to its cells and to the body of each submit; states, roles, payloads | nothing |
//! | [`crud`] | one file a table; the domain's SQL | `models` |
//! | [`queue`] | the engine: enqueue, claim, beat, rescue, settle, the submit ledger; jobs as text, nothing of images | nothing |
//! | [`services`] | the decisions: who may do what, what is enqueued, retry or fail | `crud`, `queue` |
//! | [`config`] | the settings, each with its source | nothing |
//! | [`db`] | the pool, the schema, the private PostgreSQL | `config` |
//! | [`app`] | starting and stopping a program | `db`, `services` |
//! | `commands` | one file a command of the command line (feature `cli`) | all of it |
//! | `simulator` | a test double of the image API (feature `cli`) | nothing |
//!
//! The handlers of the jobs, and the list of them, are not part of the library: they stand in the program, in `jobs/`.
//!
//! # What to call
//!
//! | to | call |
//! |---|---|
//! | start and stop | [`initialize_app`], [`shutdown_app`] |
//! | check an input: every fault at once | [`validate_prompts`], [`validate_setting`], [`models::TaskDefinition::from_json`] |
//! | see what would become of it | [`plan_task`] |
//! | create a task in a transaction of its own, or in the caller's | [`create_task`], [`create_task_in`] |
//! | look at its grid: one slice in pages, and what has changed of it | [`task_matrix`] |
//! | wait for its end | [`await_task`] |
//! | cancel a task or a cell; end a task by force | [`cancel_task`], [`cancel_subtask`], [`force_complete_task`] |
//! | run ended cells again | [`retry_task`] |
//! | put a task's state right by hand, along an edge of its diagram | [`update_task_status`] |
//! | take a task's cells away as data, page by page | [`export_task`] |
//! | rate pictures, say something of them, keep tasks at hand | [`rate_task`], [`set_rating`], [`add_remark`], [`remove_remark`], [`set_favourite`] |
//! | delete a task and take it back; use its input again | [`delete_task`], [`restore_task`], [`reuse_task`] |
//! | delete tasks that ended long ago, and keep the sums of what was paid for | [`purge_tasks`] |
//! | run cells in this process, by a lease like any worker | `process_subtask`, `process_pending_subtasks` (feature `worker`) |
//! | call the image API alone, outside any queue | `make_image` with `MakeImageParams` (feature `worker`) |
//! | people | [`create_user`], [`get_all_users`] |
//!
//! # Features
//!
//! `worker` (default) adds the HTTP client, `cli` (default) the command line, the simulator and the log files. A producer
//! takes `default-features = false` and has neither; `examples/producer.rs` is such a program.

pub mod app;
#[cfg(feature = "cli")]
mod canvas;
#[cfg(feature = "cli")]
pub mod commands;
pub mod config;
pub mod crud;
pub mod db;
pub mod models;
pub mod queue;
pub mod services;
#[cfg(feature = "cli")]
pub mod simulator;

pub use app::{initialize_app, shutdown_app};
pub use models::{validate_prompts, validate_setting};
pub use services::export::export_task;
pub use services::favourites::set_favourite;
pub use services::grid_service::task_matrix;
#[cfg(feature = "worker")]
pub use services::make_image::{MakeImageParams, make_image};
#[cfg(feature = "worker")]
pub use services::processing::{process_pending_subtasks, process_subtask};
pub use services::ratings::rate_task;
pub use services::remarks::{add_remark, remove_remark};
pub use services::reuse::reuse_task;
pub use services::subtask_service::cancel_subtask;
pub use services::subtask_service::set_rating;
pub use services::task_deletion::{delete_task, restore_task};
pub use services::task_service::{await_task, create_task, create_task_in, plan_task, purge_tasks, update_task_status};
pub use services::task_service::{cancel_task, force_complete_task, retry_task};
pub use services::user_service::{create_user, get_all_users};
