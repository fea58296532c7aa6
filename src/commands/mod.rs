//! One file a command of the command line: a plain function with plain arguments.

pub mod config;
pub mod init_users;
pub mod logs;
pub mod psql;
pub mod report;
pub mod simulate;
mod table;
pub mod user;
