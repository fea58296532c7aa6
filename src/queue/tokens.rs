//! What ends the waiting of a job early. None of them drops a POST that is out: its answer is awaited and written.

use tokio_util::sync::CancellationToken;

/// The three tokens of a job.
#[derive(Debug, Clone, Default)]
pub struct JobTokens {
    /// The worker leaves: another goes on with the job.
    pub handover: CancellationToken,
    /// Somebody asked for the job's end.
    pub cancel: CancellationToken,
    /// The claim is lost.
    pub lease_lost: CancellationToken,
}

/// Why a wait ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// See [`JobTokens::lease_lost`].
    LeaseLost,
    /// See [`JobTokens::cancel`].
    Cancel,
    /// See [`JobTokens::handover`].
    Handover,
}

impl JobTokens {
    /// Waits for any of the three; the gravest first.
    pub async fn interrupted(&self) -> Interrupt {
        tokio::select! {
            biased;
            () = self.lease_lost.cancelled() => Interrupt::LeaseLost,
            () = self.cancel.cancelled() => Interrupt::Cancel,
            () = self.handover.cancelled() => Interrupt::Handover,
        }
    }

    /// Any of the three, if it is set now; the gravest first.
    pub fn interrupt(&self) -> Option<Interrupt> {
        if self.lease_lost.is_cancelled() {
            Some(Interrupt::LeaseLost)
        } else if self.cancel.is_cancelled() {
            Some(Interrupt::Cancel)
        } else if self.handover.is_cancelled() {
            Some(Interrupt::Handover)
        } else {
            None
        }
    }
}
