//! The one claimer of a process: it takes what there is, up to the free slots, and waits to be woken.

use std::{collections::HashMap, time::Duration};

use tokio::sync::mpsc;

use super::{claim, engine::Engine, enqueue, fault, job::Job};

/// Least pause before a job is asked for again that is due and could not be taken.
const PASSED_OVER: Duration = Duration::from_millis(20);

impl Engine {
    /// Claims until the engine stops.
    pub(super) async fn claim_for_ever(self, senders: HashMap<&'static str, mpsc::UnboundedSender<Job>>) {
        let shared = &self.shared;
        let mut trouble = Duration::ZERO;
        while !self.is_stopping() {
            let mut wait = shared.options.poll_interval;
            let mut failed = false;
            // One claim a queue and pass, so that no backlog of cells keeps a completion waiting.
            for (queue, sender) in &senders {
                match self.claim_queue(queue, sender).await {
                    Ok(next) => wait = wait.min(next),
                    Err(error) => {
                        tracing::warn!(%error, queue, "could not claim");
                        failed = true;
                    }
                }
            }
            trouble =
                if failed { (trouble * 2).clamp(Duration::from_millis(100), Duration::from_secs(5)) } else { Duration::ZERO };
            if !senders.is_empty() && self.is_finished().await {
                self.begin_stop();
                break;
            }
            tokio::select! {
                () = shared.wake.notified(), if trouble.is_zero() => {}
                () = tokio::time::sleep(wait.max(trouble)) => {}
                () = shared.stop.cancelled() => {}
            }
        }
        // The senders go with this function: each backend then sees the end of its jobs.
    }

    /// Takes what there is, up to the free slots; returns how long until something may be due.
    async fn claim_queue(&self, queue: &'static str, sender: &mpsc::UnboundedSender<Job>) -> Result<Duration, sqlx::Error> {
        let shared = &self.shared;
        let Some(served) = self.served.get(queue) else { return Ok(shared.options.poll_interval) };
        let free = served.slots.free();
        if free == 0 {
            // A freed slot wakes the claimer.
            return Ok(shared.options.poll_interval);
        }
        let worker = shared.incarnation();
        let jobs = match claim::claim(&shared.pool, served, &worker).await {
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("fk_worker_lock_by") => {
                // Our row is gone. The next beat finds it so and takes a new name.
                tracing::warn!("the claim failed on the foreign key: this worker was found dead");
                return Ok(shared.options.beat);
            }
            other => other?,
        };
        if !jobs.is_empty() {
            fault::point(fault::CLAIM_COMMITTED);
        }
        let taken = jobs.len();
        let mut unsent = Vec::new();
        for job in jobs {
            shared.hold(&job);
            if let Err(mpsc::error::SendError(job)) = sender.send(job) {
                shared.release(&job);
                unsent.push(job);
            }
        }
        if !unsent.is_empty() {
            // Whoever took this queue's jobs has ended.
            self.fail("the worker of a queue has ended");
            claim::put_back(&shared.pool, &worker, &unsent).await?;
        }
        if taken == free {
            return Ok(Duration::ZERO);
        }
        let next = claim::next_due(&shared.pool, served).await?.unwrap_or(shared.options.poll_interval);
        // What is due and was passed over is locked by somebody: do not ask for it without a pause.
        Ok(if taken == 0 { next.max(PASSED_OVER) } else { next })
    }

    async fn is_finished(&self) -> bool {
        let Some(until_empty) = &self.shared.options.until_empty else { return false };
        if !self.is_idle() {
            return false;
        }
        let open = async {
            let mut connection = self.shared.pool.acquire().await?;
            let queues: Vec<String> = self.served.keys().map(|queue| (*queue).to_owned()).collect();
            enqueue::any_open(&mut connection, &queues, until_empty.group.as_deref()).await
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
