//! Integration tests: real processes, real PostgreSQL, no network but loopback.

// In a test they are how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod main_job;
mod make_image;
mod support;
