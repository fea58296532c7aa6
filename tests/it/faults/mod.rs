//! The fault harness: real worker processes, PostgreSQL, the simulator, and everything that can go wrong between them.
//!
//! It speaks to the engine through processes, signals, environment, SQL and the simulator's billing ledger alone. A
//! [`fleet`] is a world whose workers reach PostgreSQL through a proxy each; [`record`] has PostgreSQL itself write down every
//! step of every cell, attempt and task; [`judge`] goes through all of it row by row at the end. The other files are the
//! faults. [`chaos`] has all of them at once, by a seed that is printed: `IMAGEMILL_FAULTS_SEED` plays its script again.

mod chaos;
mod commits;
mod failover;
mod fate;
mod fleet;
mod judge;
mod outages;
mod points;
mod record;
mod script;
mod stalls;
mod stop;
mod storms;
