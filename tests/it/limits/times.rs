//! The times between which a task submits, and what sets them and its budget.

use std::time::Duration;

use imagemill::{
    services::task_service::{self, Moment, NewBounds, Retry},
    simulator::{Behaviour, SimulatorOptions, Span},
};
use serde_json::json;
use uuid::Uuid;

use super::change_lane;
use crate::{
    commands::{ends_with, json as printed},
    support::{World, eventually},
};

/// The task submits nothing after a second from now.
async fn end_soon(world: &World, task: Uuid) {
    let new = NewBounds { not_after: Some(Some(Moment::In(Duration::from_secs(1)))), ..NewBounds::default() };
    task_service::limit_task(&world.context, &world.actor, task, &new).await.expect("limit the task");
}

fn failure() -> Behaviour {
    Behaviour::Failure { message: "no GPU".to_owned() }
}

/// By the rows; when their POSTs left is another matter: `steering::departure`.
async fn assert_nothing_left_later(world: &World) {
    let later = "select count(*) from imagemill.attempts a cross join imagemill.tasks t
                 where a.submitted_at > t.not_after and a.state <> 'not_sent'";
    assert_eq!(world.number(later).await, 0);
}

#[tokio::test]
async fn what_is_pending_at_not_after_is_cancelled_and_what_is_in_flight_ends_by_itself() {
    let mut options =
        SimulatorOptions { duration: Span::fixed(3_000), pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    // One waits for its next try then.
    options.script.insert(2, failure());
    let mut world = World::with(options).await;
    world.set("generate_image.backoff_min", "30s").set("generate_image.backoff_max", "30s");
    change_lane(&world, "max_in_flight = 4").await;
    let task = world.create(40).await.id;
    let workers = [world.worker(&[]), world.worker(&[]), world.worker(&[])];
    eventually("the second four are in flight", || async { world.simulator.ledger().len() >= 7 }).await;
    world.until("select count(*) = 1 from imagemill.attempts where state = 'failed'").await;
    // What is in flight now is so when the time comes, however long that takes.
    world.simulator.control(|options| options.hold_polls = true).expect("hold the polls");
    end_soon(&world, task).await;
    world.until("select count(*) > 0 from imagemill.subtasks where status = 'cancelled'").await;
    assert!(world.number("select count(*) from imagemill.attempts where finished_at is null").await > 0, "some are in flight");
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    world.until("select completed_at is not null from imagemill.tasks").await;
    assert_nothing_left_later(&world).await;
    let ended = world.number("select count(*) from imagemill.subtasks where status = 'cancelled'").await;
    assert_eq!(world.number("select count(*) from imagemill.subtasks where status = 'completed'").await, 40 - ended);
    assert_eq!(world.simulator.ledger().len() as i64, 40 - ended + 1, "each that was paid for has its picture, but one");
    let tried = "select count(*) from imagemill.subtasks where status = 'cancelled' and attempt_count = 1";
    assert_eq!(world.number(tried).await, 1, "the one that waited for its next try");
    let audit: Vec<(String, String, i64, String)> = sqlx::query_as(
        "select who, what, (new_value ->> 'ended')::bigint, new_value ->> 'why'
         from imagemill.audit where subject = 'task/' || $1 and what <> 'limit_task'",
    )
    .bind(task)
    .fetch_all(world.pool())
    .await
    .expect("read the audit");
    let [(who, what, count, why)] = &audit[..] else { panic!("once: {audit:?}") };
    assert_eq!((who.as_str(), what.as_str(), *count), ("system", "end_overdue_cells", ended));
    assert!(why.starts_with("cancelled: its task submits nothing after "), "{why}");
    drop(workers);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_cell_that_would_try_again_after_it_is_cancelled_as_well_and_a_retry_needs_another_time() {
    // It is not told how it ends before its time is over.
    let mut options = SimulatorOptions { hold_polls: true, pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    options.script.insert(1, failure());
    let world = World::with(options).await;
    let task = world.create(1).await.id;
    let worker = world.worker(&[]);
    eventually("it is in flight", || async { world.simulator.ledger().len() == 1 }).await;
    end_soon(&world, task).await;
    world.until("select not_after < now() from imagemill.tasks").await;
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    world.until("select completed_at is not null from imagemill.tasks").await;
    assert_eq!(world.cells().await, "cancelled: 1");
    assert_eq!(world.simulator.ledger().len(), 1);
    assert_nothing_left_later(&world).await;
    let refused = task_service::retry_task(&world.context, &world.actor, task, &Retry::default()).await.expect_err("it is over");
    assert!(refused.to_string().contains("shift that first, with task limit"), "{refused}");
    let id = task.to_string();
    let limit = ["--as", "tester", "task", "limit", &id, "--not-after"];
    let (_, refused) = ends_with(&world, &[&limit[..], &["2020-01-01T00:00:00Z"]].concat(), 2).await;
    assert!(refused.contains("not_after: 2020-01-01T00:00:00Z is over"), "{refused}");
    ends_with(&world, &[&limit[..], &["1h"]].concat(), 0).await;
    ends_with(&world, &["--as", "tester", "task", "retry", &id], 0).await;
    world.until("select status = 'completed' from imagemill.tasks").await;
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn create_takes_bounds_and_names_every_fault_with_those_of_the_file() {
    let world = World::new().await;
    change_lane(&world, "max_submits_per_day = 5").await;
    let file = world.directory.path().join("task.json");
    std::fs::write(&file, world.definition(12).to_json().to_string()).expect("write the file");
    let file = file.display().to_string();
    let create = ["--as", "tester", "--json", "task", "create", &file];
    let bounds = ["--max-submits", "8", "--not-before", "2h", "--not-after", "2027-01-01T00:00:00Z"];
    // It says what would wait, and stores nothing.
    let plan = printed(&world, &[&create[..], &["--dry-run"], &bounds].concat()).await;
    assert_eq!(
        (&plan["max_submits"], &plan["over_budget"], &plan["not_after"]),
        (&json!(8), &json!(4), &json!("2027-01-01T00:00:00Z"))
    );
    let day = &plan["days"]["prod"];
    assert_eq!((&day["max_submits_per_day"], &day["left"], &day["over_day"]), (&json!(5), &json!(5), &json!(7)));
    let (said, _) = ends_with(&world, &["--as", "tester", "task", "create", &file, "--dry-run", "--max-submits", "8"], 0).await;
    assert!(said.contains("its budget leaves 8 submits: 4 cells would wait until it is raised"), "{said}");
    assert!(said.contains("the day of lane prod leaves 5 of 5 submits to all tasks: 7 cells would wait until "), "{said}");
    // Nobody says who asks: the day is not known, and the plan is made all the same.
    let (said, noted) = ends_with(&world, &["task", "create", &file, "--dry-run", "--max-submits", "8"], 0).await;
    assert!(said.contains("its budget leaves 8 submits"), "{said}");
    assert!(noted.contains("what the days of its lanes leave is not known"), "{noted}");
    assert_eq!(world.number("select count(*) from imagemill.tasks").await, 0);
    // Faults of both at once.
    let faulty = world.directory.path().join("faulty.json");
    std::fs::write(&faulty, "{\"name\": \"\", \"prompts\": [{\"value\": \"a\", \"type\": \"freetext\"}]}")
        .expect("write the file");
    let faulty = faulty.display().to_string();
    let wrong = ["--max-submits", "-1", "--not-before", "2h", "--not-after", "1h"];
    let (_, refused) = ends_with(&world, &[&["--as", "tester", "task", "create", &faulty][..], &wrong].concat(), 2).await;
    for fault in ["3 faults", "name: ", "max_submits: must be 0 or more, not -1", "is not after not_before"] {
        assert!(refused.contains(fault), "{refused}");
    }
    assert_eq!(world.number("select count(*) from imagemill.tasks").await, 0);
    let id = printed(&world, &[&create[..], &bounds].concat()).await["id"].as_str().expect("its id").to_owned();
    let is_stored = "select count(*) from imagemill.tasks where max_submits = 8 and not_after = '2027-01-01'
                     and not_before between now() + interval '1 hour 59 minutes' and now() + interval '2 hours'";
    assert_eq!(world.number(is_stored).await, 1);
    // And changed, by whom it says in the audit; by hand as well.
    let limit = ["--as", "tester", "--json", "task", "limit", &id];
    let set = printed(&world, &[&limit[..], &["--max-submits", "none", "--not-before", "none"]].concat()).await;
    assert_eq!(
        (&set["max_submits"], &set["not_before"], &set["not_after"]),
        (&json!(null), &json!(null), &json!("2027-01-01T00:00:00Z"))
    );
    sqlx::query("update imagemill.tasks set max_submits = 3").execute(world.pool()).await.expect("by hand");
    let audit: Vec<(String, serde_json::Value)> = sqlx::query_as(
        "select who, new_value from imagemill.audit where what = 'limit_task' and subject = 'task/' || $1 order by id",
    )
    .bind(&id)
    .fetch_all(world.pool())
    .await
    .expect("read the audit");
    assert_eq!(audit[0], ("tester".to_owned(), json!({ "max_submits": null, "not_before": null })));
    assert_eq!(audit[1].1, json!({ "max_submits": 3 }));
    assert_eq!(audit.len(), 2);
    assert_ne!(audit[1].0, "tester");
    let (_, refused) = ends_with(&world, &["--as", "tester", "task", "limit", &id], 2).await;
    assert!(refused.contains("name what is to be set"), "{refused}");
}

#[tokio::test]
async fn what_was_claimed_before_not_after_and_waits_for_a_connection_does_not_leave_after_it() {
    let options = SimulatorOptions { hold_submits: true, pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    let mut world = World::with(options).await;
    world.set("upstream.max_connections", 1);
    let task = world.create(12).await.id;
    // Somebody steers the task, so that nothing is cancelled meanwhile: the time itself is what holds the submits back.
    let mut steering = world.pool().begin().await.expect("begin");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('imagemill.steering/' || $1, 0))")
        .bind(task)
        .execute(&mut *steering)
        .await
        .expect("steer");
    change_lane(&world, "max_in_flight = 0").await;
    let worker = world.worker(&[]);
    world.until("select exists (select from apalis.workers where worker_type = 'imagemill')").await;
    sqlx::query("update imagemill.tasks set not_after = now() + interval '5 seconds'")
        .execute(world.pool())
        .await
        .expect("bound it");
    change_lane(&world, "max_in_flight = 100").await;
    let held = "select count(*) from apalis.jobs where lock_by is not null and job_type = 'imagemill.generate_image'";
    eventually("all are claimed, and one has the connection", || async {
        world.number(held).await == 12 && world.simulator.stats().arrivals == 1
    })
    .await;
    // Long enough for the worker to know it as well, which counts from when it was told.
    world.until("select not_after < now() - interval '1 second' from imagemill.tasks").await;
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    eventually("nothing is in flight", || async { world.number(held).await == 0 }).await;
    steering.rollback().await.expect("let go of the task");
    world.until("select completed_at is not null from imagemill.tasks").await;
    assert_nothing_left_later(&world).await;
    assert_eq!(world.cells().await, "cancelled: 11, completed: 1");
    drop(worker);
    world.assert_settled().await;
}
