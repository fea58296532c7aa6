//! The ledger of one run of a cell: what stands between its submit and its polls, and is told what they say of the lane.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::Span;

use super::{
    make_image::{Departure, Journal, SubmitAnswer},
    pauses::LaneCalls,
};
use crate::{
    crud::subtasks::RunRow,
    queue::{
        Job, Poller, QueueError,
        ledger::{Acceptance, Begun, Evidence, Submit},
    },
};

/// A row that took longer to write is not believed: a pause may have been written after its look.
const STALE_LOOK: Duration = Duration::from_millis(500);

/// The ledger of one run.
pub(super) struct CellJournal<'a> {
    job: &'a Job,
    row: &'a RunRow,
    sha256: String,
    answer_within: Duration,
    calls: LaneCalls<'a>,
    /// When its task's last moment comes; none: never.
    submits_until: Option<Instant>,
    /// The attempt that this run began.
    ordinal: OnceLock<i32>,
    /// How often the lane had been stopped in this process when it began.
    epoch: OnceLock<u64>,
    /// What held it back before.
    held: OnceLock<String>,
    /// Whether a success has something to tell of the lane.
    is_troubled: AtomicBool,
}

impl<'a> CellJournal<'a> {
    /// Of this job and its cell; `answer_within`: an answer to the POST may come for so long.
    pub(super) fn new(job: &'a Job, row: &'a RunRow, sha256: String, answer_within: Duration, calls: LaneCalls<'a>) -> Self {
        Self {
            job,
            row,
            sha256,
            answer_within,
            calls,
            submits_until: None,
            ordinal: OnceLock::new(),
            epoch: OnceLock::new(),
            held: OnceLock::new(),
            is_troubled: AtomicBool::new(false),
        }
    }

    /// The same for a task of which nothing is submitted from then on.
    pub(super) fn until(self, submits_until: Option<Instant>) -> Self {
        Self { submits_until, ..self }
    }

    /// The attempt that this run began.
    pub(super) fn ordinal(&self) -> Option<i32> {
        self.ordinal.get().copied()
    }

    /// What held it back before its row was written.
    pub(super) fn held(&self) -> Option<&str> {
        self.held.get().map(String::as_str)
    }

    /// Whether the lane was stopped in this process after the row was begun. A probe goes through what it is to end.
    pub(super) fn is_stopped(&self) -> bool {
        let now = self.calls.engine.lane_epoch(&self.row.lane);
        !self.job.is_probe && (self.held.get().is_some() || self.epoch.get().is_some_and(|epoch| now != Some(*epoch)))
    }
}

#[async_trait]
impl Journal for CellJournal<'_> {
    async fn submitting(&self, token_hash: &str) -> Result<Option<String>, QueueError> {
        match self.calls.engine.lane_epoch(&self.row.lane) {
            Some(epoch) => drop(self.epoch.set(epoch)),
            None if self.job.is_probe => {}
            None => {
                drop(self.held.set("a pause is being written".to_owned()));
                return Ok(None);
            }
        }
        let submit = Submit {
            cell: self.row.id,
            round: self.row.round,
            lane: self.row.lane.clone(),
            request_sha256: self.sha256.clone(),
            answer_within: self.answer_within,
            token_hash: token_hash.to_owned(),
            is_probe: self.job.is_probe,
        };
        let began = Instant::now();
        let ordinal = match self.calls.engine.begin_attempt(self.job, submit.clone()).await? {
            Begun::Written { ordinal, is_troubled } => {
                self.is_troubled.store(is_troubled, Ordering::Release);
                // Set once: a run begins one attempt at most.
                *self.ordinal.get_or_init(|| ordinal)
            }
            Begun::Held(why) => {
                drop(self.held.set(why));
                self.calls.engine.met_pause();
                return Ok(None);
            }
            Begun::Unwanted => return Ok(None),
        };
        Span::current().record("attempt", ordinal);
        if began.elapsed() > STALE_LOOK && Box::pin(self.calls.engine.is_held(&submit)).await? {
            drop(self.held.set("since its row was begun".to_owned()));
        }
        Ok(Some(format!("{}/{ordinal}", self.row.id)))
    }

    async fn moment(&self) -> bool {
        match self.calls.engine.submit_moment(self.job, &self.row.lane).await {
            Ok(may_leave) => may_leave,
            Err(error) => {
                tracing::warn!(%error, "no moment of the lane's rate: not submitted");
                false
            }
        }
    }

    fn may_submit(&self) -> bool {
        self.calls.engine.may_submit(self.job)
            && !self.is_stopped()
            && self.submits_until.is_none_or(|until| Instant::now() < until)
    }

    fn departure(&self) -> Option<Departure> {
        let (engine, leave) = (self.calls.engine.clone(), self.calls.engine.leave(self.job));
        let (lane, until) = (self.row.lane.clone(), self.submits_until);
        let epoch = self.epoch.get().copied().filter(|_| !self.job.is_probe);
        Some(Departure::new(move || {
            let is_stopped = epoch.is_some_and(|epoch| engine.lane_epoch(&lane) != Some(epoch));
            let for_its_task = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            leave.left().map(|left| left.min(for_its_task)).filter(|left| !is_stopped && !left.is_zero())
        }))
    }

    async fn give_up(&self) {
        self.calls.engine.grace_over().await;
    }

    async fn accepted(&self, upstream_id: &str, http_status: u16) -> Result<bool, QueueError> {
        let Some(ordinal) = self.ordinal() else {
            return Err(QueueError::Ledger { cell: self.row.id, message: "accepted without an attempt".to_owned() });
        };
        Span::current().record("upstream_id", upstream_id);
        let upstream_id = upstream_id.to_owned();
        let acceptance = Acceptance { cell: self.row.id, ordinal, upstream_id, http_status };
        let evidence = self.calls.engine.accepted(self.job, acceptance).await?;
        if evidence == Evidence::NoSuchAttempt {
            let message = format!("attempt {ordinal} is not open");
            return Err(QueueError::Ledger { cell: self.row.id, message });
        }
        tracing::debug!("accepted");
        Ok(evidence == Evidence::Accepted)
    }

    async fn submit_answered(&self, token_hash: &str, begun: Instant, answer: &SubmitAnswer) {
        self.calls.submit_answered(token_hash, begun, answer, self.is_troubled.load(Ordering::Acquire)).await;
    }

    fn poller(&self) -> Poller {
        self.calls.engine.poller(&self.row.lane)
    }

    async fn poll_refused(&self, token_hash: &str, begun: Instant, status: u16, error: &str) {
        self.calls.poll_refused(token_hash, begun, status, error).await;
    }

    async fn is_for_others(&self) -> bool {
        match self.calls.engine.is_for_others(&self.row.lane).await {
            Ok(is_for_others) => is_for_others,
            Err(error) => {
                tracing::warn!(%error, "who else may poll is not known");
                false
            }
        }
    }

    async fn was_refused_for(&self, more: Duration) -> bool {
        let kept = self.calls.engine.put_off(self.job, self.row.id, more).await;
        if let Err(error) = &kept {
            tracing::warn!(%error, "for how long polls were refused is not in the ledger: it counts against the deadline");
        }
        kept.is_ok()
    }

    async fn poll_answered(&self, token_hash: &str, begun: Instant) {
        self.calls.poll_answered(token_hash, begun).await;
    }
}
