//! Until when a POST may leave: by its row, by the lease, and by what was asked of its worker or its job.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{clock, engine::Engine, job::Job, ledger, shared::Shared, tokens::JobTokens};

/// From the last check to the first byte: a process that waits for a processor needs it.
const LEAVING: Duration = Duration::from_millis(100);

/// What is to be looked at before a POST of one job leaves. It holds neither the job nor its slot: a connection may be under way
/// for longer than whoever asked for it waits.
#[derive(Clone)]
pub struct Leave {
    shared: Arc<Shared>,
    tokens: JobTokens,
    /// When the job's row was asked for; none: it was not yet.
    asked_at: Option<Duration>,
}

impl Leave {
    /// For so long it may still leave; none: it must not. Not while the worker leaves, not after the claim is lost or its end was
    /// asked for, not in the last part of a lease that the beat could not renew, and not two seconds after its row was asked for.
    pub fn left(&self) -> Option<Duration> {
        if self.shared.stop.is_cancelled() || self.tokens.interrupt().is_some() {
            return None;
        }
        let lease = self.shared.options.lease;
        // 3 s before the lease ends (design, section 7); a fifth of it where a lease is shorter than 15 s.
        let margin = (lease / 5).min(Duration::from_secs(3));
        let by_lease = lease.saturating_sub(margin).saturating_sub(self.shared.last_beat.age());
        let by_row = self.asked_at.map_or(Duration::MAX, |asked_at| {
            ledger::LEAVES_WITHIN.saturating_sub(LEAVING).saturating_sub(clock::now().saturating_sub(asked_at))
        });
        Some(by_lease.min(by_row)).filter(|left| !left.is_zero())
    }
}

impl Engine {
    /// Until when a POST of this job may leave, as far as its row is written now.
    pub fn leave(&self, job: &Job) -> Leave {
        let asked_at = job.memory.lock().unwrap_or_else(PoisonError::into_inner).asked_at;
        Leave { shared: Arc::clone(&self.shared), tokens: job.tokens.clone(), asked_at }
    }

    /// Whether a submit may start for this job.
    pub fn may_submit(&self, job: &Job) -> bool {
        self.leave(job).left().is_some()
    }
}
