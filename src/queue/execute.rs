//! Running one claimed job: its handler is spawned, its panic caught, its outcome settled.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::FutureExt as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    engine::Engine,
    error::QueueError,
    grant,
    job::Job,
    ledger::{self, Acceptance, Begun, Evidence, Submit},
    outcome::{Outcome, Verdict},
    restore,
    settle::Settled,
};

impl Engine {
    /// Runs a handler for a job and settles what it returns. Everything happens in a task of its own: whatever becomes of
    /// the caller, the job is settled.
    pub fn execute<F>(&self, job: Job, handler: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let engine = self.clone();
        tokio::spawn(async move {
            if job.is_crash_loop() {
                tracing::error!(job = %job.id, key = %job.key, crashes = job.crashes, "it ended its process again and again");
                Box::pin(engine.settle_until_written(&job, Outcome::crash_loop(job.crashes))).await;
                engine.shared.release(&job);
                return;
            }
            let outcome = match tokio::spawn(handler).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    let message = error
                        .try_into_panic()
                        .map_or_else(|_| "the handler was dropped".to_owned(), |panic| panic_message(&*panic));
                    tracing::error!(job = %job.id, key = %job.key, "the handler panicked: {message}");
                    Outcome::internal(format!("the handler panicked: {message}"))
                }
            };
            Box::pin(engine.settle_until_written(&job, outcome)).await;
            engine.shared.release(&job);
        })
    }

    /// Settles; tries again while PostgreSQL is away. What PostgreSQL refuses for its content fails alone as `internal`.
    async fn settle_until_written(&self, job: &Job, mut outcome: Outcome) {
        let mut delays = backoff();
        let mut may_restore = true;
        loop {
            let settled = match self.writers(&job.queue) {
                Ok(writers) => writers.settle(job, outcome.clone()).await,
                Err(error) => Err(error),
            };
            match settled {
                Ok(Settled::Written | Settled::WrittenBefore) => {
                    if outcome.verdict.is_to_run_again() {
                        // Its time is known to the table only.
                        self.shared.wake.look();
                    }
                    return;
                }
                Ok(Settled::LeaseLost) | Err(QueueError::Ledger { .. })
                    if may_restore && outcome.verdict != Verdict::LeaseLost && self.restored(job).await =>
                {
                    may_restore = false;
                }
                Ok(Settled::LeaseLost) => {
                    tracing::warn!(job = %job.id, key = %job.key, claim = job.claim, "the claim was lost: another worker goes on");
                    return;
                }
                Err(QueueError::NeverLeft { .. }) if outcome.attempt.is_some() => {
                    // Nothing was paid for: it begins anew, as if its handler had looked now.
                    let why = "the POST of its last attempt never left";
                    outcome = Outcome::new(Verdict::TurnedAway(Duration::ZERO)).because(why);
                }
                Err(error) if error.is_refused() && outcome.error_kind != Some(super::outcome::INTERNAL) => {
                    tracing::error!(job = %job.id, key = %job.key, %error, "its outcome cannot be written");
                    outcome = Outcome::internal(format!("its outcome could not be written: {error}"));
                }
                Err(error) if error.is_refused() => {
                    // Not even that. The table says that it runs, and nobody here holds it: two beats later it is put back like any
                    // orphan, and runs again, with no attempt and no crash counted. The log says why, each time.
                    tracing::error!(job = %job.id, key = %job.key, %error, "its end cannot be written");
                    return;
                }
                Err(error) => {
                    // Whether it was written is not known; the same once more will tell.
                    self.shared.reconcile.store(true, Ordering::Release);
                    let delay = delays.next().unwrap_or(Duration::from_secs(5));
                    tracing::debug!(job = %job.id, key = %job.key, %error, "not settled yet; trying again in {delay:?}");
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Commits the row of a POST that has not left, unless its lane is paused or its cell wants none any more.
    ///
    /// # Errors
    /// See [`QueueError`]. Whether the row stands is then not known: the settle of the job closes it as `not_sent`.
    pub async fn begin_attempt(&self, job: &Job, submit: Submit) -> Result<Begun, QueueError> {
        let (begun, asked_at) = self.writers(&job.queue)?.begin(job, submit.clone()).await?;
        if let Begun::Written { ordinal, .. } = begun {
            let mut memory = job.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.attempt = Some((submit, ordinal));
            memory.asked_at = Some(asked_at);
        }
        Ok(begun)
    }

    /// Opens a cell's abandoned attempt again, to be polled on. False: the claim is lost, or the cell does not want it any more.
    ///
    /// # Errors
    /// What PostgreSQL refuses for its content, or any error once the grace is over.
    pub async fn reopen_attempt(&self, job: &Job, cell: Uuid, ordinal: i32, round: i32) -> Result<bool, QueueError> {
        let writers = self.writers(&job.queue)?;
        self.persist(|| ledger::reopen(self.connections(), writers.hook(), job, cell, (ordinal, round))).await
    }

    /// Waits for the moment that the job's claim was granted, and takes another one where that is past. False: a token was set.
    ///
    /// # Errors
    /// See [`QueueError`]: no moment could be had.
    pub async fn submit_moment(&self, job: &Job, lane: &str) -> Result<bool, QueueError> {
        let mut grant = job.grant;
        while let Some(granted) = grant {
            if let Some(due) = granted.due(Instant::now()) {
                tokio::select! {
                    biased;
                    _ = job.tokens.interrupted() => return Ok(false),
                    () = tokio::time::sleep_until(due) => {}
                }
                if granted.is_open(Instant::now()) {
                    return Ok(true);
                }
            }
            if job.tokens.interrupt().is_some() {
                return Ok(false);
            }
            grant = Box::pin(grant::again(self.connections(), lane)).await?;
        }
        Ok(true)
    }

    /// Commits the upstream's id, before the first poll; repeats it until it stands.
    ///
    /// # Errors
    /// What PostgreSQL refuses for its content, or any error once the grace is over.
    pub async fn accepted(&self, job: &Job, acceptance: Acceptance) -> Result<Evidence, QueueError> {
        let writers = self.writers(&job.queue)?;
        // Before it stands: whatever becomes of the database, this id is known.
        job.memory.lock().unwrap_or_else(PoisonError::into_inner).acceptance = Some(acceptance.clone());
        let _writing = self.shared.unwritten.begin(&acceptance);
        let mut evidence = self.persist(|| writers.accepted(job, acceptance.clone())).await?;
        // What is rare is on the heap: thousands wait for their answers at once.
        if evidence != Evidence::Accepted && Box::pin(self.restored(job)).await {
            evidence = self.persist(|| writers.accepted(job, acceptance.clone())).await?;
        }
        if evidence == Evidence::Untaken {
            let Acceptance { cell, ordinal, upstream_id, .. } = &acceptance;
            tracing::error!(%cell, ordinal, upstream_id, "ACCEPTED, and its attempt takes no id any more: it is known here only");
        }
        Ok(evidence)
    }

    /// Puts back what the database has forgotten of this job, if it has.
    async fn restored(&self, job: &Job) -> bool {
        let Ok(writers) = self.writers(&job.queue) else { return false };
        let restored = self.persist(|| restore::restore(self.connections(), writers.hook(), job)).await;
        restored.unwrap_or_else(|error| {
            tracing::warn!(job = %job.id, key = %job.key, %error, "could not be looked at");
            false
        })
    }

    /// Repeats a read or a write until it is done: PostgreSQL may be away for a while.
    ///
    /// # Errors
    /// What PostgreSQL refuses for its content, or any error once the grace is over.
    pub async fn persist<T, F, W>(&self, mut write: W) -> Result<T, QueueError>
    where
        W: FnMut() -> F,
        F: Future<Output = Result<T, QueueError>>,
    {
        let mut delays = backoff();
        loop {
            match write().await {
                Err(error) if !error.is_refused() && !self.shared.grace_over.is_cancelled() => {
                    let delay = delays.next().unwrap_or(Duration::from_secs(5));
                    tracing::debug!(%error, "not done yet; trying again in {delay:?}");
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = self.shared.grace_over.cancelled() => {}
                    }
                }
                done => return done,
            }
        }
    }

    /// Takes the jobs of a queue as they come and runs each with this handler, without apalis: what the library's
    /// `process_*` functions do. Ends when the engine stops.
    pub async fn drive<H, F>(&self, queue: &str, handler: H)
    where
        H: Fn(Job) -> F,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let Some(mut jobs) = self.jobs(queue) else { return };
        while let Some(job) = jobs.recv().await {
            let run = handler(job.clone());
            drop(self.execute(job, run));
        }
    }
}

/// 50 ms, 100 ms, 200 ms ... 5 s, with jitter, without end.
fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Decodes a payload and runs the handler with it. `known` is the newest version of its form that this program reads: a job
/// of a newer one is left for a newer program, and comes back soon. What cannot be decoded settles its own job as `internal`.
pub fn decoded<P, H, F>(job: &Job, known: u32, handler: H) -> impl Future<Output = Outcome> + Send + use<P, H, F>
where
    P: serde::de::DeserializeOwned,
    H: FnOnce(P) -> F,
    F: Future<Output = Outcome> + Send,
{
    match read(&job.payload, known) {
        Ok(payload) => handler(payload).left_future(),
        Err(Unread::Newer(version)) => std::future::ready(leave(&job.queue, version, known)).right_future(),
        Err(Unread::Broken(error)) => {
            tracing::error!(job = %job.id, key = %job.key, %error, "its payload cannot be decoded");
            std::future::ready(Outcome::internal(format!("the payload cannot be decoded: {error}"))).right_future()
        }
    }
}

/// Why a payload was not read.
#[derive(Debug)]
enum Unread {
    /// It has a version that this program does not know.
    Newer(u64),
    /// It has no form that this program knows.
    Broken(serde_json::Error),
}

fn read<P: serde::de::DeserializeOwned>(payload: &[u8], known: u32) -> Result<P, Unread> {
    /// What every form has, whatever else a later one brings.
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u64,
    }
    match serde_json::from_slice(payload) {
        Ok(Versioned { version }) if version > u64::from(known) => Err(Unread::Newer(version)),
        // What has no version fails here, and says so.
        _ => serde_json::from_slice(payload).map_err(Unread::Broken),
    }
}

/// A job of a newer program is none of ours, and no fault: it waits a moment for a worker that knows it. At random, so that
/// many that came together do not come back together.
fn leave(queue: &str, version: u64, known: u32) -> Outcome {
    static SAID: Mutex<BTreeSet<(String, u64)>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert((queue.to_owned(), version)) {
        tracing::warn!(queue, version, known, "jobs of a newer program are left for its workers");
    }
    let delay = Duration::from_secs_f64(rand::random_range(1.0..=5.0));
    let why = format!("left for a newer worker: payload version {version}, and this one knows {known}");
    Outcome::new(Verdict::ResumeAfter(delay)).because(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Form {
        version: u32,
        name: String,
    }

    fn form(text: &str) -> Result<Form, Unread> {
        read(text.as_bytes(), 2)
    }

    #[test]
    fn its_own_version_and_an_older_one_are_read() {
        assert_eq!(form(r#"{"version": 2, "name": "a"}"#).unwrap(), Form { version: 2, name: "a".to_owned() });
        assert_eq!(form(r#"{"version": 1, "name": "a"}"#).unwrap().version, 1);
    }

    #[test]
    fn a_newer_version_is_left_whatever_else_it_has() {
        for text in [r#"{"version": 3, "name": "a"}"#, r#"{"version": 99}"#, r#"{"version": 5000000000, "name": [1]}"#] {
            assert!(matches!(form(text), Err(Unread::Newer(3 | 99 | 5_000_000_000))), "{text}");
        }
    }

    #[test]
    fn what_has_no_form_is_broken() {
        for text in ["", "\u{0}", "[]", r#"{"name": "a"}"#, r#"{"version": "3", "name": "a"}"#, r#"{"version": 2}"#] {
            assert!(matches!(form(text), Err(Unread::Broken(_))), "{text}");
        }
    }

    #[test]
    fn a_job_that_is_left_comes_back_under_the_same_attempt_and_says_why() {
        for _ in 0..100 {
            let outcome = leave("imagemill.test", 3, 2);
            let Verdict::ResumeAfter(delay) = outcome.verdict else { panic!("{:?}", outcome.verdict) };
            assert!((1.0..=5.0).contains(&delay.as_secs_f64()), "{delay:?}");
            assert_eq!((outcome.error_kind, outcome.attempt), (None, None));
            assert_eq!(outcome.error.as_deref(), Some("left for a newer worker: payload version 3, and this one knows 2"));
        }
    }
}
