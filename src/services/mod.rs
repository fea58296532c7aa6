//! The decisions: what is allowed, what is enqueued, retry or fail. Only here and in the queue are transactions begun.

pub mod actor;
pub mod attempt_service;
#[cfg(feature = "worker")]
mod cell_outcome;
mod cell_settle;
mod conflict;
pub mod context;
mod create_task;
pub mod error;
mod init_users;
pub mod lane_service;
#[cfg(feature = "worker")]
mod load_cells;
#[cfg(feature = "worker")]
pub mod make_image;
pub mod password;
#[cfg(feature = "worker")]
pub mod pause_watch;
#[cfg(feature = "worker")]
pub mod pauses;
pub mod processing;
mod purge;
mod retry_task;
#[cfg(feature = "worker")]
mod run_cell;
mod steer_task;
pub mod subtask_service;
#[cfg(feature = "worker")]
mod take_up;
pub mod task_progress;
pub mod task_service;
mod task_settle;
pub mod user_service;
