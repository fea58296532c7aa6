//! The commands of the command line, one file a command: plain async functions with plain arguments.

pub mod psql;
