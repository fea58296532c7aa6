//! imagemill: a durable job queue on PostgreSQL that runs image-generation experiments.
pub mod app;
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
