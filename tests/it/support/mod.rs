//! What tests share.

mod postgres;
mod run_directory;
mod world;

pub(crate) use postgres::{database, empty_database};
pub(crate) use run_directory::temporary_directory;
pub(crate) use world::{BOUND, LEASE, Process, TOKEN, World, eventually};
