//! The one claimer of a process: it takes what there is, up to the free slots, and waits to be woken.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{
    claim::{self, Claimed, Served},
    engine::Engine,
    enqueue,
    error::QueueError,
    fault, group,
    hint::Hint,
    job::Job,
    reconcile,
};

/// Least pause before a job is asked for again that is due and could not be taken.
const PASSED_OVER: Duration = Duration::from_millis(20);
/// So much rarer is the look into the tables while notifications come.
const RARER: u32 = 10;

/// While there is more than there are slots, a claim is followed by a rest of so many times what it took: one of few jobs costs as
/// much as one of many, and the more workers ask, the longer each waits.
const RESTS: u32 = 20;
/// But by no longer rest than this.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// And by none while one in so many slots is free.
const MANY: usize = 4;

/// Where a limit is in the way, it is seen so often whether anything else waits.
const BESIDE: Duration = Duration::from_secs(1);

pub(super) type AllKnown = HashMap<&'static str, Known>;
pub(super) type Senders = HashMap<&'static str, mpsc::UnboundedSender<Job>>;

/// What the claimer knows of one queue.
#[derive(Debug)]
pub(super) struct Known {
    /// What it knows of the groups that wait.
    pub(super) hint: Hint,
    /// More may be due than was taken: there were no more slots.
    pub(super) has_more: bool,
    /// When the next job is due that waits for its time.
    due: Option<Instant>,
    /// When a limit that was in the way is to be looked at again.
    look: Option<Instant>,
    /// Until then no claim is worth its price, unless many slots are free.
    rest: Option<Instant>,
    /// A lane was full: a place that is given back is taken at once.
    is_full: bool,
    /// When it was last seen what waits while a limit was in the way.
    seen: Option<Instant>,
    /// One waits that is to be alone.
    has_solitary: bool,
}

impl Known {
    fn new() -> Self {
        Self {
            hint: Hint::default(),
            has_more: true,
            due: None,
            look: None,
            rest: None,
            is_full: false,
            seen: None,
            has_solitary: false,
        }
    }
}

impl Engine {
    /// Claims until the engine stops.
    pub(super) async fn claim_for_ever(self, senders: Senders) {
        let shared = &self.shared;
        let mut trouble = Duration::ZERO;
        let mut failures = 0;
        let mut known: AllKnown = senders.keys().map(|queue| (*queue, Known::new())).collect();
        let mut last_look = Instant::now();
        shared.wake.look();
        while !self.is_stopping() {
            let began = Instant::now();
            let rare = if shared.listening.load(Ordering::Acquire) { RARER } else { 1 };
            let interval = shared.options.poll_interval * rare;
            let reasons = shared.wake.take();
            for (queue, known) in &mut known {
                let is_due = known.due.take_if(|due| *due <= began).is_some();
                known.rest.take_if(|rest| *rest <= began);
                let is_to_look = known.look.take_if(|look| *look <= began).is_some();
                let is_announced = reasons.everywhere || reasons.queues.iter().any(|named| named == queue);
                if is_announced {
                    known.hint.announced();
                }
                known.has_more |= is_announced || is_due || is_to_look;
            }
            let passed = self.pass(&senders, &mut known, began >= last_look + interval, failures).await;
            if reasons.everywhere || began >= last_look + interval {
                last_look = began;
            }
            failures = if passed.is_err() { failures + 1 } else { 0 };
            if let Err(error) = &passed {
                tracing::warn!(%error, "could not claim");
                // An answer may have been lost, and with it what was claimed.
                shared.reconcile.store(true, Ordering::Release);
                shared.wake.look();
            }
            trouble = if passed.is_err() {
                (trouble * 2).clamp(Duration::from_millis(100), Duration::from_secs(5))
            } else {
                Duration::ZERO
            };
            if !senders.is_empty() && self.is_finished().await {
                self.begin_stop();
                break;
            }
            let due = known.values().flat_map(|known| [known.due, known.look, known.rest]).flatten().min();
            let next = due.map_or(last_look + interval, |due| due.min(last_look + interval));
            // What failed is tried again after a moment, whatever else is to come when.
            let next = if trouble.is_zero() { next } else { Instant::now() + trouble };
            tokio::select! {
                () = shared.wake.told(), if trouble.is_zero() => {
                    // Slots become free in groups: who asks at the first of them takes one job.
                    tokio::select! {
                        () = tokio::time::sleep_until(began + group::COMPANY) => {}
                        () = shared.stop.cancelled() => {}
                    }
                }
                () = tokio::time::sleep_until(next) => {}
                () = shared.stop.cancelled() => {}
            }
        }
        // The senders go with this function: each backend then sees the end of its jobs.
    }

    /// One claim a queue, so that no backlog of cells keeps a completion waiting. By the clock alone it asks first what is due,
    /// which is one statement for all queues.
    async fn pass(&self, senders: &Senders, known: &mut AllKnown, ask: bool, failures: u32) -> Result<(), QueueError> {
        let shared = &self.shared;
        if shared.reconcile.load(Ordering::Acquire) {
            reconcile::reconcile(shared).await?;
            if failures > 1 {
                // PostgreSQL was away. Should it have forgotten its last commits, every worker is given the time to tell it its
                // claims again before anybody takes what looks free.
                tokio::time::sleep(shared.options.beat * 2).await;
                reconcile::reconcile(shared).await?;
            }
        }
        if ask {
            self.see_what_waits(known).await?;
            let now = Instant::now();
            for known in known.values_mut() {
                known.has_more |= known.look.is_some() || known.due.is_some_and(|due| due <= now);
            }
        }
        let mut looks = false;
        let mut begun = None;
        for (queue, sender) in senders {
            let (Some(served), Some(known)) = (self.served.get(queue), known.get_mut(queue)) else { continue };
            let free = served.slots.free();
            if free == 0 || !(known.has_more || known.is_full) {
                continue;
            }
            let asked = Instant::now();
            if known.rest.is_some() && !served.slots.is_free_by(MANY) {
                continue;
            }
            let (taken, Claimed { look_in, is_full, .. }) = self.claim_queue(served, sender, free, &mut known.hint).await?;
            known.has_more = taken == free;
            known.is_full = is_full;
            let now = Instant::now();
            if taken > 0 {
                begun = Some(now);
            }
            known.rest = (known.has_more && !is_full).then(|| now + (RESTS * (now - asked)).min(LONGEST_REST));
            known.look = look_in.filter(|_| !known.has_more).map(|look_in| now + look_in);
            if known.look.is_none() {
                looks |= !known.has_more;
            } else if known.seen.is_none_or(|seen| now - seen >= BESIDE) {
                // Not with every place that a full lane gives back.
                known.seen = Some(now);
                looks = true;
            }
        }
        if looks {
            if let Some(begun) = begun {
                // What was just claimed goes first: somebody waits for its submit, and nobody for this. What is told meanwhile waits
                // hardly longer for it, since the claimer rests as long after each pass began.
                tokio::select! {
                    () = tokio::time::sleep_until(begun + group::COMPANY) => {}
                    () = shared.stop.cancelled() => {}
                }
            }
            self.see_what_waits(known).await?;
            // What is due and was passed over is locked by somebody: do not ask for it without a pause.
            let least = Instant::now() + PASSED_OVER;
            for known in known.values_mut() {
                known.due = known.due.map(|due| due.max(least));
            }
        }
        for queue in senders.keys() {
            if known.get(queue).is_some_and(|known| known.has_solitary)
                && let Some(served) = self.served.get(queue)
                && served.slots.free() > 0
            {
                self.claim_solitary(served, senders, known).await?;
            }
        }
        Ok(())
    }

    /// Takes what there is, up to the free slots; returns how much.
    pub(super) async fn claim_queue(
        &self,
        served: &Served,
        sender: &mpsc::UnboundedSender<Job>,
        free: usize,
        hint: &mut Hint,
    ) -> Result<(usize, Claimed), QueueError> {
        let shared = &self.shared;
        let worker = shared.incarnation();
        let mut claimed = match claim::claim(&shared.connections, served, &worker, &shared.gate.token_hash(), free, hint).await {
            Err(QueueError::Database(error))
                if error.as_database_error().and_then(|error| error.constraint()) == Some("fk_worker_lock_by") =>
            {
                // Our row is gone. The next beat finds it so and takes a new name.
                tracing::warn!("the claim failed on the foreign key: this worker was found dead");
                return Ok((0, Claimed::default()));
            }
            other => other?,
        };
        if claimed.met_bound {
            shared.bounds.notify_one();
        }
        let jobs = std::mem::take(&mut claimed.jobs);
        if !jobs.is_empty() {
            fault::point(fault::CLAIM_COMMITTED);
        }
        let taken = jobs.len();
        self.give(sender, jobs).await?;
        Ok((taken, claimed))
    }

    /// Hands jobs to the worker of their queue.
    pub(super) async fn give(&self, sender: &mpsc::UnboundedSender<Job>, jobs: Vec<Job>) -> Result<(), QueueError> {
        let shared = &self.shared;
        let mut unsent = Vec::new();
        for job in jobs {
            shared.hold(&job);
            if let Err(mpsc::error::SendError(job)) = sender.send(job) {
                shared.release(&job);
                unsent.push(job);
            }
        }
        if unsent.is_empty() {
            return Ok(());
        }
        // Whoever took this queue's jobs has ended.
        self.fail("the worker of a queue has ended");
        claim::put_back(&shared.connections, &unsent).await
    }

    /// Waits until something is due of a group that may take nothing now: its budget is spent, or its time is over.
    pub async fn bound_met(&self) {
        self.shared.bounds.notified().await;
    }

    async fn see_what_waits(&self, known: &mut AllKnown) -> Result<(), QueueError> {
        let served: Vec<&Served> = known.keys().filter_map(|queue| self.served.get(queue)).collect();
        if served.is_empty() {
            return Ok(());
        }
        let waiting = claim::waiting(&self.shared.connections, &served, &self.shared.gate.token_hash()).await?;
        let now = Instant::now();
        for (queue, known) in known {
            let waiting = waiting.get(*queue);
            known.has_solitary = waiting.is_some_and(|waiting| waiting.has_solitary);
            // What waits for a slot does not wait for its time. Where a limit is to be looked at again, what is due waits for that.
            let due = waiting.and_then(|waiting| waiting.due).filter(|_| !known.has_more);
            known.due = due.filter(|due| known.look.is_none() || !due.is_zero()).map(|due| now + due);
        }
        Ok(())
    }

    async fn is_finished(&self) -> bool {
        let Some(until_empty) = &self.shared.options.until_empty else { return false };
        if !self.is_idle() {
            return false;
        }
        let queues: Vec<String> = self.served.keys().map(|queue| (*queue).to_owned()).collect();
        let group = until_empty.group.as_deref();
        let open = self.shared.connections.statement(async |connection| Ok(enqueue::any_open(connection, &queues, group).await?));
        match open.await {
            Ok(open) => !open,
            Err(error) => {
                tracing::warn!(%error, "could not see whether work is left");
                false
            }
        }
    }
}
