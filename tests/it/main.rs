//! Integration tests: real processes, real PostgreSQL, no network but loopback.

// In a test they are how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kill;
mod main_job;
mod private_server;
mod psql;
mod sharing;
mod support;
mod test_database;
mod users;
