//! One file a table; the only place with the domain's SQL. Nothing here begins or commits a transaction.

pub mod audit;
pub mod grid;
pub mod overview;
pub mod purge;
pub mod spend_sums;
pub mod subtasks;
pub mod task_counts;
pub mod task_outcomes;
pub mod tasks;
pub mod users;
