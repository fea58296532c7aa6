//! What matters most, one test each. `tests/broken/` holds a patch for each of them that breaks it, and shows that the test
//! sees it.

use std::time::{Duration, Instant};

use imagemill::{
    crud::subtasks,
    models::payload::GenerateImage,
    queue::{AttemptEnd, Engine, Job, Outcome, Queue, Settled, Verdict, ledger},
    services::{processing, subtask_service},
    simulator::{Behaviour, SimulatorOptions, Span},
};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use crate::support::{BOUND, World, eventually};

/// An engine that takes jobs by key only, and the first cell's job.
async fn hold_one(world: &World) -> (Engine, Job, Uuid) {
    let cell: Uuid = sqlx::query_scalar("select id from imagemill.subtasks order by cell limit 1")
        .fetch_one(world.pool())
        .await
        .expect("a cell");
    let queues = processing::queues(&world.context.settings, 10, vec!["prod".to_owned()]);
    let queues = queues.into_iter().map(|queue| Queue { claimed: false, ..queue }).collect();
    let options = processing::engine_options(&world.context.settings, None);
    let engine = Engine::start(world.pool().clone(), options, queues).await.expect("start the engine");
    let job = engine.claim_key(GenerateImage::QUEUE, &cell.to_string()).await.expect("claim").expect("a job");
    (engine, job, cell)
}

/// Writes the ledger row of a held job.
async fn begin(world: &World, job: &Job, cell: Uuid) -> i32 {
    let hook = subtask_service::hook();
    let begun = ledger::begin(&world.connections(), &*hook, &[(job.clone(), submit(cell))]).await.expect("write the row");
    let ledger::Begun::Written { ordinal, .. } = begun[0] else { panic!("no attempt: {begun:?}") };
    ordinal
}

fn submit(cell: Uuid) -> ledger::Submit {
    ledger::Submit {
        cell,
        round: 1,
        lane: "prod".into(),
        request_sha256: "0".into(),
        answer_within: Duration::from_mins(5),
        token_hash: String::new(),
        is_probe: false,
    }
}

/// A picture.
fn picture(ordinal: i32) -> Outcome {
    let end =
        AttemptEnd { ordinal: Some(ordinal), state: ledger::AttemptState::Succeeded, http_status: None, error: None, polls: 1 };
    Outcome::done().ending(end).leaving(json!({ "url": "http://x/1.png", "file": null, "sha256": null, "note": null }))
}

async fn settle(world: &World, job: &Job, outcome: &Outcome) -> Settled {
    let settles = [(job.clone(), outcome.clone())];
    imagemill::queue::settle(&world.connections(), &*subtask_service::hook(), &settles).await.expect("settle")[0]
}

async fn accept(world: &World, job: &Job, cell: Uuid, ordinal: i32) -> ledger::Evidence {
    let acceptance = ledger::Acceptance { cell, ordinal, upstream_id: "upstream-1".into(), http_status: 200 };
    ledger::accepted(&world.connections(), &[(job.clone(), acceptance)]).await.expect("write the id")[0]
}

/// Another session takes the job away and claims it anew: under another worker's name, or the same.
async fn claim_away(world: &World, job: &Job, worker: &str) {
    sqlx::query("insert into apalis.workers (id, worker_type, storage_name) values ($1, 'test', 'test') on conflict do nothing")
        .bind(worker)
        .execute(world.pool())
        .await
        .expect("another worker");
    let rows = sqlx::query("update apalis.jobs set lock_by = $2, attempts = attempts + 1 where id = $1")
        .bind(&job.id)
        .bind(worker)
        .execute(world.pool())
        .await
        .expect("claim it away")
        .rows_affected();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_settle_of_a_lost_claim_changes_nothing() {
    for same_worker in [false, true] {
        let world = World::new().await;
        world.create(1).await;
        let (_engine, job, cell) = hold_one(&world).await;
        let ordinal = begin(&world, &job, cell).await;
        assert_eq!(accept(&world, &job, cell, ordinal).await, ledger::Evidence::Accepted);
        let taker = if same_worker { job.worker.to_string() } else { "another".to_owned() };
        claim_away(&world, &job, &taker).await;

        let settled = settle(&world, &job, &picture(ordinal)).await;

        assert_eq!(world.cells().await, "processing: 1");
        assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'accepted'").await, 1);
        assert_eq!(world.number("select completed_subtasks::bigint from imagemill.task_counts").await, 0);
        assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Running'").await, 1);
        assert_eq!(world.number("select sum(stale_writes)::bigint from imagemill.incarnations").await, 1);
        assert_eq!(settled, Settled::LeaseLost);
        // Nor does it write a ledger row any more, or make the attempt its own.
        let hook = subtask_service::hook();
        let begun = ledger::begin(&world.connections(), &*hook, &[(job, submit(cell))]).await.expect("look");
        assert_eq!(begun, [ledger::Begun::Unwanted]);
    }
}

#[tokio::test]
async fn a_late_answer_is_evidence_and_not_the_cells() {
    let world = World::new().await;
    world.create(1).await;
    let (_engine, job, cell) = hold_one(&world).await;
    let ordinal = begin(&world, &job, cell).await;
    claim_away(&world, &job, "another").await;

    assert_eq!(accept(&world, &job, cell, ordinal).await, ledger::Evidence::LeaseLost);

    let row: (String, String) =
        sqlx::query_as("select state, upstream_id from imagemill.attempts").fetch_one(world.pool()).await.expect("the attempt");
    assert_eq!(row, ("abandoned".to_owned(), "upstream-1".to_owned()));
    assert_eq!(world.cells().await, "processing: 1");
}

#[tokio::test]
async fn a_settle_that_is_repeated_is_written_once() {
    let world = World::new().await;
    world.create(2).await;
    let (_engine, job, cell) = hold_one(&world).await;
    let ordinal = begin(&world, &job, cell).await;
    accept(&world, &job, cell, ordinal).await;
    assert_eq!(settle(&world, &job, &picture(ordinal)).await, Settled::Written);
    assert_eq!(settle(&world, &job, &picture(ordinal)).await, Settled::WrittenBefore);
    assert_eq!(world.number("select completed_subtasks::bigint from imagemill.task_counts").await, 1);
    assert_eq!(world.number("select sum(stale_writes)::bigint from imagemill.incarnations").await, 0);
}

#[tokio::test]
async fn two_claims_of_one_job_are_told_apart_in_one_settle() {
    let world = World::new().await;
    world.create(1).await;
    let (engine, first, cell) = hold_one(&world).await;
    begin(&world, &first, cell).await;
    // Its handler was not told of its row and takes it back; nor is it told that this was done, and repeats it later.
    let end = AttemptEnd::open(ledger::AttemptState::NotSent, "its row was not written");
    let taken_back = Outcome::new(Verdict::TurnedAway(Duration::ZERO)).ending(end);
    assert_eq!(settle(&world, &first, &taken_back).await, Settled::Written);
    let second = engine.claim_key(GenerateImage::QUEUE, &cell.to_string()).await.expect("claim").expect("the same job");
    let ordinal = begin(&world, &second, cell).await;
    accept(&world, &second, cell, ordinal).await;

    let settles = [(first, taken_back), (second, Outcome::new(Verdict::HandedOver))];
    let hook = subtask_service::hook();
    let settled = imagemill::queue::settle(&world.connections(), &*hook, &settles).await.expect("settle");

    // What is accepted is not given back to be paid for again.
    assert_eq!(world.cells().await, "processing: 1");
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'accepted'").await, 1);
    assert_eq!(settled, [Settled::LeaseLost, Settled::Written]);
}

#[tokio::test]
async fn a_submit_that_never_left_is_not_unknown() {
    let world = World::new().await;
    world.create(1).await;
    let (engine, job, cell) = hold_one(&world).await;
    let ordinal = begin(&world, &job, cell).await;
    // The worker that began it says so, as evidence, after the next one has looked.
    sqlx::query("update imagemill.attempts set state = 'not_sent', finished_at = now()")
        .execute(world.pool())
        .await
        .expect("its evidence");
    let end =
        AttemptEnd { ordinal: Some(ordinal), state: ledger::AttemptState::Unknown, http_status: None, error: None, polls: 0 };
    let unknown = Outcome::failed("unknown_submit", "its worker ended before the answer").ending(end);

    engine.execute(job, async move { unknown }).await.expect("settled");

    assert_eq!(world.cells().await, "pending: 1");
    assert_eq!(world.number("select attempt_count::bigint from imagemill.subtasks").await, 0);
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Pending'").await, 1);
}

#[tokio::test]
async fn the_row_stands_before_the_post_leaves() {
    let world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    world.create(1).await;
    let mut worker = world.worker(&[]);
    eventually("the POST arrives", || async { world.simulator.stats().arrivals == 1 }).await;

    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'submitting'").await, 1);

    worker.kill();
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    world.drain().await;
    // What was out at the kill is unknown, and not sent again.
    assert_eq!(world.cells().await, "failed/unknown_submit: 1");
    assert_eq!(world.simulator.stats().arrivals, 1);
    world.assert_settled().await;
}

/// Waits until a statement of this world's processes waits for a lock.
async fn until_blocked(world: &World) {
    eventually("a statement waits for a lock", || async {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(world.pool())
        .await
        .expect("look at the sessions");
        waiting > 0
    })
    .await;
}

#[tokio::test]
async fn no_poll_comes_before_the_id_is_committed() {
    let world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    world.create(1).await;
    let worker = world.worker(&[]);
    eventually("the POST is out", || async { world.simulator.stats().arrivals == 1 }).await;
    let mut second = world.pool().begin().await.expect("a second session");
    sqlx::query("select 1 from apalis.jobs for update").execute(&mut *second).await.expect("lock the job");
    sqlx::query("select 1 from imagemill.attempts for update").execute(&mut *second).await.expect("lock the attempt");
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    until_blocked(&world).await;
    // As many looks as ten poll intervals: a poll that does not wait for the id would be there.
    for _ in 0..50 {
        assert_eq!(world.simulator.stats().polls, 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.rollback().await.expect("let go");
    eventually("the cell is completed", || async { world.cells().await == "completed: 1" }).await;
    drop(worker);
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn a_settle_of_an_ended_cell_moves_no_count() {
    let world = World::new().await;
    world.create(2).await;
    let (_engine, job, cell) = hold_one(&world).await;
    let ordinal = begin(&world, &job, cell).await;
    accept(&world, &job, cell, ordinal).await;
    // A second session ends the cell, and counts it.
    let mut second = world.pool().begin().await.expect("a second session");
    let ending = subtasks::Ending { kind: None, error: None };
    let moved = subtasks::end(&mut second, &[(cell, ending)]).await.expect("cancel");
    assert!(!moved.is_empty());
    sqlx::query("update imagemill.task_counts set cancelled_subtasks = 1").execute(&mut *second).await.expect("count it");
    second.commit().await.expect("commit");

    assert_eq!(settle(&world, &job, &picture(ordinal)).await, Settled::Written);

    assert_eq!(world.cells().await, "cancelled: 1, pending: 1");
    let counts: (i32, i32, i32) =
        sqlx::query_as("select completed_subtasks, failed_subtasks, cancelled_subtasks from imagemill.task_counts")
            .fetch_one(world.pool())
            .await
            .expect("the counts");
    assert_eq!(counts, (0, 0, 1));
    // Its attempt is closed and its job acknowledged all the same.
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'succeeded'").await, 1);
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Done'").await, 1);
}

#[tokio::test]
async fn a_new_attempt_sends_the_same_seed() {
    let mut options = SimulatorOptions::default();
    options.script.insert(1, Behaviour::Failure { message: "no GPU".to_owned() });
    let world = World::with(options).await;
    // No seed is given: one is drawn.
    let definition = imagemill::models::TaskInput::new("drawn")
        .prompt(imagemill::models::Prompt::freetext("a fox"))
        .validate(&(&world.context.settings.limits).into())
        .expect("a sound definition");
    imagemill::services::task_service::create_task(&world.context, &world.actor, &definition).await.expect("create the task");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 1");
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.len(), 2);
    assert_eq!(ledger[0].body, ledger[1].body);
    assert_eq!(ledger[0].seed(), Some(world.number("select seed from imagemill.subtasks").await));
    world.assert_settled().await;
}

#[tokio::test]
async fn a_worker_that_beats_is_not_rescued_whatever_its_clock_says() {
    let world = World::new().await;
    world.create(1).await;
    sqlx::query("insert into apalis.workers (id, worker_type, storage_name, last_seen) values ('slow-clock', 'imagemill', 'test', '2001-01-01')")
        .execute(world.pool())
        .await
        .expect("a worker of another clock");
    sqlx::query("update apalis.jobs set status = 'Running', lock_by = 'slow-clock', lock_at = now(), attempts = 1")
        .execute(world.pool())
        .await
        .expect("it holds the job");
    let _worker = world.worker(&[]);
    // It beats, by a clock that is decades behind, for three leases; then it dies.
    for beat in 0..45 {
        sqlx::query(
            "update apalis.workers set last_seen = '2001-01-01'::timestamptz + make_interval(secs => $1) where id = 'slow-clock'",
        )
        .bind(f64::from(beat))
        .execute(world.pool())
        .await
        .expect("beat");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(
            world.number("select count(*) from apalis.jobs where lock_by = 'slow-clock'").await,
            1,
            "rescued while it beat"
        );
    }
    world.until("select status = 'completed' from imagemill.subtasks").await;
    assert_eq!(world.number("select count(*) from apalis.workers where id = 'slow-clock'").await, 0);
}

#[tokio::test]
async fn a_settle_is_all_or_nothing() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(1).await;
    let mut worker = world.worker(&[]);
    world.until("select exists (select from imagemill.attempts where state = 'accepted')").await;
    // The settle's last lock is the counts'; what it wrote before must not be seen when it dies there.
    let mut second = world.pool().begin().await.expect("a second session");
    sqlx::query("select 1 from imagemill.task_counts for update").execute(&mut *second).await.expect("lock the counts");
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    until_blocked(&world).await;
    worker.kill();
    second.rollback().await.expect("let go");
    eventually("its sessions are gone", || async {
        world
            .number("select count(*) from pg_stat_activity where datname = current_database() and application_name = 'imagemill'")
            .await
            == 0
    })
    .await;
    assert_eq!(world.cells().await, "processing: 1");
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'accepted'").await, 1);
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Running'").await, 1);
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 1");
    assert_eq!(world.simulator.stats().arrivals, 1);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_worker_never_holds_more_than_its_slots() {
    let world = World::with(SimulatorOptions { duration: Span::fixed(300), ..SimulatorOptions::default() }).await;
    world.create(40).await;
    let mut worker = world.worker(&["--concurrency", "5", "--until-empty"]);
    let (mut most, deadline) = (0, Instant::now() + BOUND);
    loop {
        // Asked first: it ends as soon as the task has.
        let is_running = worker.is_running();
        if world.number("select count(*) from imagemill.tasks where completed_at is null").await == 0 {
            break;
        }
        assert!(is_running && Instant::now() < deadline, "the task does not end:\n{}", worker.log());
        let held = world
            .number("select count(*) from apalis.jobs where status = 'Running' and job_type = 'imagemill.generate_image'")
            .await;
        most = most.max(held);
        assert!(held <= 5);
    }
    assert!(worker.wait().await.success());
    assert_eq!(most, 5);
    assert!(world.simulator.stats().max_in_flight <= 5);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_round_is_completed_once() {
    let world = World::new().await;
    let task = world.create(1).await;
    world.drain().await;
    // The last settle once more, as after a lost answer: its job is put back by hand and its cell has ended.
    sqlx::query("update apalis.jobs set status = 'Pending', done_at = null where job_type = 'imagemill.generate_image'")
        .execute(world.pool())
        .await
        .expect("put the job back");
    world.drain().await;
    let counts = world.number("select completed_subtasks::bigint from imagemill.task_counts").await;
    assert_eq!(counts, 1);
    let completions: Vec<(String, String)> =
        sqlx::query_as("select idempotency_key, status from apalis.jobs where job_type = 'imagemill.complete_task'")
            .fetch_all(world.pool())
            .await
            .expect("the completions");
    assert_eq!(completions, [(format!("{}:1", task.id), "Done".to_owned())]);
    assert_eq!(world.simulator.stats().arrivals, 1);
}

#[tokio::test]
async fn a_worker_that_is_told_to_leave_hands_over_what_it_polls() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(20).await;
    let mut worker = world.worker(&[]);
    world.until("select count(*) = 20 from imagemill.attempts where state = 'accepted'").await;
    worker.signal(Signal::TERM);
    assert!(worker.wait().await.success(), "{}", worker.log());
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Pending' and metadata ? 'resume'").await, 20);
    assert_eq!(world.number("select count(*) from imagemill.incarnations where how = 'stopped'").await, 1);
    assert_eq!(world.cells().await, "processing: 20");
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 20");
    assert_eq!(world.simulator.stats().arrivals, 20);
    assert_eq!(world.number("select max(ordinal)::bigint from imagemill.attempts").await, 1);
    world.assert_settled().await;
}

#[tokio::test]
async fn what_is_out_when_the_grace_is_over_is_written_unknown() {
    let world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    world.create(3).await;
    let mut worker = world.worker(&["--grace", "1", "--concurrency", "2"]);
    eventually("two POSTs are out", || async { world.simulator.stats().arrivals == 2 }).await;
    worker.signal(Signal::TERM);
    assert!(worker.wait().await.success(), "{}", worker.log());
    assert_eq!(world.cells().await, "failed/unknown_submit: 2, pending: 1");
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'unknown' and answer_until > now()").await, 2);
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 1, failed/unknown_submit: 2");
    assert_eq!(world.simulator.stats().arrivals, 3);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_submit_that_is_out_is_awaited_within_the_grace() {
    let world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    world.create(2).await;
    let mut worker = world.worker(&["--grace", "60"]);
    eventually("the POSTs are out", || async { world.simulator.stats().arrivals == 2 }).await;
    worker.signal(Signal::INT);
    eventually("it says that it leaves", || async { worker.log().contains("leaving") }).await;
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    assert!(worker.wait().await.success(), "{}", worker.log());
    // The ids are known, and the polling is handed over.
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'accepted'").await, 2);
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Pending' and metadata ? 'resume'").await, 2);
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 2");
    world.assert_settled().await;
}

/// The verdicts that put a job back leave no lock behind, whatever the cell's state.
#[tokio::test]
async fn a_job_that_goes_back_is_due_when_it_was_said() {
    let world = World::new().await;
    world.create(1).await;
    let (_engine, job, _) = hold_one(&world).await;
    let outcome = Outcome::new(Verdict::RetryAfter(Duration::from_mins(10))).because("later");
    assert_eq!(settle(&world, &job, &outcome).await, Settled::Written);
    let due: bool = sqlx::query_scalar(
        "select status = 'Pending' and lock_by is null and run_at between now() + interval '9 minutes' and now() + interval '11 minutes'
         from apalis.jobs where job_type = 'imagemill.generate_image'",
    )
    .fetch_one(world.pool())
    .await
    .expect("the job");
    assert!(due);
}
