//! What becomes of a cell after what happened: the two tables of design section 9, and nothing else. Retry or fail is
//! decided here, once.

use std::time::Duration;

use rand::RngExt as _;

use super::{
    make_image::{PollEnd, SubmitAnswer},
    pauses::HELD,
};
use crate::{
    config::{GenerateImageSettings, UncertainPolicy},
    models::status::ErrorKind,
    queue::{
        AttemptEnd, Interrupt, Outcome, Verdict,
        ledger::{AttemptState, History, OpenAttempt},
    },
};

/// What the tables need to know beside what happened.
pub(super) struct Situation<'a> {
    pub(super) settings: &'a GenerateImageSettings,
    /// The cell's past, without the attempt that ends.
    pub(super) history: &'a History,
    /// The attempt that ends, where its number is known.
    pub(super) ordinal: Option<i32>,
    /// How long an answer to a POST may come, from its submit on.
    pub(super) answer_within: Duration,
    /// False: this run may poll what was paid for, and pay for nothing.
    pub(super) may_pay: bool,
}

impl Situation<'_> {
    fn end(&self, state: AttemptState, error: Option<String>, http_status: Option<u16>, polls: u32) -> AttemptEnd {
        AttemptEnd { ordinal: self.ordinal, state, http_status, error, polls: i32::try_from(polls).unwrap_or(i32::MAX) }
    }

    /// First table: what happened at submit.
    pub(super) fn after_submit(&self, answer: SubmitAnswer) -> Outcome {
        match answer {
            SubmitAnswer::NotSent { error } => {
                let end = self.end(AttemptState::NotSent, Some(error.clone()), None, 0);
                self.come_back().because(error).ending(end)
            }
            SubmitAnswer::TurnedAway { status, error, .. } => {
                // Its lane is paused by now, for as long as the upstream said; what waits longer is this cell alone.
                let end = self.end(AttemptState::TurnedAway, Some(error.clone()), Some(status), 0);
                self.come_back().because(error).ending(end)
            }
            SubmitAnswer::Rejected { status, error } => {
                let end = self.end(AttemptState::Rejected, Some(error.clone()), Some(status), 0);
                failed(ErrorKind::Rejected, error).ending(end)
            }
            SubmitAnswer::Refused { status, error } => {
                let end = self.end(AttemptState::Refused, Some(error.clone()), Some(status), 0);
                failed(ErrorKind::Refused, error).ending(end)
            }
            SubmitAnswer::Unknown { status, error } => self.unknown(error, status),
            // The caller polls an accepted submit; that one comes here is a fault of ours, and it was paid for.
            SubmitAnswer::Accepted { upstream_id, .. } => Outcome::internal(format!("accepted as {upstream_id}, and not polled")),
        }
    }

    /// Cancel was asked for before this run began: what is open is closed as what it is, and nothing is submitted or polled.
    pub(super) fn cancelled(&self, open: Option<OpenAttempt>) -> Outcome {
        let Some(open) = open else {
            return Outcome::new(Verdict::Cancelled).because("cancelled before it was submitted");
        };
        let (state, error) = match open.state {
            AttemptState::Submitting => (AttemptState::Unknown, "cancelled; its worker ended before its answer"),
            _ => (AttemptState::Abandoned, "cancelled while the upstream was working"),
        };
        Outcome::new(Verdict::Cancelled).because(error).ending(self.end(state, Some(error.to_owned()), None, 0))
    }

    /// The row stands, and no POST left.
    pub(super) fn not_sent(&self, error: &str) -> Outcome {
        let end = self.end(AttemptState::NotSent, Some(error.to_owned()), None, 0);
        self.come_back().because(error).ending(end)
    }

    /// Its lane is paused: it waits in the table, where the claim leaves it, and not here.
    pub(super) fn held(&self, why: &str) -> Outcome {
        let why = format!("the lane is paused: {why}");
        let held = Outcome::new(Verdict::TurnedAway(HELD)).because(&*why);
        match self.ordinal {
            Some(_) => held.ending(self.end(AttemptState::NotSent, Some(why), None, 0)),
            None => held,
        }
    }

    /// Whether the submit was taken is not known.
    pub(super) fn unknown(&self, error: String, status: Option<u16>) -> Outcome {
        let end = self.end(AttemptState::Unknown, Some(error.clone()), status, 0);
        if self.may_resubmit(self.settings.on_unknown_submit) {
            // Not before its answer can come no more: until then the earlier one may be alive.
            Outcome::new(Verdict::RetryAfter(self.answer_within)).because(error)
        } else {
            failed(ErrorKind::UnknownSubmit, error)
        }
        .ending(end)
    }

    /// Second table: what a poll says.
    pub(super) fn after_polls(&self, end: PollEnd, polls: u32) -> Outcome {
        let close = |state, error: &str| self.end(state, Some(error.to_owned()), None, polls);
        match end {
            // Its caller completes a cell that has its picture.
            PollEnd::Picture { url } => Outcome::internal(format!("the picture at {url} was not taken")),
            PollEnd::Empty => {
                let error = "SUCCESS without a picture";
                failed(ErrorKind::UpstreamFailure, error).ending(close(AttemptState::Failed, error))
            }
            PollEnd::Failed { error } => {
                self.once_more(ErrorKind::UpstreamFailure, &error).ending(close(AttemptState::Failed, &error))
            }
            PollEnd::TimedOut { error } => {
                self.once_more(ErrorKind::UpstreamTimeout, &error).ending(close(AttemptState::TimedOut, &error))
            }
            PollEnd::Refused { error } => failed(ErrorKind::Refused, &error).ending(close(AttemptState::Refused, &error)),
            PollEnd::Limit => {
                let error = "the poll limit is reached; the upstream may still be working";
                if self.may_resubmit(self.settings.on_poll_limit) {
                    Outcome::new(Verdict::RetryAfter(Duration::ZERO)).because(error)
                } else {
                    failed(ErrorKind::PollLimit, error)
                }
                .ending(close(AttemptState::Abandoned, error))
            }
            PollEnd::Deadline { error } => {
                let error = format!("the deadline passed; the last poll: {error}");
                failed(ErrorKind::Deadline, &error).ending(close(AttemptState::Abandoned, &error))
            }
            PollEnd::Lost => {
                let error = "the upstream does not know its id any more (404, five in a row)";
                failed(ErrorKind::UpstreamLost, error).ending(close(AttemptState::Abandoned, error))
            }
            PollEnd::Interrupted(Interrupt::Cancel) => {
                let error = "cancelled while the upstream was working";
                Outcome::new(Verdict::Cancelled).because(error).ending(close(AttemptState::Abandoned, error))
            }
            PollEnd::Interrupted(Interrupt::Handover) => Outcome::new(Verdict::HandedOver),
            PollEnd::Interrupted(Interrupt::LeaseLost) => Outcome::new(Verdict::LeaseLost),
        }
    }

    /// What a policy allows, as often as `new_attempts` of the round: an upstream that never answers is not paid without end.
    fn may_resubmit(&self, policy: UncertainPolicy) -> bool {
        self.may_pay
            && policy == UncertainPolicy::Resubmit
            && self.history.uncertain_in_round < i64::from(self.settings.new_attempts)
    }

    /// FAILURE and TIMEOUT: a new attempt while `new_attempts` of the round last.
    fn once_more(&self, kind: ErrorKind, error: &str) -> Outcome {
        if self.may_pay && self.history.failures_in_round < i64::from(self.settings.new_attempts) {
            Outcome::new(Verdict::RetryAfter(Duration::ZERO)).because(error)
        } else {
            failed(kind, error)
        }
    }

    /// The lane cannot be used: nothing was written or sent. An attempt that is open stays so, and is polled once it can be.
    pub(super) fn unusable(&self, error: String) -> Outcome {
        let verdict =
            if self.ordinal.is_some() { Verdict::ResumeAfter(self.backoff()) } else { Verdict::TurnedAway(self.backoff()) };
        Outcome::new(verdict).because(error)
    }

    /// Comes back after 1 s, 2 s, 4 s ... 60 s, with jitter; without limit.
    pub(super) fn come_back(&self) -> Outcome {
        Outcome::new(Verdict::TurnedAway(self.backoff()))
    }

    fn backoff(&self) -> Duration {
        let doublings = u32::try_from(self.history.turned_away_in_a_row).unwrap_or(u32::MAX).min(20);
        let longest = self.settings.backoff_min.saturating_mul(1 << doublings).min(self.settings.backoff_max);
        // Between half and all of it: the first wait too must give the upstream a moment.
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

fn failed(kind: ErrorKind, error: impl Into<String>) -> Outcome {
    Outcome::failed(kind.as_str(), error)
}
