//! Probes, and the engine's side of pauses.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{Call, Holds, Observation, OwnPause, Said, gate::Heard, look};
use crate::queue::{
    claim,
    engine::Engine,
    error::QueueError,
    incarnation,
    job::Job,
    ledger::{self, Submit},
};

impl Engine {
    /// Writes down what a call told of its lane, at once; repeats it until it stands. From the first moment on no POST that the
    /// pause would hold is begun in this process.
    ///
    /// # Errors
    /// What PostgreSQL refuses for its content, or any error once the grace is over.
    pub async fn observe(&self, observation: Observation) -> Result<(), QueueError> {
        let gate = &self.shared.gate;
        let stops = match &observation.said {
            Said::Refused { .. } => *observation.token_hash == *gate.token_hash(),
            Said::Throttled { .. } => true,
            Said::Error { .. } | Said::Works { .. } => false,
        };
        let writing = match (observation.call, &observation.said) {
            (Call::Poll, Said::Refused { reason, .. }) => {
                match gate.poll_refused(&observation.lane, *reason, &observation.token_hash, stops) {
                    Heard::Before => return Ok(()),
                    Heard::Now(writing) => writing,
                }
            }
            _ => stops.then(|| gate.stop(&observation.lane)),
        };
        let done = self.persist(|| self.observations.join(observation.clone())).await;
        if matches!(observation.said, Said::Refused { .. }) {
            gate.forget_others(&observation.lane);
        }
        drop(writing);
        if stops {
            gate.tell();
        }
        done
    }

    /// What tells whether the lane was stopped in this process since; none: it is being stopped just now.
    pub fn lane_epoch(&self, lane: &str) -> Option<u64> {
        self.shared.gate.epoch(lane)
    }

    /// Tells that a pause was met, so that it is looked after.
    pub fn met_pause(&self) {
        self.shared.gate.tell();
    }

    /// Whether a submit would be held now.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn is_held(&self, submit: &Submit) -> Result<bool, QueueError> {
        let holds = self.connections().statement(async |connection| Ok(Holds::ask(connection, &[submit]).await?)).await?;
        Ok(holds.of(submit).why.is_some())
    }

    /// Whether what this process polls in the lane is for others: its token is refused there, and a living worker has one that is
    /// not. Looked at once a second, since thousands may ask; what is refused here is written first.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn is_for_others(&self, lane: &str) -> Result<bool, QueueError> {
        let gate = &self.shared.gate;
        gate.until_written(lane).await;
        if let Some(seen) = gate.others(lane, &gate.token_hash()) {
            return Ok(seen);
        }
        let turn = gate.looking().await;
        let (token_hash, epoch) = (gate.token_hash(), gate.epoch(lane));
        if let Some(seen) = gate.others(lane, &token_hash) {
            return Ok(seen);
        }
        let is_for_others = self.connections().statement(async |connection| {
            let query = sqlx::query_scalar("select imagemill.is_for_others($1, $2)");
            Ok(query.bind(lane).bind(&*token_hash).fetch_one(connection).await?)
        });
        let is_for_others = is_for_others.await;
        // What was asked before a pause was written is not known any more.
        if epoch.is_some() && gate.epoch(lane) == epoch {
            // Where it cannot be known, those behind this one need not find that out one by one.
            gate.saw_others(lane, token_hash, *is_for_others.as_ref().unwrap_or(&false));
        }
        drop(turn);
        is_for_others
    }

    /// The cell's open attempt is older by so much than what counts of it.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn put_off(&self, job: &Job, cell: Uuid, lasted: Duration) -> Result<(), QueueError> {
        self.persist(|| ledger::put_off(self.connections(), job, cell, lasted)).await
    }

    /// Waits until a pause was met.
    pub async fn pause_met(&self) {
        self.shared.gate.told().await;
    }

    /// From here on this process submits with another token: what holds the one before holds it no longer.
    ///
    /// # Errors
    /// See [`QueueError`]; the claimer knows the new token all the same.
    pub async fn use_token(&self, token_hash: &str) -> Result<(), QueueError> {
        let gate = &self.shared.gate;
        let before = gate.replace_token(token_hash);
        // PostgreSQL may be away while it is replaced more than once: what is written last is what is held.
        let turn = gate.replacing().await;
        let written = self
            .persist(|| {
                self.connections().transaction(async |connection| {
                    let current = gate.token_hash();
                    look::lock_token(connection, &before).await?;
                    incarnation::set_token(connection, &self.shared.incarnation(), &current).await?;
                    if *before != *current {
                        look::forget_token(connection, &before).await?;
                    }
                    Ok(())
                })
            })
            .await;
        drop(turn);
        self.shared.wake.look();
        written
    }

    /// The pauses that name the token of this process.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn own_pauses(&self) -> Result<Vec<OwnPause>, QueueError> {
        look::of_token(self.connections(), &self.shared.gate.token_hash()).await
    }

    /// Takes away pauses that ended by themselves long ago, and those of tokens that nobody holds any more.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn forget_stale_pauses(&self) -> Result<(), QueueError> {
        look::forget_stale(self.connections()).await
    }

    /// Takes the probe of a lane for the whole fleet, if it is due and nothing else holds the lane: the next is due after the
    /// interval, whatever becomes of this one.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn take_probe(&self, lane: &str, interval: Duration) -> Result<bool, QueueError> {
        let token_hash = self.shared.gate.token_hash();
        let taken = self
            .connections()
            .statement(async |connection| {
                let query = sqlx::query(
                    "update imagemill.pauses p set probe_at = now() + make_interval(secs => $3)
                     where p.lane = $1 and p.token_hash = $2 and p.reason in ('auth', 'payment') and p.probe_at <= now()
                       and not exists (select from imagemill.pauses o
                                       where o.lane = p.lane and o.token_hash in ('', $2)
                                         and case when o.reason in ('auth', 'payment') then o.probe_at > now()
                                                  else o.until is null or o.until > now() end)",
                );
                let query = query.bind(lane).bind(&*token_hash).bind(interval.as_secs_f64());
                Ok(query.execute(connection).await?.rows_affected())
            })
            .await?;
        Ok(taken > 0)
    }

    /// An id that the upstream should know: of an attempt of the lane that is being polled.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn known_id(&self, lane: &str) -> Result<Option<String>, QueueError> {
        self.connections()
            .statement(async |connection| {
                let query = sqlx::query_scalar(
                    "select upstream_id from imagemill.attempts
                     where lane = $1 and finished_at is null and state = 'accepted' limit 1",
                );
                Ok(query.bind(lane).fetch_optional(connection).await?)
            })
            .await
    }

    /// Claims one cell of a paused lane, to try whether it is taken.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn claim_probe(&self, queue: &str, lane: &str) -> Result<Option<Job>, QueueError> {
        let served = self.served.get(queue).ok_or_else(|| QueueError::UnknownQueue(queue.to_owned()))?;
        if self.is_stopping() || !served.lanes.iter().any(|known| known == lane) {
            return Ok(None);
        }
        let worker: Arc<str> = self.shared.incarnation();
        let claimed = claim::claim_probe(self.connections(), served, &worker, lane).await;
        self.held_one(claimed)
    }
}
