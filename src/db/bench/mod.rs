//! What `imagemill bench` asks of PostgreSQL: SQL that nothing else needs, on servers and databases that it made itself.

pub mod drains;
pub mod server;
pub mod stock;
