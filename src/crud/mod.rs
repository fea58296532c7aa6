//! One file a table; the only place with the domain's SQL. Nothing here begins or commits a transaction.

pub mod audit;
pub mod bounds;
pub mod deletion;
pub mod favourites;
pub mod grid;
pub mod lanes;
pub mod manifest;
pub mod overview;
pub mod purge;
pub mod ratings;
pub mod remarks;
pub mod retries;
pub mod reusable;
pub mod spend_sums;
pub mod steering;
pub mod subtasks;
pub mod task_counts;
pub mod task_outcomes;
pub mod task_spend;
pub mod tasks;
pub mod users;
pub mod why;
