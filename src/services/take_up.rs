//! Before a retry pays: an attempt that was given up in an earlier round is asked for, once.

use tokio::time::Instant;

use super::{
    cell_outcome::Situation,
    make_image::{self, Accepted, PollAnswer, UpstreamClient},
};
use crate::{
    crud::subtasks::RunRow,
    models::status::{ErrorKind, RetryMode},
    queue::{Engine, Interrupt, Job, Outcome, Verdict, ledger::GivenUp},
};

/// What is left of it.
pub(super) enum TakenUp {
    /// Nothing: it is over, or there is none. The cell is paid for anew.
    Nothing,
    /// It is open again, and polled on.
    Working { accepted: Accepted, ordinal: i32 },
    /// It is open again, and here is its picture.
    Picture { url: String, ordinal: i32 },
    /// The run ends with this.
    Outcome(Outcome),
}

/// One run that looks for an earlier attempt.
pub(super) struct Taker<'a> {
    pub(super) client: &'a UpstreamClient,
    pub(super) engine: &'a Engine,
    pub(super) job: &'a Job,
    pub(super) row: &'a RunRow,
    pub(super) situation: &'a Situation<'a>,
}

impl Taker<'_> {
    /// Asks for it once. What the upstream still works on, or has a picture of, is opened again; of what is over a new attempt is
    /// made, but by a retry for a late id, which pays nothing: that takes up whatever it finds, and ends as it does.
    pub(super) async fn take_up(&self, earlier: Option<GivenUp>) -> TakenUp {
        match (self.row.retry.mode, earlier) {
            (Some(RetryMode::Evidence), Some(earlier)) => Box::pin(self.reopen(earlier, None)).await,
            (Some(RetryMode::Evidence), None) => {
                let why = "there is no upstream id to ask for, and this retry may not pay";
                TakenUp::Outcome(Outcome::failed(ErrorKind::UnknownSubmit.as_str(), why))
            }
            // On the heap, as what is above: each cell in flight would carry the room for what few ever do.
            (Some(RetryMode::PollFirst), Some(earlier)) => Box::pin(self.ask(earlier)).await,
            _ => TakenUp::Nothing,
        }
    }

    async fn ask(&self, earlier: GivenUp) -> TakenUp {
        let tokens = &self.job.tokens;
        let answer = tokio::select! {
            biased;
            interrupt = tokens.interrupted() => return TakenUp::Outcome(interrupted(interrupt)),
            answer = self.poll(&earlier.upstream_id) => answer,
        };
        match answer {
            PollAnswer::Picture { url } => self.reopen(earlier, Some(url)).await,
            // A list that is still empty may fill.
            PollAnswer::Working { .. } | PollAnswer::EmptySuccess => self.reopen(earlier, None).await,
            PollAnswer::Failed { .. } | PollAnswer::TimedOut { .. } | PollAnswer::Refused { .. } | PollAnswer::NotFound => {
                tracing::info!(upstream_id = earlier.upstream_id, ?answer, "the earlier attempt is over: a new one is made");
                TakenUp::Nothing
            }
            // No answer to the question: nothing is paid before there is one.
            PollAnswer::Trouble { error, .. } => {
                let why = format!("the earlier attempt could not be asked for: {error}");
                TakenUp::Outcome(self.ask_again().because(why))
            }
        }
    }

    /// Later, and as it was claimed.
    fn ask_again(&self) -> Outcome {
        let outcome = self.situation.come_back();
        match outcome.verdict {
            Verdict::TurnedAway(delay) if self.job.is_resumed => Outcome::new(Verdict::ResumeAfter(delay)),
            _ => outcome,
        }
    }

    async fn poll(&self, upstream_id: &str) -> PollAnswer {
        let poller = self.engine.poller(&self.row.lane);
        let _permit = self.client.poll_permit(&poller).await;
        let token = self.client.token().current();
        Box::pin(make_image::poll(self.client, &self.row.lane, &token, upstream_id)).await
    }

    async fn reopen(&self, earlier: GivenUp, picture: Option<String>) -> TakenUp {
        let GivenUp { ordinal, upstream_id } = earlier;
        match self.engine.reopen_attempt(self.job, self.row.id, ordinal, self.row.round).await {
            Ok(true) => {
                if let Some(url) = picture {
                    TakenUp::Picture { url, ordinal }
                } else {
                    let accepted = Accepted { upstream_id, since: Instant::now(), ask_at_once: true };
                    TakenUp::Working { accepted, ordinal }
                }
            }
            Ok(false) => TakenUp::Outcome(self.situation.come_back().because("the cell was cancelled or ended meanwhile")),
            Err(_) if self.engine.is_stopping() => TakenUp::Outcome(Outcome::new(Verdict::HandedOver)),
            Err(error) => TakenUp::Outcome(Outcome::internal(error.to_string())),
        }
    }
}

fn interrupted(interrupt: Interrupt) -> Outcome {
    match interrupt {
        Interrupt::LeaseLost => Outcome::new(Verdict::LeaseLost),
        Interrupt::Cancel => Outcome::new(Verdict::Cancelled).because("cancelled before it was submitted"),
        Interrupt::Handover => Outcome::new(Verdict::HandedOver),
    }
}
