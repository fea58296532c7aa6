//! imagemill: a durable job queue on PostgreSQL that runs image-generation experiments.
#[cfg(feature = "cli")]
pub mod commands;
pub mod config;
pub mod db;
pub mod models;
