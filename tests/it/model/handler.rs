//! What a handler does with its claim, step by step, as `run_cell` does it; and the upstream that takes its POSTs and bills them.

use std::{collections::BTreeSet, time::Duration};

use imagemill::{
    models::payload::{CompleteTask, GenerateImage},
    queue::{
        AttemptEnd, Interrupt, Job, Outcome, QueueError, Verdict,
        ledger::{Acceptance, AttemptState, OpenAttempt, Past},
    },
};
use serde_json::json;
use uuid::Uuid;

use super::{
    rows::Tables,
    session::{Phase, Session, Step, is_of_cells},
};

/// What decides beside what happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// An attempt whose fate is not known may be paid for once more.
    pub(super) resubmits: bool,
}

/// The upstream's bill.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    pub(super) billed: BTreeSet<(Uuid, i32)>,
}

impl Upstream {
    /// A POST arrives and is taken. Nothing that was paid for before may be alive, unless the policy allows it.
    fn takes(&mut self, cell: Uuid, ordinal: i32, tables: &Tables, policy: Policy) {
        for (_, earlier) in self.billed.iter().filter(|(billed, _)| *billed == cell) {
            let state = tables.attempts[&cell][*earlier as usize - 1].state.as_str();
            let is_over = ["failed", "timed_out"].contains(&state);
            let is_allowed = policy.resubmits && ["unknown", "abandoned"].contains(&state);
            assert!(is_over || is_allowed, "cell {cell} is paid for again as {ordinal}, while {earlier} is {state}");
        }
        assert!(self.billed.insert((cell, ordinal)), "cell {cell}: attempt {ordinal} is sent twice");
    }
}

fn end(ordinal: Option<i32>, state: AttemptState) -> AttemptEnd {
    AttemptEnd { ordinal, state, http_status: None, error: None, polls: 0 }
}

fn again() -> Outcome {
    Outcome::new(Verdict::TurnedAway(Duration::ZERO))
}

fn unknown(ordinal: i32, policy: Policy) -> Outcome {
    let outcome = if policy.resubmits {
        Outcome::new(Verdict::RetryAfter(Duration::ZERO))
    } else {
        Outcome::failed("unknown_submit", "whether it was taken is not known")
    };
    outcome.ending(end(Some(ordinal), AttemptState::Unknown))
}

/// The row was perhaps written, and its POST never left.
fn not_written() -> Outcome {
    again().ending(end(None, AttemptState::NotSent))
}

/// No row was written.
fn not_begun() -> Outcome {
    again()
}

/// The POST of its last attempt never left: it begins anew.
fn never_left() -> Outcome {
    again()
}

/// What follows from a look at the cell: the beginning of `run_cell`.
pub(super) fn looked(status: &str, is_cancel_requested: bool, past: &Past, policy: Policy) -> Phase {
    if !["pending", "processing"].contains(&status) {
        return Phase::Ended(Outcome::done());
    }
    if is_cancel_requested {
        let cancelled = Outcome::new(Verdict::Cancelled);
        let state = |open: &OpenAttempt| match open.state {
            AttemptState::Submitting => AttemptState::Unknown,
            _ => AttemptState::Abandoned,
        };
        return Phase::Ended(match &past.open {
            Some(open) => cancelled.ending(end(Some(open.ordinal), state(open))),
            None => cancelled,
        });
    }
    match (&past.open, past.last) {
        (Some(open), _) if open.state == AttemptState::Accepted => Phase::Polling(open.ordinal),
        (Some(open), _) => Phase::Ended(unknown(open.ordinal, policy)),
        (None, Some(last)) if status == "processing" && last.state.is_uncounted() => Phase::Ended(never_left()),
        (None, _) if status == "processing" => Phase::Ended(Outcome::failed("unknown_submit", "see its attempts")),
        _ => Phase::Ready,
    }
}

/// An id that was not written because no such attempt is open.
pub(super) fn id_not_written(ordinal: i32, policy: Policy) -> Outcome {
    unknown(ordinal, policy)
}

/// The next step of a worker: `pick` chooses among its claims, and what the upstream says. None: the handler went on by itself.
pub(super) fn next(session: &mut Session, pick: u8, tables: &Tables, upstream: &mut Upstream, policy: Policy) -> Option<Step> {
    if session.must_beat {
        return Some(Step::Beat);
    }
    if session.claims.is_empty() {
        return Some(claim(session, tables));
    }
    let index = usize::from(pick) % session.claims.len();
    let fate = pick / 8;
    let claimed = &mut session.claims[index];
    let job = claimed.job.clone();
    let is_lost = job.tokens.interrupt() == Some(Interrupt::LeaseLost);
    match claimed.phase.clone() {
        Phase::New | Phase::Ready | Phase::Polling(_) if is_lost => {
            session.release(&job);
            None
        }
        // The worker leaves.
        Phase::New if fate == 31 => {
            claimed.phase = Phase::Ended(Outcome::new(Verdict::HandedOver));
            None
        }
        Phase::New => Some(Step::Look { job }),
        Phase::Ready => Some(Step::Begin { job }),
        Phase::Begun(ordinal) => {
            // The last look at the lease comes before the first byte; what stands still between them submits all the same.
            let is_held_back = is_lost && fate.is_multiple_of(2);
            claimed.phase = if is_held_back {
                Phase::Ended(again().ending(end(Some(ordinal), AttemptState::NotSent)))
            } else {
                posted(&job, ordinal, fate, |cell| upstream.takes(cell, ordinal, tables, policy), policy)
            };
            None
        }
        Phase::Accepting(acceptance) => Some(Step::Accept { job, acceptance }),
        Phase::Polling(ordinal) => {
            claimed.phase = Phase::Ended(polled(&job, ordinal, fate, tables));
            None
        }
        Phase::Ended(_) => Some(settle(session, index, fate.is_multiple_of(2))),
    }
}

/// A claim; what it holds is compared first, where an answer was lost.
pub(super) fn claim(session: &Session, tables: &Tables) -> Step {
    if session.steps().must_reconcile() {
        return Step::Reconcile;
    }
    let is_to_complete = tables.jobs.values().any(|row| !is_of_cells(&row.queue) && row.status == "Pending");
    Step::Claim { queue: if is_to_complete { CompleteTask::QUEUE } else { GenerateImage::QUEUE }, key: None }
}

/// All outcomes of one queue that wait, or one of them.
fn settle(session: &Session, index: usize, is_one: bool) -> Step {
    let chosen = &session.claims[index];
    let settles = session.claims.iter().enumerate().filter_map(|(other, claimed)| {
        let Phase::Ended(outcome) = &claimed.phase else { return None };
        let goes_along = !is_one && !chosen.is_alone && !claimed.is_alone && claimed.job.queue == chosen.job.queue;
        (other == index || goes_along).then(|| (claimed.job.clone(), outcome.clone()))
    });
    Step::Settle { settles: settles.collect(), is_repeat: false }
}

/// What the upstream says of a POST.
fn posted(job: &Job, ordinal: i32, fate: u8, mut takes: impl FnMut(Uuid), policy: Policy) -> Phase {
    let cell = job.cell().expect("a cell's job");
    match fate % 8 {
        4 => Phase::Ended(again().ending(end(Some(ordinal), AttemptState::TurnedAway))),
        5 => Phase::Ended(Outcome::failed("rejected", "400").ending(end(Some(ordinal), AttemptState::Rejected))),
        6 => {
            takes(cell);
            Phase::Ended(unknown(ordinal, policy))
        }
        7 => Phase::Ended(again().ending(end(Some(ordinal), AttemptState::NotSent))),
        _ => {
            takes(cell);
            let upstream_id = format!("{}/{ordinal}", cell.simple());
            Phase::Accepting(Acceptance { cell, ordinal, upstream_id, http_status: 200 })
        }
    }
}

/// What comes of polling.
fn polled(job: &Job, ordinal: i32, fate: u8, tables: &Tables) -> Outcome {
    let cell = job.cell().expect("a cell's job");
    let ends = |state| end(Some(ordinal), state);
    match fate % 8 {
        2 | 3 => {
            let failures = tables.attempts[&cell].iter().filter(|row| row.state == "failed").count();
            let outcome = if failures < 2 {
                Outcome::new(Verdict::RetryAfter(Duration::ZERO))
            } else {
                Outcome::failed("upstream_failure", "no GPU")
            };
            outcome.ending(ends(AttemptState::Failed))
        }
        4 => Outcome::failed("poll_limit", "the upstream may still be working").ending(ends(AttemptState::Abandoned)),
        5 => Outcome::new(Verdict::HandedOver),
        6 => Outcome::new(Verdict::ResumeAfter(Duration::ZERO)),
        7 if tables.cells[&cell].is_cancel_requested => Outcome::new(Verdict::Cancelled).ending(ends(AttemptState::Abandoned)),
        // A fault of ours: what is open is closed by its state.
        7 => Outcome::internal("the handler panicked"),
        _ => {
            let picture = json!({ "url": "http://x/1.png", "file": null, "sha256": null, "note": null });
            Outcome::done().ending(ends(AttemptState::Succeeded)).leaving(picture)
        }
    }
}

impl Session {
    /// What the handler does when it knows its row, or not.
    pub(super) fn begun(&mut self, job: &Job, begun: &Result<Option<i32>, QueueError>) {
        let is_lost = job.tokens.interrupt() == Some(Interrupt::LeaseLost);
        let Some(claimed) = self.claim_of(job) else { return };
        claimed.phase = match begun {
            Ok(Some(ordinal)) => Phase::Begun(*ordinal),
            Ok(None) if is_lost => return self.release(job),
            Ok(None) => Phase::Ended(not_begun()),
            Err(_) => Phase::Ended(not_written()),
        };
    }

    /// What becomes of claims that were settled, or not.
    pub(super) fn settled(&mut self, settles: Vec<(Job, Outcome)>, error: Option<&QueueError>) {
        match error {
            None => {
                for (job, _) in &settles {
                    self.release(job);
                }
                self.settled = settles;
            }
            Some(QueueError::NeverLeft { .. }) => {
                let is_group = settles.len() > 1;
                for (job, _) in &settles {
                    let Some(claimed) = self.claim_of(job) else { continue };
                    claimed.is_alone = true;
                    if !is_group {
                        claimed.phase = Phase::Ended(never_left());
                    }
                }
            }
            // Whether it was written is not known: the same once more will tell.
            Some(_) => {
                self.steps().answer_lost();
                self.settled = settles;
            }
        }
    }
}
