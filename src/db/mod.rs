//! The database: the pool, the schema, and the private server that stands in for one.

#[cfg(feature = "cli")]
pub mod bench;
mod indexes;
pub mod migrate;
pub mod patience;
pub mod pool;
pub mod private;
mod roles;
pub mod session;
mod views;
