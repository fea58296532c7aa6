//! What a handler returns; [`super::settle`] is the one place that turns it into what is written.

use std::time::Duration;

use serde_json::Value;

use super::ledger::AttemptState;

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it was for.
    Done,
    /// It ended without, for good.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
    /// It runs again after a while, and begins anew: a policy allows another attempt.
    RetryAfter(Duration),
    /// The submit was surely not taken; it runs again after a while and no attempt is counted.
    TurnedAway(Duration),
    /// Another worker goes on with it at once, under the same attempt.
    HandedOver,
    /// It runs again after a while under the same attempt, which stays open.
    ResumeAfter(Duration),
    /// The claim is lost: somebody else has the job, and nothing is written.
    LeaseLost,
}

impl Verdict {
    /// Whether the job runs again.
    pub fn is_to_run_again(self) -> bool {
        !matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// How the attempt ended that is open for the job's cell.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEnd {
    /// Its row; none means: whichever is open.
    pub ordinal: Option<i32>,
    /// The state that it ends in.
    pub state: AttemptState,
    /// Status of the submit's answer, if that is what ended it.
    pub http_status: Option<u16>,
    /// The upstream's message, or what went wrong on the way.
    pub error: Option<String>,
    /// Polls that were answered under this claim.
    pub polls: i32,
}

impl AttemptEnd {
    /// The open attempt, whichever it is, ends in this state.
    pub fn open(state: AttemptState, error: impl Into<String>) -> Self {
        Self { ordinal: None, state, http_status: None, error: Some(error.into()), polls: 0 }
    }
}

/// What a handler returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What becomes of the job.
    pub verdict: Verdict,
    /// Why it failed, as a word that never changes meaning; with [`Verdict::Failed`] only.
    pub error_kind: Option<&'static str>,
    /// Why, in words.
    pub error: Option<String>,
    /// The end of its attempt, if one ends with it.
    pub attempt: Option<AttemptEnd>,
    /// What the job leaves behind, for the hook that knows what it means.
    pub result: Option<Value>,
}

/// The kind of a fault of ours.
pub const INTERNAL: &str = "internal";
/// The kind of a job that ends its process again and again.
const CRASH_LOOP: &str = "crash_loop";

impl Outcome {
    /// A bare verdict.
    pub fn new(verdict: Verdict) -> Self {
        Self { verdict, error_kind: None, error: None, attempt: None, result: None }
    }

    /// Done, with nothing to say.
    pub fn done() -> Self {
        Self::new(Verdict::Done)
    }

    /// Failed for good.
    pub fn failed(error_kind: &'static str, error: impl Into<String>) -> Self {
        Self { error_kind: Some(error_kind), ..Self::new(Verdict::Failed) }.because(error)
    }

    /// A fault of ours. What becomes of an open attempt is settled by its state: `submitting` ends as `unknown`,
    /// `accepted` as `abandoned`.
    pub fn internal(error: impl Into<String>) -> Self {
        Self::failed(INTERNAL, error)
    }

    /// Not run any more.
    pub(super) fn crash_loop(crashes: i32) -> Self {
        Self::failed(CRASH_LOOP, format!("{crashes} workers ended while they held it, and it made no progress"))
    }

    /// With the reason in words.
    #[must_use]
    pub fn because(mut self, error: impl Into<String>) -> Self {
        // PostgreSQL's text holds no NUL: a reason that has one would be refused, and the settle with it.
        self.error = Some(error.into().replace('\0', "\u{fffd}"));
        self
    }

    /// With the end of its attempt.
    #[must_use]
    pub fn ending(mut self, attempt: AttemptEnd) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// With what it leaves behind.
    #[must_use]
    pub fn leaving(mut self, result: Value) -> Self {
        self.result = Some(result);
        self
    }
}
