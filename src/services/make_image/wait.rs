//! Polling by id until a terminal state, the poll limit or the deadline (design, section 9, second table).

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rand::RngExt as _;
use tokio::time::Instant;

use super::{
    Journal,
    client::{ClientError, UpstreamClient},
    poll::{PollAnswer, poll},
    token::Token,
};
use crate::queue::{Interrupt, JobTokens};

/// SUCCESS may come before its list: so many more polls are given to it.
const EMPTY_SUCCESS_POLLS: u32 = 3;
/// 404 so many times in a row: the upstream has lost it.
const LOST_POLLS: u32 = 5;
/// A claim asks at least so often before it says that the limit is reached: it may have been long between two claims.
const LEAST_POLLS: u32 = 3;
/// Longest wait between two polls that fail.
const LONGEST_TROUBLE: Duration = Duration::from_mins(1);
/// Polls that wait with a token that is replaced ask again within so long, or within their interval: not in one volley.
const SPREAD: Duration = Duration::from_secs(1);
/// For how long polls were refused is in the ledger whenever it has grown by such a part of the poll limit: a worker that is killed
/// loses no more of it, and not each poll costs a write.
const KEPT_PART: u32 = 4;
/// When the polling is handed over, so much of it: thousands may be at the first poll that is refused, and less is not worth a write.
const LEAST_KEPT: Duration = Duration::from_secs(1);

/// How the polling ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollEnd {
    /// A picture.
    Picture {
        /// Its URL.
        url: String,
    },
    /// SUCCESS, still empty after 3 more polls: billed, and without a picture.
    Empty,
    /// FAILURE.
    Failed {
        /// The upstream's reason.
        error: String,
    },
    /// TIMEOUT.
    TimedOut {
        /// The upstream's reason.
        error: String,
    },
    /// `ILLEGAL_IMAGE`, `DELETED`.
    Refused {
        /// The upstream's reason.
        error: String,
    },
    /// The limit; the upstream may still be working.
    Limit,
    /// The deadline.
    Deadline {
        /// What the last poll said.
        error: String,
    },
    /// 404, five in a row.
    Lost,
    /// A token ended the wait; the upstream goes on.
    Interrupted(Interrupt),
}

/// What to poll for.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The upstream's id.
    pub upstream_id: String,
    /// Since it was accepted, or opened again; what the limit and the deadline count from.
    pub since: Instant,
    /// A new claim asks at once; after a submit the first poll waits its interval.
    pub ask_at_once: bool,
}

/// Polls until the end. Returns it and the number of polls that were answered.
///
/// # Errors
/// See [`ClientError`]: the lane cannot be used.
pub(super) async fn wait(
    client: &UpstreamClient,
    lane: &str,
    accepted: &Accepted,
    deadline: Duration,
    tokens: &JobTokens,
    journal: &dyn Journal,
) -> Result<(PollEnd, u32), ClientError> {
    let (settings, _) = client.lane(lane)?;
    let limit = settings.poll_interval * settings.max_polls;
    let (mut answered, mut empty, mut not_found, mut named) = (0, 0, 0, false);
    let mut refusals = Refusals::default();
    let poller = journal.poller();
    // How long its polls have waited for their turns: that is our own doing, and does not count against the limit.
    let mut queued = Duration::ZERO;
    let mut said = "no poll was answered".to_owned();
    let mut troubles = trouble_delays(settings.poll_interval);
    let mut pause = if accepted.ask_at_once { Duration::ZERO } else { settings.poll_interval };
    let mut refused: Option<Arc<Token>> = None;
    loop {
        let left = deadline.saturating_sub(accepted.since.elapsed().saturating_sub(refusals.lasted()));
        tokio::select! {
            biased;
            interrupt = tokens.interrupted() => return Ok((refusals.end(interrupt, journal).await, answered)),
            () = tokio::time::sleep(pause.min(left)) => {}
            () = another_token(client, refused.take(), settings.poll_interval.min(SPREAD)) => {}
        }
        let queued_at = Instant::now();
        let permit = tokio::select! {
            biased;
            interrupt = tokens.interrupted() => return Ok((refusals.end(interrupt, journal).await, answered)),
            permit = client.poll_permit(&poller) => permit,
        };
        let asked_at = Instant::now();
        queued += asked_at - queued_at;
        let token = client.token().current();
        // What a request needs is there while it is under way only: thousands wait for their turn.
        let answer = tokio::select! {
            biased;
            interrupt = tokens.interrupted() => return Ok((refusals.end(interrupt, journal).await, answered)),
            answer = async { Box::pin(poll(client, lane, &token, &accepted.upstream_id)).await } => answer,
        };
        drop(permit);
        pause = settings.poll_interval;
        if !matches!(answer, PollAnswer::Trouble { .. }) {
            answered += 1;
            if refusals.are_over() {
                journal.poll_answered(token.hash(), asked_at).await;
            }
            troubles = trouble_delays(settings.poll_interval);
        }
        if answer != PollAnswer::NotFound {
            not_found = 0;
        }
        match answer {
            PollAnswer::Picture { url } => return Ok((PollEnd::Picture { url }, answered)),
            PollAnswer::Failed { error } => return Ok((PollEnd::Failed { error }, answered)),
            PollAnswer::TimedOut { error } => return Ok((PollEnd::TimedOut { error }, answered)),
            PollAnswer::Refused { error } => return Ok((PollEnd::Refused { error }, answered)),
            PollAnswer::EmptySuccess => {
                empty += 1;
                if empty > EMPTY_SUCCESS_POLLS {
                    return Ok((PollEnd::Empty, answered));
                }
                "SUCCESS without a picture".clone_into(&mut said);
            }
            PollAnswer::NotFound => {
                not_found += 1;
                if not_found >= LOST_POLLS {
                    return Ok((PollEnd::Lost, answered));
                }
                "404".clone_into(&mut said);
            }
            PollAnswer::Working { status } => {
                if !named && !matches!(status.as_str(), "PENDING" | "MODERATION") {
                    named = true;
                    tracing::warn!(upstream_id = %accepted.upstream_id, status, "the upstream uses a word that is not known; polling on");
                }
                said = status;
                let asked_for = accepted.since.elapsed().saturating_sub(queued + refusals.lasted());
                if asked_for >= limit && answered >= LEAST_POLLS {
                    return Ok((PollEnd::Limit, answered));
                }
            }
            PollAnswer::Trouble { status, error } => {
                pause = troubles.next().unwrap_or(LONGEST_TROUBLE);
                tracing::warn!(upstream_id = %accepted.upstream_id, status, error, "a poll failed; the next in {pause:?}");
                if let Some(status @ 401..=403) = status {
                    refused = Some(Arc::clone(&token));
                    refusals.go_on(asked_at);
                    journal.poll_refused(token.hash(), asked_at, status, &error).await;
                    let is_for_others = tokio::select! {
                        biased;
                        interrupt = tokens.interrupted() => return Ok((refusals.end(interrupt, journal).await, answered)),
                        is_for_others = journal.is_for_others() => is_for_others,
                        // It may wait for PostgreSQL, and with another token is of no interest.
                        () = async { Box::pin(client.token().replaced(&token)).await } => false,
                    };
                    if is_for_others {
                        return Ok((refusals.end(Interrupt::Handover, journal).await, answered));
                    }
                    tokio::select! {
                        biased;
                        interrupt = tokens.interrupted() => return Ok((refusals.end(interrupt, journal).await, answered)),
                        () = refusals.keep(limit / KEPT_PART, journal) => {}
                    }
                } else {
                    refusals.pause();
                }
                said = error;
            }
        }
        if accepted.since.elapsed().saturating_sub(refusals.lasted()) >= deadline {
            return Ok((PollEnd::Deadline { error: said }, answered));
        }
    }
}

/// For how long polls were refused for the token. The upstream goes on meanwhile, and nothing is wrong with the cell: that time
/// counts neither against the limit nor against the deadline.
#[derive(Default)]
struct Refusals {
    before: Duration,
    since: Option<Instant>,
    /// As much of it as is in the ledger.
    kept: Duration,
    /// Whether one was met and none was answered since.
    are_news: bool,
}

impl Refusals {
    fn lasted(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A poll was refused.
    fn go_on(&mut self, asked_at: Instant) {
        self.since.get_or_insert(asked_at);
        self.are_news = true;
    }

    /// A poll failed for another reason: that time counts.
    fn pause(&mut self) {
        self.before = self.lasted();
        self.since = None;
    }

    /// A poll was answered. Whether that is news.
    fn are_over(&mut self) -> bool {
        self.pause();
        std::mem::take(&mut self.are_news)
    }

    /// Has the ledger know of it, where it does not know of so much or more.
    async fn keep(&mut self, least: Duration, journal: &dyn Journal) {
        let more = self.lasted().saturating_sub(self.kept);
        if !more.is_zero() && more >= least && journal.was_refused_for(more).await {
            self.kept += more;
        }
    }

    /// The waiting ends early. Whoever goes on with the cell counts from the ledger.
    async fn end(&mut self, interrupt: Interrupt, journal: &dyn Journal) -> PollEnd {
        if interrupt == Interrupt::Handover {
            self.keep(LEAST_KEPT, journal).await;
        }
        PollEnd::Interrupted(interrupt)
    }
}

/// Ends a moment after this token was replaced, where one was refused; else never.
async fn another_token(client: &UpstreamClient, refused: Option<Arc<Token>>, spread: Duration) {
    let Some(token) = refused else { return std::future::pending().await };
    // What this needs is there only where it is needed: thousands wait for their polls.
    Box::pin(async {
        client.token().replaced(&token).await;
        let moment = spread.mul_f64(rand::rng().random::<f64>());
        tokio::time::sleep(moment).await;
    })
    .await;
}

/// From the interval on, doubling, with full jitter.
fn trouble_delays(interval: Duration) -> impl Iterator<Item = Duration> {
    let longest = LONGEST_TROUBLE.max(interval);
    let delays = ExponentialBuilder::default().with_min_delay(interval).with_max_delay(longest).without_max_times().build();
    delays.map(|delay| delay.mul_f64(rand::rng().random::<f64>()))
}
