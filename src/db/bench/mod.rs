//! What `imagemill bench` asks of PostgreSQL: SQL that nothing else needs, on servers and databases that it made itself.

pub mod bare;
pub mod drains;
pub mod history;
pub mod lanes;
pub mod rows;
pub mod server;
pub mod statistics;
pub mod stock;
