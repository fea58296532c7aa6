//! The queue engine: enqueue, claim, beat, rescue, settle, listen, and the thin apalis Backends over it.
//!
//! It knows jobs, attempts, lanes, groups and owners as text; it knows nothing of images. What a job means is asked of
//! the one hook, [`Settle`]. The rules are those of design section 7.

mod acknowledge;
mod alone;
mod aside;
mod backend;
mod beat;
mod cancel;
mod claim;
mod claimer;
mod clock;
mod connections;
mod engine;
mod enqueue;
mod error;
mod execute;
pub mod fault;
mod grant;
pub(crate) mod group;
mod health;
mod hint;
mod incarnation;
mod job;
mod kept;
mod leave;
pub mod ledger;
mod listen;
mod outcome;
mod overview;
mod pauses;
mod polls;
mod prune;
mod purge;
mod reconcile;
mod rescue;
mod restore;
mod settle;
mod shared;
mod slots;
#[cfg(any(feature = "cli", feature = "faults"))]
pub mod steps;
mod tokens;
mod turns;
mod unwritten;
mod wake;
mod writers;

pub use backend::{Handler, QueueBackend, SettleLayer, SettleService};
pub use connections::Connections;
#[cfg(feature = "worker")]
pub(crate) use connections::LockWait;
pub use engine::{Engine, EngineOptions, Queue, UntilEmpty};
pub use enqueue::{
    Batch, HeldKey, WAKE_CHANNEL, any_open, begin_anew, enqueue, kill_pending, lock_keys, open_keys, put_off, reopen, resume,
};
pub use error::QueueError;
pub use execute::decoded;
pub use grant::Grant;
pub use health::{HostBeat, beats_of_host, host};
pub use job::Job;
pub use leave::Leave;
pub use outcome::{AttemptEnd, INTERNAL, Outcome, Verdict};
pub use overview::{LaneLoad, MOST_COUNTED, WorkerRow, get_loads, get_workers};
pub use pauses::{Call, Observation, OwnPause, PauseBackoff, PauseReason, Said};
pub use polls::{Poller, Turn};
pub use prune::{BATCH, PrunedBatch, PrunedRound, Pruner, prune_batch};
pub use purge::{SpentSum, cells_in_flight, delete_attempts, delete_ended};
pub use settle::{Moved, Opened, Settle, Settled, settle};
pub use tokens::{Interrupt, JobTokens};
