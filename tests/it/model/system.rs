//! The system under test: the engine's own SQL in two workers' sessions, an operator's and a last worker's, statement by statement.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use imagemill::queue::{Outcome, QueueError, ledger::Evidence};
use sqlx::error::DatabaseError;
use uuid::Uuid;

use super::{
    gate::{Committed, Passing},
    handler::{self, Policy, Upstream},
    rig::{DRAINER, Rig},
    rows::Tables,
    session::{Answer, Claimed, Expected, Phase, Session, Step, is_of_cells},
};

pub(super) struct World {
    pub(super) rig: Rig,
    pub(super) tables: Tables,
    pub(super) upstream: Upstream,
    pub(super) policy: Policy,
    pub(super) task: Uuid,
    pub(super) cells: Vec<Uuid>,
    /// Beats of each worker.
    beats: HashMap<String, u64>,
    /// Something was committed since the tables were compared.
    pub(super) has_committed: bool,
    /// What was seen, and how often.
    pub(super) seen: BTreeMap<&'static str, u64>,
}

impl World {
    pub(super) async fn new(mut rig: Rig, cells: usize, policy: Policy) -> Self {
        let task = rig.renew(cells).await;
        let tables = rig.read().await;
        let cells = tables.cells.keys().copied().collect();
        let (upstream, beats) = (Upstream::default(), HashMap::new());
        Self { rig, tables, upstream, policy, task, cells, beats, has_committed: false, seen: BTreeMap::new() }
    }

    /// A worker goes on with what it has to do.
    pub(super) async fn work(&mut self, index: usize, pick: u8) {
        if self.finish(index).await {
            let session = &mut self.rig.sessions[index];
            let step = handler::next(session, pick, &self.tables, &mut self.upstream, self.policy);
            if let Some(step) = step {
                self.begin(index, step).await;
            }
        }
    }

    /// A worker claims, whatever it holds.
    pub(super) async fn claim(&mut self, index: usize) {
        if self.finish(index).await {
            let step = handler::claim(&self.rig.sessions[index], &self.tables);
            self.begin(index, step).await;
        }
    }

    /// A session begins a step; what it had begun comes first. One that waits for a lock goes on waiting.
    pub(super) async fn start(&mut self, index: usize, step: Step) {
        if self.finish(index).await {
            self.begin(index, step).await;
        }
    }

    async fn begin(&mut self, index: usize, step: Step) {
        self.rig.sessions[index].begin(step);
        self.quiesce(index).await;
        self.compare().await;
    }

    /// The next statement of a session passes, or does not. False: there is none, or it may not pass now.
    pub(super) async fn pass(&mut self, index: usize, passing: Passing) -> bool {
        if self.is_to_wait(index).await || !self.rig.sessions[index].gate.order(passing) {
            return false;
        }
        self.quiesce(index).await;
        for other in 0..self.rig.sessions.len() {
            if other != index && self.rig.sessions[other].flight.is_some() {
                self.quiesce(other).await;
            }
        }
        self.compare().await;
        true
    }

    /// While a session waits for another one's lock only that one goes on: of two that were let go by one commit nobody could say
    /// which was first.
    async fn is_to_wait(&mut self, index: usize) -> bool {
        let others = self.rig.sessions.iter().enumerate().filter(|(other, _)| *other != index);
        let waiting: Vec<i32> = others.filter_map(|(_, session)| session.gate.running()).collect();
        if waiting.is_empty() {
            return false;
        }
        let holders = self.rig.holders(&waiting).await;
        let holds = |session: &Session| session.gate.backend().is_some_and(|process| holders.contains(&process));
        self.rig.sessions.iter().any(holds) && !holds(&self.rig.sessions[index])
    }

    /// Passes what a session has begun, to its end. False: it waits for a lock.
    pub(super) async fn finish(&mut self, index: usize) -> bool {
        for _ in 0..100 {
            if self.rig.sessions[index].flight.is_none() {
                return true;
            }
            if !self.rig.sessions[index].gate.is_parked() {
                // It waited for a lock when it was looked at last.
                self.quiesce(index).await;
                self.compare().await;
            }
            match &self.rig.sessions[index] {
                session if session.flight.is_none() => return true,
                session if !session.gate.is_parked() => return false,
                _ => {}
            }
            if !self.pass(index, Passing::Through).await {
                return false;
            }
        }
        panic!("a step of 100 statements");
    }

    /// Waits until a session's step has ended, its next statement is in front of the gate, or the one under way waits for a lock.
    async fn quiesce(&mut self, index: usize) {
        let changed = self.rig.sessions[index].gate.changed();
        let began = tokio::time::Instant::now();
        loop {
            for committed in self.rig.sessions[index].gate.take_committed() {
                self.committed(index, &committed).await;
            }
            let session = &mut self.rig.sessions[index];
            let Some(flight) = &mut session.flight else { return };
            if flight.task.is_finished() && session.gate.is_at_rest() {
                // What it committed last may have come with its end.
                for committed in self.rig.sessions[index].gate.take_committed() {
                    self.committed(index, &committed).await;
                }
                self.answered(index).await;
                return;
            }
            if session.gate.is_parked() {
                return;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "{} does not end", flight.step.name());
            if tokio::time::timeout(Duration::from_millis(3), changed.notified()).await.is_err()
                && let Some(process) = self.rig.sessions[index].gate.running()
                && self.rig.is_blocked(process).await
            {
                self.note("waited for a lock");
                return;
            }
        }
    }

    /// PostgreSQL has committed a transaction of a session's step: the reference follows.
    async fn committed(&mut self, index: usize, texts: &Committed) {
        let has = |text: &str| texts.iter().any(|statement| statement.contains(text));
        let Some(flight) = &self.rig.sessions[index].flight else { return };
        let (step, name) = (flight.step.clone(), flight.name.clone());
        self.has_committed = true;
        let expected = match step {
            Step::Claim { .. } => {
                let seen = self.rig.read().await;
                Some(Expected::Claimed(self.tables.claimed(&name, &seen)))
            }
            Step::Begin { job } => Some(Expected::Begun(self.tables.begun(&job))),
            Step::Accept { job, acceptance } => Some(Expected::Accepted(self.tables.accepted(&job, &acceptance))),
            Step::Settle { settles, .. } => {
                let settled = self.tables.settled(&settles);
                let seen = self.rig.read().await;
                self.tables.name_completion(&seen);
                Some(Expected::Settled(settled))
            }
            Step::Beat if has("set last_seen") => {
                *self.beats.entry(name.to_string()).or_default() += 1;
                None
            }
            Step::Rescue { dead, beats, .. } => {
                assert_eq!(self.beats.get(&dead).copied().unwrap_or_default(), beats, "{dead} beat, and was rescued");
                self.tables.rescued(&dead);
                None
            }
            Step::Reconcile if has("mine as") => {
                let steps = self.rig.sessions[index].steps().clone();
                self.tables.orphaned(&name, |id, claim| steps.holds(id, claim));
                None
            }
            Step::Steer { cell, is_forced, .. } => {
                self.tables.steered(cell, is_forced);
                let seen = self.rig.read().await;
                self.tables.name_completion(&seen);
                None
            }
            Step::Reopen { cell, .. } => {
                let seen = self.rig.read().await;
                self.tables.reopened(&cell.to_string(), &seen);
                None
            }
            Step::Look { .. } | Step::Beat | Step::Reconcile => None,
        };
        if let Some(flight) = &mut self.rig.sessions[index].flight {
            flight.expected = expected;
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A step has come to its end, and its session goes on from there.
    async fn answered(&mut self, index: usize) {
        let Some(flight) = self.rig.sessions[index].flight.take() else { return };
        let answer = flight.task.await.expect("a step does not panic");
        if let Some(error) = answer.error() {
            let code = match error {
                QueueError::Database(error) => {
                    error.as_database_error().and_then(DatabaseError::code).map(|code| code.to_string())
                }
                _ => None,
            };
            let is_conflict = code.as_deref().is_some_and(|code| ["40P01", "40001"].contains(&code));
            assert!(!is_conflict, "two transactions were in each other's way: {error}");
            let is_fault = matches!(error, QueueError::Ledger { .. } | QueueError::Hook { .. });
            assert!(!is_fault, "{}: {error}", flight.step.name());
        }
        if let Some(what) = answer.word() {
            self.note(what);
        }
        let expected = flight.expected;
        let policy = self.policy;
        let session = &mut self.rig.sessions[index];
        match (flight.step, answer) {
            (_, Answer::Claimed(Ok(jobs))) => {
                let claims = jobs.iter().map(|job| (job.id.clone(), job.claim)).collect();
                assert_eq!(Some(Expected::Claimed(claims)), expected);
                session.claims.extend(jobs.into_iter().map(|job| {
                    let phase = if is_of_cells(&job.queue) { Phase::New } else { Phase::Ended(Outcome::done()) };
                    Claimed { job, phase, is_alone: false }
                }));
            }
            (_, Answer::Claimed(Err(QueueError::Database(error)))) => {
                let constraint = error.as_database_error().and_then(|error| error.constraint());
                session.must_beat = constraint == Some("fk_worker_lock_by");
            }
            (Step::Look { job }, Answer::Looked(Ok((status, is_cancel_requested, past)))) => {
                if let Some(claimed) = session.claim_of(&job) {
                    claimed.phase = handler::looked(&status, is_cancel_requested, &past, policy);
                }
            }
            (Step::Begin { job }, Answer::Begun(begun)) => {
                if let Ok(ordinal) = begun {
                    assert_eq!(Some(Expected::Begun(ordinal)), expected);
                }
                session.begun(&job, &begun);
            }
            (Step::Accept { job, acceptance }, Answer::Accepted(Ok(evidence))) => {
                assert_eq!(Some(Expected::Accepted(evidence)), expected);
                let Some(claimed) = session.claim_of(&job) else { return };
                match evidence {
                    Evidence::Accepted => claimed.phase = Phase::Polling(acceptance.ordinal),
                    Evidence::NoSuchAttempt => {
                        claimed.phase = Phase::Ended(handler::id_not_written(acceptance.ordinal, policy));
                    }
                    Evidence::LeaseLost | Evidence::Untaken => session.release(&job),
                }
            }
            (Step::Settle { settles, is_repeat }, Answer::Settled(result)) => {
                if let Ok(settled) = &result {
                    assert_eq!(Some(Expected::Settled(settled.clone())), expected);
                }
                if !is_repeat {
                    session.settled(settles, result.as_ref().err());
                }
            }
            (_, Answer::Beaten(Ok(look))) => {
                session.must_beat = false;
                let beats = &self.beats;
                let seen = |(name, last_seen): (String, _)| {
                    let given = beats.get(&name).copied().unwrap_or_default();
                    (name, last_seen, given)
                };
                session.seen = look.others.into_iter().map(seen).collect();
            }
            // What was not answered is done again, or not.
            _ => {}
        }
    }

    /// Whom a worker has seen, and may find dead.
    pub(super) fn watched(&self, index: usize) -> Option<Step> {
        let drainer = self.rig.sessions[DRAINER].steps().name();
        let mut seen = self.rig.sessions[index].seen.iter().filter(|(name, ..)| *name != *drainer);
        seen.next().map(|(dead, last_seen, beats)| Step::Rescue { dead: dead.clone(), last_seen: *last_seen, beats: *beats })
    }
}
