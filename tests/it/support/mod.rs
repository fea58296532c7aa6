//! What tests share.

mod own_server;
mod postgres;
mod proxy;
mod run_directory;
mod seed;
mod world;

pub(crate) use own_server::{OwnServer, Stop};
pub(crate) use postgres::{TestDatabase, database, empty_database};
pub(crate) use proxy::{Commit, Message, Messages, Orders, Proxy, Reached, Server};
pub(crate) use run_directory::temporary_directory;
pub(crate) use seed::seed;
pub(crate) use world::{BOUND, LEASE, Process, TOKEN, World, eventually, eventually_within};
