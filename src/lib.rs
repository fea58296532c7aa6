//! imagemill: a durable job queue on PostgreSQL that runs image-generation experiments.
pub mod config;
pub mod models;
