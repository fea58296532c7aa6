//! A session: a worker's connection behind its gate, the claims that it holds, and the step of the engine that is under way.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use imagemill::{
    crud::{steering, subtasks},
    models::{
        payload::{CompleteTask, GenerateImage},
        status::Status,
    },
    queue::{
        self, Batch, EngineOptions, Job, Outcome, Queue, QueueError, Settled,
        ledger::{self, Acceptance, Evidence, Past, Submit},
        steps::{Look, Steps},
    },
    services::{subtask_service, task_service},
};
use sqlx::{Connection as _, PgPool};
use uuid::Uuid;

use super::gate::Gate;

/// How far the handler of a claim has come.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Claimed: the ledger is to be looked at.
    New,
    /// No attempt is open, and one is wanted.
    Ready,
    /// The row stands; its POST may leave.
    Begun(i32),
    /// The upstream took it, and its id is to be written.
    Accepting(Acceptance),
    /// Its attempt is polled.
    Polling(i32),
    /// Its outcome is to be written.
    Ended(Outcome),
}

#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) job: Job,
    pub(super) phase: Phase,
    /// What was refused in a group is written by itself.
    pub(super) is_alone: bool,
}

/// One call of the engine.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Claim { queue: &'static str, key: Option<String> },
    Look { job: Job },
    Begin { job: Job },
    Accept { job: Job, acceptance: Acceptance },
    Settle { settles: Vec<(Job, Outcome)>, is_repeat: bool },
    Beat,
    Rescue { dead: String, last_seen: DateTime<Utc>, beats: u64 },
    Reconcile,
    Steer { task: Uuid, number: i32, cell: Uuid, is_forced: bool },
    Reopen { task: Uuid, cell: Uuid },
}

impl Step {
    /// Its name, and the jobs that it is for.
    pub(super) fn name(&self) -> String {
        let jobs = |settles: &[(Job, Outcome)]| -> Vec<(String, i32)> {
            settles.iter().map(|(job, _)| (job.key.clone(), job.claim)).collect()
        };
        match self {
            Self::Look { job } => format!("look {} {}", job.key, job.claim),
            Self::Begin { job } => format!("begin {} {}", job.key, job.claim),
            Self::Accept { job, .. } => format!("accept {} {}", job.key, job.claim),
            Self::Settle { settles, is_repeat } => format!("settle {:?}, repeated: {is_repeat}", jobs(settles)),
            other => format!("{other:?}"),
        }
    }
}

/// What it returned.
#[derive(Debug)]
pub(super) enum Answer {
    Claimed(Result<Vec<Job>, QueueError>),
    Looked(Result<(String, bool, Past), QueueError>),
    Begun(Result<Option<i32>, QueueError>),
    Accepted(Result<Evidence, QueueError>),
    Settled(Result<Vec<Settled>, QueueError>),
    Beaten(Result<Look, QueueError>),
    Rescued(Result<Option<u64>, QueueError>),
    Done(Result<(), QueueError>),
}

impl Answer {
    pub(super) fn error(&self) -> Option<&QueueError> {
        match self {
            Self::Claimed(result) => result.as_ref().err(),
            Self::Looked(result) => result.as_ref().err(),
            Self::Begun(result) => result.as_ref().err(),
            Self::Accepted(result) => result.as_ref().err(),
            Self::Settled(result) => result.as_ref().err(),
            Self::Beaten(result) => result.as_ref().err(),
            Self::Rescued(result) => result.as_ref().err(),
            Self::Done(result) => result.as_ref().err(),
        }
    }
}

impl Answer {
    /// A word for what is worth counting.
    pub(super) fn word(&self) -> Option<&'static str> {
        match self {
            Self::Settled(Ok(settled)) if settled.contains(&Settled::LeaseLost) => Some("settled by a lost claim"),
            Self::Settled(Ok(settled)) if settled.contains(&Settled::WrittenBefore) => Some("settled before"),
            Self::Settled(Ok(settled)) if settled.len() > 1 => Some("settled in a group"),
            Self::Settled(Ok(_)) => Some("settled"),
            Self::Settled(Err(QueueError::NeverLeft { .. })) => Some("never left"),
            Self::Accepted(Ok(Evidence::Accepted)) => Some("accepted"),
            Self::Accepted(Ok(Evidence::LeaseLost)) => Some("accepted late"),
            Self::Accepted(Ok(Evidence::Untaken)) => Some("accepted late, and kept by no row"),
            Self::Accepted(Ok(Evidence::NoSuchAttempt)) => Some("accepted without an attempt"),
            Self::Begun(Ok(Some(_))) => Some("begun"),
            Self::Begun(Ok(None)) => Some("not begun"),
            Self::Rescued(Ok(Some(_))) => Some("rescued"),
            Self::Rescued(Ok(None)) => Some("not rescued"),
            Self::Beaten(Ok(Look { alive: false, .. })) => Some("found itself dead"),
            Self::Claimed(Ok(jobs)) if !jobs.is_empty() => Some("claimed"),
            Self::Claimed(Ok(_)) => Some("claimed nothing"),
            _ if self.error().is_some() => Some("answer lost"),
            _ => None,
        }
    }
}

/// What the reference says that it returns, once it is committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Claimed(BTreeSet<(String, i32)>),
    Begun(Option<i32>),
    Accepted(Evidence),
    Settled(Vec<Settled>),
}

pub(super) struct Flight {
    pub(super) step: Step,
    pub(super) task: tokio::task::JoinHandle<Answer>,
    pub(super) expected: Option<Expected>,
    /// The worker's name when it began.
    pub(super) name: Arc<str>,
}

pub(super) struct Session {
    pub(super) gate: Gate,
    pub(super) pool: PgPool,
    pub(super) steps: Option<Steps>,
    pub(super) claims: Vec<Claimed>,
    pub(super) flight: Option<Flight>,
    /// What was settled last, to be repeated as it is.
    pub(super) settled: Vec<(Job, Outcome)>,
    /// The others as its last beat saw them, each with the number of beats it had given by then.
    pub(super) seen: Vec<(String, DateTime<Utc>, u64)>,
    /// A claim failed on the foreign key: it was found dead.
    pub(super) must_beat: bool,
}

impl Session {
    pub(super) fn new(gate: Gate, pool: PgPool) -> Self {
        let (claims, settled, seen) = (Vec::new(), Vec::new(), Vec::new());
        Self { gate, pool, steps: None, claims, flight: None, settled, seen, must_beat: false }
    }

    /// A new worker, which holds nothing.
    pub(super) async fn register(&mut self, options: &EngineOptions, queues: Vec<Queue>) {
        let steps = Steps::register(self.pool.clone(), options.clone(), queues).await.expect("register a worker");
        self.steps = Some(steps);
        (self.claims, self.settled, self.seen, self.must_beat) = (Vec::new(), Vec::new(), Vec::new(), false);
    }

    pub(super) fn steps(&self) -> &Steps {
        self.steps.as_ref().expect("a registered worker")
    }

    /// Begins a call of the engine; it comes to its first statement by itself.
    pub(super) fn begin(&mut self, step: Step) {
        let (steps, pool, changed) = (self.steps().clone(), self.pool.clone(), self.gate.changed());
        let name = steps.name();
        let taken = step.clone();
        let task = tokio::spawn(async move {
            let answer = take(&steps, &pool, taken).await;
            changed.notify_one();
            answer
        });
        self.flight = Some(Flight { step, task, expected: None, name });
    }

    /// The claim that a step was for.
    pub(super) fn claim_of(&mut self, job: &Job) -> Option<&mut Claimed> {
        self.claims.iter_mut().find(|claimed| claimed.job.id == job.id && claimed.job.claim == job.claim)
    }

    /// A claim came to its end.
    pub(super) fn release(&mut self, job: &Job) {
        self.steps().release(job);
        self.claims.retain(|claimed| claimed.job.id != job.id || claimed.job.claim != job.claim);
    }
}

async fn take(steps: &Steps, pool: &PgPool, step: Step) -> Answer {
    match step {
        Step::Claim { queue, key: None } => Answer::Claimed(steps.claim(queue, 2).await),
        Step::Claim { queue, key: Some(key) } => Answer::Claimed(steps.claim_key(queue, &key).await),
        Step::Look { job } => Answer::Looked(look(pool, &job).await),
        Step::Begin { job } => {
            let hook = subtask_service::hook();
            let begun = ledger::begin(steps.connections(), &*hook, &[(job.clone(), submit(&job))]).await;
            Answer::Begun(begun.map(|begun| match begun[0] {
                ledger::Begun::Written { ordinal, .. } => Some(ordinal),
                ledger::Begun::Held(_) | ledger::Begun::Unwanted => None,
            }))
        }
        Step::Accept { job, acceptance } => {
            let accepted = ledger::accepted(steps.connections(), &[(job, acceptance)]).await;
            Answer::Accepted(accepted.map(|evidence| evidence[0]))
        }
        Step::Settle { settles, .. } => {
            let is_cells = settles.iter().any(|(job, _)| &*job.queue == GenerateImage::QUEUE);
            let hook = if is_cells { subtask_service::hook() } else { task_service::hook() };
            Answer::Settled(queue::settle(steps.connections(), &*hook, &settles).await)
        }
        Step::Beat => Answer::Beaten(steps.beat().await),
        Step::Rescue { dead, last_seen, .. } => Answer::Rescued(steps.rescue(&dead, last_seen).await),
        Step::Reconcile => Answer::Done(steps.reconcile().await),
        Step::Steer { task, number, is_forced, .. } => Answer::Done(steer(pool, task, number, is_forced).await),
        Step::Reopen { task, cell } => Answer::Done(reopen(pool, task, cell).await),
    }
}

fn submit(job: &Job) -> Submit {
    let cell = job.cell().expect("a cell's job");
    // An answer comes at once or never: an earlier submit keeps no later one waiting.
    Submit {
        cell,
        round: 1,
        lane: "prod".into(),
        request_sha256: "0".into(),
        answer_within: Duration::ZERO,
        token_hash: String::new(),
        is_probe: false,
    }
}

/// What a handler reads before anything else: the cell's state, whether its end was asked for, and its attempts.
async fn look(pool: &PgPool, job: &Job) -> Result<(String, bool, Past), QueueError> {
    let cell = job.cell().expect("a cell's job");
    let mut connection = pool.acquire().await?;
    let row = subtasks::get_to_run(&mut connection, &[cell], &[]).await?.pop().expect("the cell");
    let past = ledger::pasts(&mut connection, &[(cell, 1)]).await?.remove(&cell).unwrap_or_default();
    Ok((row.status.to_string(), row.is_cancel_requested, past))
}

/// Ends a cell by hand: cancels it, or by force.
async fn steer(pool: &PgPool, task: Uuid, number: i32, is_forced: bool) -> Result<(), QueueError> {
    let mut connection = pool.acquire().await?;
    let (status, what) = if is_forced { (Status::Failed, "force_complete_task") } else { (Status::Cancelled, "cancel_subtask") };
    steering::end_cells(&mut connection, task, Some(&[number]), status, "tester", what).await?;
    Ok(())
}

async fn reopen(pool: &PgPool, task: Uuid, cell: Uuid) -> Result<(), QueueError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let (group, payload) = (task.to_string(), serde_json::to_vec(&GenerateImage::new(cell, task)).expect("a payload"));
    let batch = Batch {
        queue: GenerateImage::QUEUE,
        group: &group,
        owner: "tester",
        is_alone: false,
        keys: vec![cell.to_string()],
        lanes: vec!["prod".to_owned()],
        payloads: vec![payload],
    };
    queue::reopen(&mut transaction, &batch).await?;
    transaction.commit().await?;
    Ok(())
}

/// Whether this queue's jobs are cells.
pub(super) fn is_of_cells(queue: &str) -> bool {
    queue != CompleteTask::QUEUE
}
