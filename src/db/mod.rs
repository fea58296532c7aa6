//! The database: the pool, the schema, and the private server that stands in for one.

#[cfg(feature = "cli")]
pub mod bench;
pub mod migrate;
pub mod pool;
pub mod private;
pub mod session;
