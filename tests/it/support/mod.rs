//! What tests share.

mod postgres;
mod run_directory;

pub(crate) use postgres::database;
pub(crate) use run_directory::temporary_directory;
