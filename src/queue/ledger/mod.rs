//! The submit ledger: `imagemill.attempts`, whose SQL stands in this module alone.
//!
//! A row is committed before its POST leaves, and the upstream's id before the first poll; so whatever dies, what was
//! paid for is known by id, or known to be unknown. All of it goes by arrays: cells that reach a step within a few
//! milliseconds share its transaction.

mod close;
mod evidence;
mod open;
mod read;
mod reopen;
mod resolve;

use std::time::Duration;

use uuid::Uuid;

pub use close::close_leftovers;
pub(super) use close::{Close, close, state_of};
pub(super) use evidence::never_left;
pub use evidence::{Acceptance, Evidence, accepted};
pub(super) use open::insert_again;
pub use open::{Begun, Submit, begin};
pub use read::{AttemptRow, GivenUp, History, LastAttempt, OpenAttempt, Past, get_by_cells, last_attempts, pasts};
pub use reopen::{put_off, reopen};
pub use resolve::{
    EarlierSubmit, Resolution, UnknownAttempt, answer_until, given_up, holder_of, may_be_answered, resolve, unknown,
    with_late_ids,
};

/// A POST leaves within so long of the moment at which its row was asked for, or not at all. So whoever ends a cell knows from the
/// row's `submitted_at` until when a POST of it may still leave; the migration that makes `imagemill.end_cells` says how.
pub(super) const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// State of an attempt (design, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AttemptState {
    /// Open: the row stands, the POST may be out.
    Submitting,
    /// Open: the upstream has it, under an id.
    Accepted,
    /// The POST never left.
    NotSent,
    /// 401 402 403 429 503: surely not taken.
    TurnedAway,
    /// The upstream did not take the request.
    Rejected,
    /// A picture.
    Succeeded,
    /// The upstream failed.
    Failed,
    /// The content was refused.
    Refused,
    /// The upstream gave up.
    TimedOut,
    /// Given up or cancelled while the upstream had not said the end.
    Abandoned,
    /// Whether it was taken is not known.
    Unknown,
}

impl AttemptState {
    /// Whether `attempt_count` leaves it out: nothing was paid for, or could have been.
    pub const fn is_uncounted(self) -> bool {
        matches!(self, Self::NotSent | Self::TurnedAway)
    }

    /// Whether it counts against a budget once it has ended: it was billed, or perhaps.
    pub const fn is_billed(self) -> bool {
        !self.is_uncounted() && !matches!(self, Self::Rejected)
    }

    /// As it stands in the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitting => "submitting",
            Self::Accepted => "accepted",
            Self::NotSent => "not_sent",
            Self::TurnedAway => "turned_away",
            Self::Rejected => "rejected",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
            Self::Unknown => "unknown",
        }
    }
}

/// An interval as a row says it: a clock that went back is no negative time.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

/// Sorts by cell: rows are locked in the order of their ids.
fn by_cell<T>(mut members: Vec<(Uuid, T)>) -> Vec<(Uuid, T)> {
    members.sort_by_key(|(cell, _)| *cell);
    members
}
