//! The one claimer of a process: it takes what there is, up to the free slots, and waits to be woken.

use std::{collections::HashMap, time::Duration};

use tokio::sync::mpsc;

use super::{claim, engine::Engine, enqueue, job::Job};

impl Engine {
    /// Claims until the engine stops.
    pub(super) async fn claim_for_ever(self, senders: HashMap<&'static str, mpsc::UnboundedSender<Job>>) {
        let shared = &self.shared;
        let mut trouble = Duration::ZERO;
        while !self.is_stopping() {
            let mut wait = shared.options.poll_interval;
            for (queue, sender) in &senders {
                match self.claim_queue(queue, sender).await {
                    Ok(next) => {
                        trouble = Duration::ZERO;
                        wait = wait.min(next);
                    }
                    Err(error) => {
                        trouble = (trouble * 2).clamp(Duration::from_millis(100), Duration::from_secs(5));
                        tracing::warn!(%error, queue, "could not claim; trying again in {trouble:?}");
                        wait = trouble;
                    }
                }
            }
            if !senders.is_empty() && self.is_finished().await {
                self.begin_stop();
                break;
            }
            tokio::select! {
                () = shared.wake.notified(), if trouble.is_zero() => {}
                () = tokio::time::sleep(wait) => {}
                () = shared.stop.cancelled() => {}
            }
        }
        // The senders go with this function: each backend then sees the end of its jobs.
    }

    /// Takes what there is, up to the free slots; returns how long until something may be due.
    async fn claim_queue(&self, queue: &'static str, sender: &mpsc::UnboundedSender<Job>) -> Result<Duration, sqlx::Error> {
        let shared = &self.shared;
        let Some(served) = self.served.get(queue) else { return Ok(shared.options.poll_interval) };
        loop {
            let free = served.slots.free();
            if free == 0 || self.is_stopping() {
                // A freed slot wakes the claimer.
                return Ok(shared.options.poll_interval);
            }
            let jobs = claim::claim(&shared.pool, served, &shared.incarnation()).await;
            let jobs = match jobs {
                Err(sqlx::Error::Database(error)) if error.constraint() == Some("fk_worker_lock_by") => {
                    // Our row is gone. The next beat finds it so and takes a new name.
                    tracing::warn!("the claim failed on the foreign key: this worker was found dead");
                    return Ok(shared.options.beat);
                }
                other => other?,
            };
            let full = jobs.len() == free;
            for job in jobs {
                shared.hold(&job);
                if sender.send(job).is_err() {
                    // Its apalis Worker has ended. What was claimed goes back with the row of this worker.
                    self.fail("the worker of a queue has ended");
                    return Ok(shared.options.poll_interval);
                }
            }
            if !full {
                return Ok(claim::next_due(&shared.pool, served).await?.unwrap_or(shared.options.poll_interval));
            }
        }
    }

    async fn is_finished(&self) -> bool {
        let Some(until_empty) = &self.shared.options.until_empty else { return false };
        if !self.is_idle() {
            return false;
        }
        let open = async {
            let mut connection = self.shared.pool.acquire().await?;
            enqueue::any_open(&mut connection, until_empty.group.as_deref()).await
        };
        match open.await {
            Ok(open) => !open,
            Err(error) => {
                tracing::warn!(%error, "could not see whether work is left");
                false
            }
        }
    }
}
