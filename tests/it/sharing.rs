//! Many takers of the same jobs, and jobs that go wrong among others that do not.

use std::sync::Arc;

use apalis::prelude::{Monitor, WorkerBuilder};
use imagemill::{
    models::payload::{CompleteTask, GenerateImage},
    queue::{Engine, Handler, Job, UntilEmpty, decoded},
    services::{processing, subtask_service, task_service},
    simulator::{SimulatorOptions, Span},
};
use uuid::Uuid;

use crate::support::{BOUND, World};

#[tokio::test]
async fn library_calls_and_workers_share_the_cells_of_a_task() {
    let world = World::with(SimulatorOptions { duration: Span::fixed(300), ..SimulatorOptions::default() }).await;
    let task = world.create(200).await;
    let mut workers = [world.worker(&["--until-empty"]), world.worker(&["--until-empty"])];
    let calls = (0..4).map(|_| processing::process_pending_subtasks(&world.context, &world.actor, task.id, 10));
    let ended = tokio::time::timeout(2 * BOUND, futures::future::join_all(calls)).await;
    for processed in ended.expect("the calls end") {
        let processed = processed.expect("process the cells");
        assert!(processed.settled);
        assert_eq!(processed.task.completed_subtasks, 200);
    }
    for worker in &mut workers {
        assert!(worker.wait().await.success(), "{}", worker.log());
    }
    assert_eq!(world.simulator.stats().arrivals, 200);
    assert_eq!(world.cells().await, "completed: 200");
    world.assert_settled().await;
}

#[tokio::test]
async fn one_cell_can_be_processed_by_a_call_of_its_own() {
    let world = World::new().await;
    let task = world.create(2).await;
    let mut connection = world.pool().acquire().await.expect("a connection");
    let cells = imagemill::crud::subtasks::get_by_task(&mut connection, task.id).await.expect("the cells");
    drop(connection);
    let process = || tokio::time::timeout(2 * BOUND, processing::process_subtask(&world.context, &world.actor, cells[0].id));
    let cell = process().await.expect("it ends").expect("process the cell");
    assert_eq!(cell.status.as_str(), "completed");
    assert!(cell.result.is_some_and(|url| url.starts_with(world.simulator.url())));
    assert_eq!(world.cells().await, "completed: 1, pending: 1");
    // Again: it has ended, and nothing is submitted.
    process().await.expect("it ends").expect("look at the cell");
    assert_eq!(world.simulator.stats().arrivals, 1);
}

/// One handler panics while its cell is being polled, one payload cannot be decoded; apalis's Monitor runs them all.
#[tokio::test]
async fn a_panic_and_a_broken_payload_end_their_own_jobs_alone() {
    let world = World::with(SimulatorOptions { duration: Span::fixed(1000), ..SimulatorOptions::default() }).await;
    world.create(100).await;
    let cells: Vec<Uuid> =
        sqlx::query_scalar("select id from imagemill.subtasks order by cell").fetch_all(world.pool()).await.expect("the cells");
    let (panicking, broken) = (cells[10], cells[20]);
    sqlx::query("update apalis.jobs set job = '\\xff00' where idempotency_key = $1")
        .bind(broken.to_string())
        .execute(world.pool())
        .await
        .expect("break a payload");
    let options = processing::engine_options(&world.context.settings, Some(UntilEmpty { group: None }));
    let lanes = vec!["prod".to_owned(), "ops".to_owned()];
    let queues = processing::queues(&world.context.settings, 100, lanes);
    let engine = Engine::start(world.pool().clone(), options, queues).await.expect("start the engine");
    let context = Arc::new(world.context.clone());
    let cell_handler = {
        let (engine, context) = (engine.clone(), Arc::clone(&context));
        move |job: Job| {
            let (engine, context) = (engine.clone(), Arc::clone(&context));
            decoded(&job.clone(), GenerateImage::VERSION, move |payload: GenerateImage| async move {
                let run = subtask_service::run_cell(&context, &engine, &job, &payload);
                if payload.subtask_id != panicking {
                    return run.await;
                }
                tokio::select! {
                    outcome = run => outcome,
                    () = is_accepted(&context.pool, panicking) => panic!("on purpose"),
                }
            })
        }
    };
    let task_handler = {
        let context = Arc::clone(&context);
        move |job: Job| {
            let context = Arc::clone(&context);
            decoded(&job, CompleteTask::VERSION, move |payload: CompleteTask| async move {
                task_service::complete(&context, payload.task_id, payload.round).await
            })
        }
    };
    let (cells_engine, tasks_engine) = (engine.clone(), engine.clone());
    let monitor = Monitor::new()
        .register(move |_| {
            WorkerBuilder::new("cells").backend(cells_engine.backend(GenerateImage::QUEUE)).build(Handler(cell_handler.clone()))
        })
        .register(move |_| {
            WorkerBuilder::new("tasks").backend(tasks_engine.backend(CompleteTask::QUEUE)).build(Handler(task_handler.clone()))
        });
    let control = monitor.context();
    let running = tokio::spawn(monitor.run());
    tokio::time::timeout(BOUND, engine.stopping()).await.expect("the jobs end");
    assert!(engine.stop(BOUND).await, "everything was settled");
    control.shutdown().expect("tell apalis");
    let ended = tokio::time::timeout(BOUND, running).await.expect("apalis's Monitor ends");
    ended.expect("join").expect("it ends well");

    assert_eq!(world.cells().await, "completed: 98, failed/internal: 2");
    let states: Vec<(String, String)> = sqlx::query_as(
        "select s.id::text, a.state from imagemill.subtasks s join imagemill.attempts a on a.subtask_id = s.id where s.status = 'failed'",
    )
    .fetch_all(world.pool())
    .await
    .expect("their attempts");
    // The broken one never came to a submit; the panicking one was accepted, and is given up.
    assert_eq!(states, [(panicking.to_string(), "abandoned".to_owned())]);
    assert_eq!(world.simulator.stats().arrivals, 99);
    world.assert_settled().await;
}

async fn is_accepted(pool: &sqlx::PgPool, cell: Uuid) {
    loop {
        let accepted: bool =
            sqlx::query_scalar("select exists (select from imagemill.attempts where subtask_id = $1 and state = 'accepted')")
                .bind(cell)
                .fetch_one(pool)
                .await
                .expect("look for the attempt");
        if accepted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// apalis's own storage in the same schema goes on working, and is told of its jobs by its own trigger.
#[tokio::test]
async fn a_stock_apalis_queue_works_beside_ours() {
    use apalis::prelude::{TaskSink as _, WorkerContext};
    use apalis_postgres::{Config, PostgresStorage};

    let world = World::new().await;
    world.create(5).await;
    let mut storage = PostgresStorage::<String>::new(world.pool()).with_config(Config::default().queue("stock"));
    for name in ["one", "two", "three"] {
        storage.push(name.to_owned()).await.expect("push");
    }
    let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |name: String, worker: WorkerContext| {
        let sender = sender.clone();
        async move {
            if sender.send(name).is_err() {
                worker.stop().expect("stop");
            }
            Ok::<(), apalis::prelude::BoxDynError>(())
        }
    };
    let worker = WorkerBuilder::new("stock-worker").backend(storage).build(handler);
    let running = tokio::spawn(worker.run());
    world.drain().await;
    let mut names = Vec::new();
    while names.len() < 3 {
        names.push(tokio::time::timeout(BOUND, done.recv()).await.expect("in time").expect("a name"));
    }
    running.abort();
    names.sort();
    assert_eq!(names, ["one", "three", "two"]);
    assert_eq!(world.cells().await, "completed: 5");
    assert_eq!(world.number("select count(*) from apalis.jobs where job_type = 'stock'").await, 3);
}

/// A try against a simulator leaves cells behind when it is cut short: no worker may bring them to its own upstream.
#[tokio::test]
async fn a_task_that_is_kept_alone_is_taken_only_by_workers_started_for_it() {
    let world = World::new().await;
    let kept = task_service::create_task_alone(&world.context, &world.actor, &world.definition(3)).await.expect("create");
    world.create(2).await;
    // It takes the other task's cells, and ends: nothing is left that it may take.
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 2, pending: 3");
    assert_eq!(world.simulator.stats().arrivals, 2);
    let mut own = world.worker(&["--until-empty", "--task", &kept.id.to_string()]);
    assert!(own.wait().await.success(), "{}", own.log());
    assert_eq!(world.cells().await, "completed: 5");
    world.assert_settled().await;
}
