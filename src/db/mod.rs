//! The database: where it is, and how it comes to be there.

pub mod private;
