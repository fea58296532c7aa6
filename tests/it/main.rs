//! Integration tests: real processes, real PostgreSQL, no network but loopback.

// In a test they are how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod bench;
mod commands;
mod crashes;
mod create_task;
mod demo;
mod deploy;
mod export;
mod faults;
mod grid;
mod guards;
mod health;
mod keeping;
mod kill;
mod lease;
mod licences;
mod limits;
mod live_schema;
mod main_job;
mod make_image;
mod model;
mod pauses;
mod payloads;
mod pgbouncer;
mod private_server;
mod producer;
mod psql;
mod purge;
mod questions;
mod readme;
mod retention;
mod reuse;
mod roles;
mod run_command;
mod schema;
mod sharing;
mod steering;
mod support;
mod test_database;
mod upgrade;
mod users;
mod wake;
mod why;
