//! The decisions: what is allowed, what is enqueued, retry or fail. Only here and in the queue are transactions begun.

pub mod actor;
pub mod attempt_service;
pub mod bounds;
#[cfg(feature = "worker")]
mod cell_journal;
#[cfg(feature = "worker")]
mod cell_outcome;
#[cfg(feature = "worker")]
mod cell_picture;
mod cell_settle;
mod conflict;
pub mod context;
mod create_task;
pub mod error;
pub mod export;
pub mod favourites;
pub mod grid_service;
mod init_users;
pub mod lane_service;
#[cfg(feature = "worker")]
mod load_cells;
#[cfg(feature = "worker")]
pub mod make_image;
pub mod overdue;
pub mod overview_service;
pub mod password;
#[cfg(feature = "worker")]
pub mod pause_watch;
#[cfg(feature = "worker")]
pub mod pauses;
pub mod planned_waits;
pub mod processing;
mod purge;
pub mod ratings;
pub mod remarks;
mod retry_task;
pub mod reuse;
#[cfg(feature = "worker")]
mod run_cell;
mod steer_task;
pub mod subtask_service;
mod take_over;
#[cfg(feature = "worker")]
mod take_up;
pub mod task_deletion;
pub mod task_progress;
pub mod task_service;
mod task_settle;
mod task_spend;
pub mod user_service;
