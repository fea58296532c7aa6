//! `make_image` over real HTTP: each row of both outcome tables, by the simulator's ledger, the attempts, the cell, and the
//! retry. Real worker processes; one world for all rows that want the same settings.

mod killed;
mod pictures;
mod rows;
mod stub;
mod wire;

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use futures::future::join_all;
use imagemill::{
    models::{Prompt, TaskInput},
    services::task_service,
    simulator::{Rule, SimulatorOptions},
};
use sqlx::FromRow;
use tokio::net::TcpSocket;

use self::rows::{Keys, Place, Row, rows};
use crate::support::{BOUND, World};

/// Every row, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_both_tables() {
    let faults = join_all(grouped(rows()).into_iter().map(|rows| async move {
        let mut world = Matrix::new(rows).await;
        world.create().await;
        let worker = world.world.worker(&[]);
        let faults = world.faults().await;
        drop(worker);
        faults
    }))
    .await;
    assert_none(faults);
}

fn assert_none(faults: Vec<Vec<String>>) {
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Rows that can share a world.
fn grouped(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut groups: BTreeMap<(Place, Keys), Vec<Row>> = BTreeMap::new();
    for row in rows {
        groups.entry((row.place, row.settings)).or_default().push(row);
    }
    groups.into_values().collect()
}

/// A world with one task of one cell for each row.
struct Matrix {
    world: World,
    rows: Vec<Row>,
    /// Its port is taken and not listened on.
    _refusing: TcpSocket,
}

/// What is to be seen of a row.
#[derive(Debug, FromRow)]
struct Seen {
    cell_id: String,
    cell: String,
    attempt_count: i32,
    error: Option<String>,
    attempts: Vec<String>,
    upstream_ids: Vec<Option<String>>,
    polls: Vec<i32>,
    /// An ended attempt of a failed cell says why as the cell does.
    is_explained: bool,
    job: String,
    is_due: bool,
    /// Whether it is locked, or marked to be resumed.
    held: String,
    /// Seconds from each attempt's end to the job's `run_at`.
    runs_after: Vec<Option<f64>>,
    /// Whether each attempt but the first was submitted when the answer to an unknown one before could come no more.
    is_patient: bool,
}

impl Matrix {
    async fn new(rows: Vec<Row>) -> Self {
        let mut world = World::with(SimulatorOptions::default()).await;
        let refusing = TcpSocket::new_v4().expect("a socket");
        refusing.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("take a port");
        let port = refusing.local_addr().expect("its address").port();
        // Long enough that a job which was put back is seen waiting.
        world.set("generate_image.backoff_min", "40s").set("generate_image.backoff_max", "60s");
        world.set("lanes.prod.max_polls", 600).set("database.max_connections", 100);
        // A row that is in trouble holds no other back.
        world.set("upstream.breaker_errors", 0);
        let simulator = world.simulator.url().to_owned();
        match rows[0].place {
            Place::Simulator => {}
            Place::Refused => drop(world.set("lanes.prod.base_url", format!("http://127.0.0.1:{port}"))),
            // A label of 64 characters is refused by the resolver itself: no question leaves the machine.
            Place::NoName => drop(world.set("lanes.prod.base_url", format!("http://{}.invalid", "a".repeat(64)))),
            Place::NoTls => drop(world.set("lanes.prod.base_url", simulator.replace("http:", "https:"))),
        }
        for (key, value) in rows[0].settings {
            world.set(key, value);
        }
        let rules = rows.iter().enumerate().flat_map(|(index, row)| {
            let last = row.posts.len() - 1;
            row.posts.iter().enumerate().map(move |(post, behaviour)| Rule {
                prompt: Some(mark(index)),
                times: (post < last).then_some(1),
                ..Rule::new(behaviour.clone())
            })
        });
        let rules: Vec<Rule> = rules.collect();
        world.simulator.control(|options| options.rules = rules).expect("sound rules");
        Self { world, rows, _refusing: refusing }
    }

    async fn create(&mut self) {
        let limits = (&self.world.context.settings.limits).into();
        for (index, row) in self.rows.iter().enumerate() {
            let prompt = Prompt::freetext(format!("{} {}", mark(index), row.name));
            let definition = TaskInput::new(mark(index)).prompt(prompt).seed(7).lane("prod").validate(&limits);
            let definition = definition.expect("a sound definition");
            task_service::create_task(&self.world.context, &self.world.actor, &definition).await.expect("create the task");
        }
    }

    /// What there is, in the order of the rows.
    async fn look(&self) -> Vec<Seen> {
        sqlx::query_as(
            "select s.id::text as cell_id, s.status || coalesce('/' || s.error_kind, '') as cell, s.attempt_count, s.error,
                    coalesce(a.attempts, '{}') as attempts, coalesce(a.upstream_ids, '{}') as upstream_ids,
                    coalesce(a.polls, '{}') as polls, coalesce(a.runs_after, '{}') as runs_after,
                    s.status <> 'failed' or exists (
                        select from imagemill.attempts l
                        where l.subtask_id = s.id and (l.error_kind, l.error) = (s.error_kind, s.error)) as is_explained,
                    j.status as job, j.run_at <= now() as is_due,
                    concat_ws(' ', 'locked by ' || j.lock_by, case when j.metadata ? 'resume' then 'resume' end) as held,
                    not exists (select from imagemill.attempts earlier
                                join imagemill.attempts next using (subtask_id)
                                where subtask_id = s.id and earlier.state = 'unknown' and next.ordinal > earlier.ordinal
                                  and next.submitted_at < earlier.answer_until) as is_patient
             from imagemill.tasks t
             join imagemill.subtasks s on s.task_id = t.id
             join apalis.jobs j on j.job_type = 'imagemill.generate_image' and j.idempotency_key = s.id::text
             left join lateral (
                 select array_agg(state || coalesce('/' || http_status, '') order by ordinal) as attempts,
                        array_agg(upstream_id order by ordinal) as upstream_ids, array_agg(polls order by ordinal) as polls,
                        array_agg(extract(epoch from j.run_at - finished_at)::float8 order by ordinal) as runs_after
                 from imagemill.attempts where subtask_id = s.id) a on true
             order by t.name",
        )
        .fetch_all(self.world.pool())
        .await
        .expect("look at the rows")
    }

    /// Waits until every row is at rest, or will not be, and says what differs from the tables.
    async fn faults(&self) -> Vec<String> {
        let deadline = Instant::now() + BOUND;
        let seen = loop {
            let seen = self.look().await;
            if seen.iter().zip(&self.rows).all(|(seen, row)| seen.is_at_rest(row)) || Instant::now() > deadline {
                break seen;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert_eq!(seen.len(), self.rows.len());
        let mut faults: Vec<String> = self.rows.iter().zip(&seen).flat_map(|(row, seen)| self.compare(row, seen)).collect();
        let wrong = "select count(*) from imagemill.task_counts c
             where (completed_subtasks, failed_subtasks) <>
                   (select count(*) filter (where status = 'completed'), count(*) filter (where status = 'failed')
                    from imagemill.subtasks s where s.task_id = c.task_id)";
        if self.world.number(wrong).await != 0 {
            faults.push("counts that are not the rows".to_owned());
        }
        faults
    }

    fn compare(&self, row: &Row, seen: &Seen) -> Vec<String> {
        let mut faults = Vec::new();
        let mut same = |what: &str, is: String, should: String| {
            if is != should {
                faults.push(format!("{}: {what} is `{is}`, not `{should}`; error: {:?}", row.name, seen.error));
            }
        };
        // The simulator's ledger.
        let prefix = format!("{}/", seen.cell_id);
        let ledger = self.world.simulator.ledger();
        let billed: Vec<_> = ledger
            .iter()
            .filter_map(|entry| Some((entry.request_id.as_ref()?.strip_prefix(&prefix)?.parse::<usize>().ok()?, entry)))
            .collect();
        let ordinals: Vec<String> = billed.iter().map(|(ordinal, _)| ordinal.to_string()).collect();
        same("billed", ordinals.join(" "), row.billed.to_owned());
        for (ordinal, entry) in &billed {
            let id = seen.upstream_ids.get(ordinal - 1).cloned().flatten();
            let is_unknown = seen.attempts.get(ordinal - 1).is_some_and(|attempt| attempt.starts_with("unknown"));
            let should = if is_unknown { None } else { Some(entry.upstream_id.clone()) };
            same("the upstream id", format!("{id:?}"), format!("{should:?}"));
        }
        let ids = seen.upstream_ids.iter().flatten().count();
        let known = billed.len()
            - seen
                .attempts
                .iter()
                .zip(1..)
                .filter(|(attempt, ordinal)| attempt.starts_with("unknown") && billed.iter().any(|(billed, _)| billed == ordinal))
                .count();
        same("the number of upstream ids", ids.to_string(), known.to_string());
        // The attempts.
        same("attempts", seen.attempts.join(" "), row.attempts.to_owned());
        let uncounted = |attempt: &&str| !attempt.starts_with("not_sent") && !attempt.starts_with("turned_away");
        let counted = row.attempts.split_whitespace().filter(uncounted).count();
        same("attempt_count", seen.attempt_count.to_string(), counted.to_string());
        if let Some((answered, arrived)) = row.polls {
            let arrivals = billed.last().map(|(_, entry)| entry.polls);
            same("polls", format!("{:?} {arrivals:?}", seen.polls.last()), format!("{:?} {:?}", Some(answered), Some(arrived)));
        }
        // The cell.
        same("the cell", seen.cell.clone(), row.cell.to_owned());
        same("the attempt says why", seen.is_explained.to_string(), "true".to_owned());
        if !seen.error.as_deref().unwrap_or_default().contains(row.says) {
            same("the error", format!("{:?}", seen.error), format!("...{}...", row.says));
        }
        // The retry.
        let job = match row.cell.split('/').next() {
            Some("completed") => "Done",
            Some("failed") => "Failed",
            _ => "Pending",
        };
        same("the job", seen.job.clone(), job.to_owned());
        same("lock_by, resume", seen.held.clone(), String::new());
        same("not before answer_until", seen.is_patient.to_string(), "true".to_owned());
        if let Some(retry) = row.retry {
            let after = seen.runs_after.get(retry.after - 1).copied().flatten();
            // A microsecond: what PostgreSQL rounds to.
            if !after.is_some_and(|after| (retry.from - 1e-6..=retry.to + 1e-6).contains(&after)) {
                same("run_at", format!("{after:?}"), format!("{} to {} s after attempt {}", retry.from, retry.to, retry.after));
            }
        }
        faults
    }
}

impl Seen {
    /// Its job has ended, or waits after as many attempts as the row has.
    fn is_at_rest(&self, row: &Row) -> bool {
        match self.job.as_str() {
            "Pending" => !self.is_due && self.attempts.len() >= row.attempts.split_whitespace().count(),
            "Running" => false,
            _ => true,
        }
    }
}

/// Name of a row's task, and how the simulator tells it from the others.
fn mark(index: usize) -> String {
    format!("[{index:03}]")
}
