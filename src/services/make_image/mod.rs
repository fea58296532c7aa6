//! The upstream call: submit, then poll by id until a terminal state, the poll limit or the deadline.
//!
//! The wire is that of the upstream's documentation; what each answer means stands in the two tables of design section 9.
//! This module says what happened and decides nothing: retry or fail is decided by `subtask_service`, once.

mod client;
mod departure;
mod picture;
mod poll;
mod submit;
mod token;
mod wait;

use std::time::Duration;

use async_trait::async_trait;
use client::ConnectionPermit;
pub use client::{ClientError, UpstreamClient};
pub use departure::Departure;
pub use picture::{FetchedPicture, KeptPicture, PictureError, fetch, keep};
pub use poll::{Asked, ask};
pub(in crate::services) use poll::{PollAnswer, poll};
pub use submit::SubmitAnswer;
pub use token::{Token, TokenError, TokenSource};
use tokio::time::Instant;
pub use wait::{Accepted, PollEnd};

use crate::queue::{JobTokens, Poller, QueueError, fault};

/// What stands between the two calls, and is told what they say of the lane: the ledger.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Commits that a POST is about to leave, with the token of this hash. Returns the request id that goes with it; none: it must
    /// not leave.
    async fn submitting(&self, token_hash: &str) -> Result<Option<String>, QueueError>;

    /// Waits for the moment at which the lane's rate lets it leave. False: it must not leave.
    async fn moment(&self) -> bool {
        true
    }

    /// The last check before the POST is given to the client.
    fn may_submit(&self) -> bool;

    /// For how long it may still wait for a connection, which is asked once more when that stands; none: as long as the client
    /// waits for any.
    fn departure(&self) -> Option<Departure> {
        None
    }

    /// Resolves when a POST that is out is awaited no longer.
    async fn give_up(&self);

    /// Commits the id, before the first poll. False: the id was written as evidence and the polling is not ours.
    async fn accepted(&self, upstream_id: &str, http_status: u16) -> Result<bool, QueueError>;

    /// Is told each answer to a POST, with the hash of its token and when it left; of one that was accepted after its id.
    async fn submit_answered(&self, _token_hash: &str, _begun: Instant, _answer: &SubmitAnswer) {}

    /// What the turns of this cell's polls are taken from.
    fn poller(&self) -> Poller {
        Poller::default()
    }

    /// Is told each poll that was answered with 401, 402 or 403.
    async fn poll_refused(&self, _token_hash: &str, _begun: Instant, _status: u16, _error: &str) {}

    /// After a poll that was refused: whether others may ask whose token is not, so that the polling is theirs.
    async fn is_for_others(&self) -> bool {
        false
    }

    /// Is told for how much longer polls were refused, now and then and when the polling is handed over: whoever goes on with it
    /// does not count that time. Whether that is kept.
    async fn was_refused_for(&self, _more: Duration) -> bool {
        false
    }

    /// Is told the first poll that was answered after one that was refused.
    async fn poll_answered(&self, _token_hash: &str, _begun: Instant) {}
}

/// A journal that keeps nothing: for a call outside any queue, whose caller takes what it pays for into its own hands.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    async fn submitting(&self, _: &str) -> Result<Option<String>, QueueError> {
        Ok(Some(uuid::Uuid::now_v7().to_string()))
    }

    fn may_submit(&self) -> bool {
        true
    }

    async fn give_up(&self) {
        std::future::pending::<()>().await;
    }

    async fn accepted(&self, _: &str, _: u16) -> Result<bool, QueueError> {
        Ok(true)
    }
}

/// One picture to make.
pub struct MakeImageParams<'a> {
    /// The process's client.
    pub client: &'a UpstreamClient,
    /// The lane.
    pub lane: &'a str,
    /// The body of the submit, as JSON; gone when it was answered. Its bytes and no tree: thousands wait for a connection.
    pub body: Vec<u8>,
    /// An earlier submit's id: polled, and nothing is submitted.
    pub resume: Option<Accepted>,
    /// Given up after so long since it was accepted.
    pub deadline: Duration,
    /// What ends the polling early.
    pub tokens: &'a JobTokens,
    /// The ledger.
    pub journal: &'a dyn Journal,
}

/// What happened.
#[derive(Debug)]
pub enum MadeImage {
    /// No row was written and no POST left: a token is set, the worker leaves, or the cell wants none any more.
    NotBegun,
    /// The row may stand; no POST left.
    NotWritten(QueueError),
    /// The row stands; no POST left, since the last check said no.
    HeldBack,
    /// The submit was not accepted.
    NotAccepted(SubmitAnswer),
    /// The worker left before the answer came.
    GivenUp,
    /// Accepted, but the claim was lost meanwhile; the id is in the ledger.
    LeaseLost,
    /// Accepted, but the id could not be written before this process had to end.
    IdNotWritten {
        /// The id: it is in the log as well.
        upstream_id: String,
        /// Why.
        error: QueueError,
    },
    /// The polling ended.
    Polled {
        /// How.
        end: PollEnd,
        /// Polls that were answered.
        polls: u32,
        /// What the limit and the deadline counted from.
        since: Instant,
    },
}

/// Makes one picture.
///
/// # Errors
/// See [`ClientError`]: the lane cannot be used, and nothing was written or sent.
pub async fn make_image(mut params: MakeImageParams<'_>) -> Result<MadeImage, ClientError> {
    // Before anything is written: a lane without an address is a fault of the settings, not of the cell.
    params.client.lane(params.lane)?;
    let accepted = if let Some(accepted) = params.resume.take() {
        accepted
    } else {
        let permit = tokio::select! {
            biased;
            _ = params.tokens.interrupted() => return Ok(MadeImage::NotBegun),
            permit = params.client.permit() => permit,
        };
        // In a box of its own, made with the permit in hand: what a submit needs is kept neither by the thousands that
        // wait for one nor by those that are polled.
        match Box::pin(submit_once(&params, permit)).await {
            Ok(accepted) => accepted,
            Err(ended) => return Ok(ended),
        }
    };
    drop(params.body);
    let (end, polls) = wait::wait(params.client, params.lane, &accepted, params.deadline, params.tokens, params.journal).await?;
    Ok(MadeImage::Polled { end, polls, since: accepted.since })
}

/// Row, the lane's moment, last check, connection and another last check, POST, id: in this order, and the permit before all.
async fn submit_once(params: &MakeImageParams<'_>, permit: ConnectionPermit) -> Result<Accepted, MadeImage> {
    if !params.journal.may_submit() {
        return Err(MadeImage::NotBegun);
    }
    let token = params.client.token().current();
    let request_id = match params.journal.submitting(token.hash()).await {
        Ok(Some(request_id)) => request_id,
        Ok(None) => return Err(MadeImage::NotBegun),
        Err(error) => return Err(MadeImage::NotWritten(error)),
    };
    if !params.journal.moment().await || !params.journal.may_submit() {
        return Err(MadeImage::HeldBack);
    }
    let begun = Instant::now();
    let departure = params.journal.departure();
    let post = submit::submit(params.client, params.lane, &token, params.body.clone(), Some(&request_id));
    let post = Departure::bound(departure.clone(), post);
    // No token drops a POST that is out: only the end of the grace does.
    let answer = tokio::select! {
        biased;
        answer = fault::during(fault::POST_ON_THE_WIRE, post) => answer,
        () = params.journal.give_up() => return Err(MadeImage::GivenUp),
    };
    fault::point(fault::ANSWER_RECEIVED);
    if matches!(answer, SubmitAnswer::NotSent { .. }) && departure.is_some_and(|departure| departure.was_held_back()) {
        // The upstream was there: nothing is to be said of the lane.
        return Err(MadeImage::HeldBack);
    }
    let SubmitAnswer::Accepted { status, upstream_id } = &answer else {
        // With the permit in hand: whoever waits for it is to find the lane as this answer left it.
        params.journal.submit_answered(token.hash(), begun, &answer).await;
        return Err(MadeImage::NotAccepted(answer));
    };
    drop(permit);
    let (since, upstream_id) = (Instant::now(), upstream_id.clone());
    let accepted = params.journal.accepted(&upstream_id, *status).await;
    params.journal.submit_answered(token.hash(), begun, &answer).await;
    match accepted {
        Ok(true) => Ok(Accepted { upstream_id, since, ask_at_once: false }),
        Ok(false) => Err(MadeImage::LeaseLost),
        Err(error) => Err(MadeImage::IdNotWritten { upstream_id, error }),
    }
}
