//! Pauses of lanes (design, section 8): rows of `imagemill.pauses`, whose SQL stands in this module alone.
//!
//! Nobody asks a memory whether a lane is paused: the transaction that writes the ledger row of a POST looks at the rows, so
//! that a pause holds back what is claimed in every process from its commit on. The memory of a process covers what lies
//! between: a pause that is being written, and a POST whose row was written just before.

mod gate;
mod hold;
mod look;
mod probe;
mod rate;
mod write;

use std::time::Duration;

use tokio::time::Instant;

pub(super) use gate::Gate;
pub(super) use hold::{Hold, Holds};
pub use look::OwnPause;
pub(super) use write::ObservationWriter;

/// Why a lane does not submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum PauseReason {
    /// The token is not taken: 401, 403.
    Auth,
    /// The token's account is out of money: 402.
    Payment,
    /// The upstream says that it is too much: 429, 503.
    Throttled,
    /// Transient errors, one after another.
    Breaker,
    /// A person said so.
    Operator,
}

impl PauseReason {
    /// As it stands in the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Payment => "payment",
            Self::Throttled => "throttled",
            Self::Breaker => "breaker",
            Self::Operator => "operator",
        }
    }
}

/// Which of the upstream's two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Call {
    /// The one that is paid for.
    Submit,
    /// The other.
    Poll,
}

impl Call {
    /// As it stands in the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Poll => "poll",
        }
    }
}

/// What one call told of its lane.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The lane.
    pub lane: String,
    /// Which call.
    pub call: Call,
    /// 8 hex digits of the SHA-256 of the token that it was made with.
    pub token_hash: String,
    /// When it was begun: what happened to the lane later is not known to its answer.
    pub begun: Instant,
    /// What it told.
    pub said: Said,
}

/// See [`Observation`].
#[derive(Debug, Clone)]
pub enum Said {
    /// The token is not taken, or not good for money: its holders stop.
    Refused {
        /// [`PauseReason::Auth`] or [`PauseReason::Payment`].
        reason: PauseReason,
        /// Status and message.
        why: String,
        /// After so long one worker tries again.
        probe_interval: Duration,
    },
    /// Too much: everybody stops for a while.
    Throttled {
        /// Status and message.
        why: String,
        /// For how long, where the upstream said so.
        retry_after: Option<Duration>,
        /// How long otherwise.
        backoff: PauseBackoff,
    },
    /// A transient error; so many in a row, and everybody stops for a while.
    Error {
        /// What went wrong.
        why: String,
        /// How many; 0: never.
        limit: u32,
        /// For how long.
        backoff: PauseBackoff,
    },
    /// The lane works. `by_token`: and the token is good.
    Works {
        /// Whether the answer could not have come without a good token.
        by_token: bool,
    },
}

/// How long a pause lasts when nobody says: doubling with each strike.
#[derive(Debug, Clone, Copy)]
pub struct PauseBackoff {
    /// The first.
    pub shortest: Duration,
    /// None is longer.
    pub longest: Duration,
}
