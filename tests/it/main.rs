//! Integration tests: real processes, real PostgreSQL, no network but loopback.

// In a test they are how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod commands;
mod create_task;
mod demo;
mod guards;
mod kill;
mod lease;
mod licences;
mod main_job;
mod make_image;
mod private_server;
mod producer;
mod psql;
mod purge;
mod readme;
mod retention;
mod run_command;
mod schema;
mod sharing;
mod support;
mod test_database;
mod users;
