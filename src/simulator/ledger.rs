//! What the simulator remembers and shows: the billing ledger and the counters.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Behaviour, options};

/// One accepted submit: what a real upstream would have billed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Which POST it was, the first being 1; refused ones count, so that numbers can be missing here.
    pub arrival: u64,
    /// The id of the job that it began.
    pub upstream_id: String,
    /// What the request-id header said.
    pub request_id: Option<String>,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// The submit's body.
    pub body: Value,
    /// What was chosen for it.
    pub behaviour: Behaviour,
    /// Whether its answer was written. False while it is held, and for ever when the connection ended first.
    pub answered: bool,
    /// Polls of the job that arrived with the right token.
    pub polls: u64,
    /// When the last of them arrived.
    pub last_polled_at: Option<DateTime<Utc>>,
    /// What the last poll was told; none if no poll was told a status yet.
    pub task_status: Option<TaskStatus>,
}

impl LedgerEntry {
    /// The body's seed.
    pub fn seed(&self) -> Option<i64> {
        self.body.get("seed")?.as_i64()
    }

    /// The value of the body's first prompt.
    pub fn first_prompt(&self) -> Option<&str> {
        options::first_prompt(&self.body)
    }
}

/// The `task_status` of a poll answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Still working.
    Pending,
    /// Still working: the request is being looked at.
    Moderation,
    /// Done.
    Success,
    /// Failed.
    Failure,
    /// The upstream gave up.
    Timeout,
    /// The picture was made and refused.
    IllegalImage,
    /// Gone.
    Deleted,
}

impl TaskStatus {
    /// Whether the job is over.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Moderation)
    }
}

/// The counters of a simulator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Submits that arrived.
    pub arrivals: u64,
    /// Submits that were accepted, the length of the ledger.
    pub accepted: u64,
    /// Accepted submits whose connection ended before their answer.
    pub unanswered: u64,
    /// Polls that arrived.
    pub polls: u64,
    /// Accepted jobs that a client may be waiting for: no poll was told the end yet, the job is not lost, and the
    /// submit was answered, or still can be, with the job's id.
    pub in_flight: u64,
    /// The most that `in_flight` has been.
    pub max_in_flight: u64,
    /// Submits that were reset, before or after being accepted.
    pub submit_resets: u64,
    /// Polls that were reset.
    pub poll_resets: u64,
    /// Answers to submits, by status code.
    pub submit_statuses: BTreeMap<u16, u64>,
    /// Answers to polls, by status code.
    pub poll_statuses: BTreeMap<u16, u64>,
    /// Polls by the job's id.
    pub polls_by_upstream_id: BTreeMap<String, u64>,
}
