//! What an answer of the upstream says of its lane, whatever it says of the cell: which pause it is, and what ends one. The rows
//! are the queue's.

use std::time::Duration;

use tokio::time::Instant;

use super::make_image::{SubmitAnswer, UpstreamClient};
use crate::{
    config::Settings,
    queue::{Call, Engine, Observation, PauseBackoff, PauseReason, QueueError, Said},
};

/// A cell that a pause held back is looked at again after so long: the claim holds it from then on.
pub(super) const HELD: Duration = Duration::from_millis(200);

/// The calls of one lane.
pub(super) struct LaneCalls<'a> {
    pub(super) engine: &'a Engine,
    pub(super) client: &'a UpstreamClient,
    pub(super) settings: &'a Settings,
    pub(super) lane: &'a str,
}

impl LaneCalls<'_> {
    /// What a POST was answered with. `is_troubled`: the lane had something that a success ends.
    pub(super) async fn submit_answered(&self, token_hash: &str, begun: Instant, answer: &SubmitAnswer, is_troubled: bool) {
        let said = match answer {
            SubmitAnswer::TurnedAway { status, error, retry_after } => match refusal(*status) {
                Some(reason) => self.refused(reason, error),
                None => Said::Throttled { why: error.clone(), retry_after: *retry_after, backoff: self.backoff() },
            },
            SubmitAnswer::NotSent { error } | SubmitAnswer::Unknown { error, .. } => {
                let limit = self.settings.upstream.breaker_errors;
                Said::Error { why: error.clone(), limit, backoff: self.backoff() }
            }
            // Most submits: nothing is written.
            _ if !is_troubled => return,
            SubmitAnswer::Accepted { .. } | SubmitAnswer::Refused { .. } => Said::Works { by_token: true },
            // It may have been turned down before anybody looked at the token.
            SubmitAnswer::Rejected { .. } => Said::Works { by_token: false },
        };
        self.observe(Call::Submit, token_hash, begun, said).await;
    }

    /// A poll was answered with 401, 402 or 403.
    pub(super) async fn poll_refused(&self, token_hash: &str, begun: Instant, status: u16, error: &str) {
        if let Some(reason) = refusal(status) {
            self.observe(Call::Poll, token_hash, begun, self.refused(reason, error)).await;
        }
    }

    /// A poll was answered after one that was refused.
    pub(super) async fn poll_answered(&self, token_hash: &str, begun: Instant) {
        self.observe(Call::Poll, token_hash, begun, Said::Works { by_token: true }).await;
    }

    fn refused(&self, reason: PauseReason, error: &str) -> Said {
        Said::Refused { reason, why: error.to_owned(), probe_interval: self.settings.upstream.probe_interval }
    }

    fn backoff(&self) -> PauseBackoff {
        let image = &self.settings.generate_image;
        PauseBackoff { shortest: image.backoff_min, longest: image.backoff_max }
    }

    async fn observe(&self, call: Call, token_hash: &str, begun: Instant, said: Said) {
        let was_refused = matches!(said, Said::Refused { .. });
        let (lane, token_hash) = (self.lane.to_owned(), token_hash.to_owned());
        let observation = Observation { lane, call, token_hash: token_hash.clone(), begun, said };
        if let Err(error) = self.engine.observe(observation).await {
            tracing::error!(lane = self.lane, %error, "what the upstream said of the lane could not be written");
        }
        if was_refused && *token_hash == *self.client.token().current().hash() {
            reload_token(self.client, self.engine).await;
        }
    }
}

/// Which pause a status means that speaks of the token.
fn refusal(status: u16) -> Option<PauseReason> {
    match status {
        401 | 403 => Some(PauseReason::Auth),
        402 => Some(PauseReason::Payment),
        _ => None,
    }
}

/// Reads the token's file again. With another token this process goes on at once: a pause names the token that it is for.
pub async fn reload_token(client: &UpstreamClient, engine: &Engine) {
    match client.token().reload() {
        Ok(true) => {
            let token = client.token().current();
            tracing::info!(token = token.hash(), "the token was read again, and is another one");
            if let Err(error) = use_token(client, engine).await {
                tracing::error!(%error, "the new token's hash could not be written");
            }
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "the token was not read again; the old one stays"),
    }
}

async fn use_token(client: &UpstreamClient, engine: &Engine) -> Result<(), QueueError> {
    engine.use_token(client.token().current().hash()).await
}
