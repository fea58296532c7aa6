//! One accepted job, and what its polls are told.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Behaviour, LedgerEntry, TaskStatus};

/// What a poll is answered with.
#[derive(Debug)]
pub(super) enum PollAnswer {
    /// The job's state; `message` goes to `err_msg`.
    Status {
        status: TaskStatus,
        message: Option<String>,
        /// Width and height of the picture, if the job has one to show.
        picture: Option<(u64, u64)>,
    },
    /// No such job.
    NotFound,
    /// An error status, perhaps with `Retry-After` in seconds.
    Error(u16, Option<u64>),
    /// No answer but a reset.
    Reset,
}

/// An accepted submit and what follows from it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) entry: LedgerEntry,
    pub(super) pending_polls: u64,
    pub(super) duration: Duration,
    pub(super) accepted: Instant,
    /// Polls that had been seen when the behaviour was last set.
    pub(super) polls_before: u64,
    /// `SUCCESS` answers without artifacts so far.
    pub(super) empty_answers: u64,
    /// Whether it is counted in [`super::Stats::in_flight`].
    pub(super) is_in_flight: bool,
}

impl Job {
    /// What the poll with this number, counted since the behaviour was set, is told.
    pub(super) fn tell(&mut self, number: u64) -> PollAnswer {
        let working = |status| PollAnswer::Status { status, message: None, picture: None };
        let before = match &self.entry.behaviour {
            Behaviour::Lost => return PollAnswer::NotFound,
            Behaviour::PendingForever => return working(TaskStatus::Pending),
            Behaviour::PollError { polls, status, retry_after } => {
                if number <= *polls {
                    return PollAnswer::Error(*status, *retry_after);
                }
                *polls
            }
            Behaviour::PollReset { polls } => {
                if number <= *polls {
                    return PollAnswer::Reset;
                }
                *polls
            }
            Behaviour::ModerationFirst { polls } => {
                if number <= *polls {
                    return working(TaskStatus::Moderation);
                }
                *polls
            }
            _ => 0,
        };
        let is_done = number - before > self.pending_polls && self.accepted.elapsed() >= self.duration;
        if !is_done {
            return working(TaskStatus::Pending);
        }
        self.end()
    }

    fn end(&mut self) -> PollAnswer {
        let (status, message) = match &self.entry.behaviour {
            Behaviour::Failure { message } => (TaskStatus::Failure, Some(message.clone())),
            Behaviour::Timeout => (TaskStatus::Timeout, None),
            Behaviour::IllegalImage => (TaskStatus::IllegalImage, None),
            Behaviour::Deleted => (TaskStatus::Deleted, None),
            _ => (TaskStatus::Success, None),
        };
        let is_empty = matches!(
            &self.entry.behaviour,
            Behaviour::EmptySuccess { polls } if polls.is_none_or(|polls| self.empty_answers < polls)
        );
        if is_empty {
            self.empty_answers += 1;
        }
        let has_picture = status == TaskStatus::Success && !is_empty;
        PollAnswer::Status { status, message, picture: has_picture.then(|| size(&self.entry.body)).flatten() }
    }
}

/// Width and height that a submit's body asks for, each from 1 to 65535.
pub(super) fn size(body: &Value) -> Option<(u64, u64)> {
    let side = |key| body.get(key)?.as_u64().filter(|side| (1..=65_535).contains(side));
    side("width").zip(side("height"))
}
