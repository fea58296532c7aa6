//! The decisions: what is allowed, what is enqueued, retry or fail. Only here and in the queue are transactions begun.

pub mod actor;
#[cfg(feature = "worker")]
mod cell_outcome;
mod cell_settle;
pub mod context;
mod create_task;
pub mod error;
pub mod grid_service;
mod init_users;
#[cfg(feature = "worker")]
mod load_cells;
#[cfg(feature = "worker")]
pub mod make_image;
pub mod overview_service;
pub mod password;
pub mod processing;
mod purge;
#[cfg(feature = "worker")]
mod run_cell;
pub mod subtask_service;
pub mod task_progress;
pub mod task_service;
mod task_settle;
pub mod user_service;
