//! What may have ended its workers is claimed alone.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    claim::{self, Served},
    claimer::{AllKnown, Senders},
    engine::Engine,
    error::QueueError,
    fault, reconcile,
};

/// It is seen so often whether it may begin or has ended.
const LOOK: Duration = Duration::from_millis(50);

impl Engine {
    /// A job that may be what ended others runs alone: nothing else of its queue is claimed until it has ended, and it does not begin
    /// before what runs of it here has ended.
    pub(super) async fn claim_solitary(
        &self,
        served: &Served,
        senders: &Senders,
        known: &mut AllKnown,
    ) -> Result<(), QueueError> {
        let shared = &self.shared;
        let Some(sender) = senders.get(&*served.queue) else { return Ok(()) };
        let Some(job) =
            claim::claim_solitary(&shared.connections, served, &shared.incarnation(), &shared.gate.token_hash()).await?
        else {
            return Ok(());
        };
        fault::point(fault::CLAIM_COMMITTED);
        tracing::warn!(job = %job.id, key = %job.key, crashes = job.crashes, "claimed alone: workers ended while they held it");
        shared.hold(&job);
        let may_begin = self.while_others_go_on(served, 1, senders, known).await;
        shared.release(&job);
        if !may_begin {
            return claim::put_back(&shared.connections, &[job]).await;
        }
        self.give(sender, vec![job]).await?;
        self.while_others_go_on(served, 0, senders, known).await;
        // What came meanwhile was not looked for.
        shared.wake.look();
        Ok(())
    }

    /// Claims of the other queues until no more than so many slots of this one are in use: no completion waits behind a cell. False:
    /// the engine stops before.
    async fn while_others_go_on(&self, served: &Served, used: usize, senders: &Senders, known: &mut AllKnown) -> bool {
        let shared = &self.shared;
        while served.slots.used() > used {
            tokio::select! {
                () = shared.wake.told() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = shared.stop.cancelled() => return false,
            }
            let reasons = shared.wake.take();
            for (queue, sender) in senders.iter().filter(|(queue, _)| **queue != &*served.queue) {
                let (Some(other), Some(known)) = (self.served.get(queue), known.get_mut(queue)) else { continue };
                if reasons.everywhere || reasons.queues.iter().any(|named| named == queue) {
                    known.hint.announced();
                    known.has_more = true;
                }
                let free = other.slots.free();
                if free == 0 || !known.has_more {
                    continue;
                }
                match self.claim_queue(other, sender, free, &mut known.hint).await {
                    Ok((taken, _)) => known.has_more = taken == free,
                    Err(error) => {
                        tracing::warn!(%error, "could not claim");
                        // An answer may have been lost, and with it what was claimed.
                        shared.reconcile.store(true, Ordering::Release);
                    }
                }
            }
            if shared.reconcile.load(Ordering::Acquire)
                && let Err(error) = reconcile::reconcile(shared).await
            {
                tracing::warn!(%error, "could not compare what it holds");
            }
        }
        true
    }
}
