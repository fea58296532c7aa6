//! The same rows with the worker killed before its next commit: after the answer to the submit and before that is written,
//! and after the id is committed and before the settle.
//!
//! What the next commit needs is locked by a second session, so that it cannot happen; the worker is killed while it waits
//! for it.

use futures::future::join_all;
use imagemill::queue::ledger::AttemptState;
use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    Matrix, assert_none, grouped,
    rows::{DEADLINE_WHILE_REFUSED, Retry, Row, Table, rows},
};
use crate::support::{World, eventually};

/// Accepted and unknown rows, killed with the answer in hand and not written: nobody knows of the id, so the attempt is
/// `unknown`, and what follows is what the policy for that says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_the_answer_is_written() {
    let rows = rows().into_iter().filter(|row| row.table == Table::Submit).filter_map(|row| {
        let first = row.attempts.split_whitespace().next()?;
        let accepts = row.posts[0].accepts();
        let held = accepts || !resubmits(&row);
        (first.starts_with("unknown") || first == "succeeded/200").then_some(())?;
        // Put back for another submit it moves no count: nothing would hold its commit.
        held.then(|| if resubmits(&row) { resubmitted(row) } else { failed(row) })
    });
    let faults = join_all(grouped(rows.collect()).into_iter().map(|rows| async move {
        let mut matrix = Matrix::new(rows).await;
        matrix.create().await;
        let world = &matrix.world;
        world.simulator.control(|options| options.hold_submits = true).expect("hold the answers");
        let mut locks = lock(world, "select 1 from imagemill.task_counts for update").await;
        let mut worker = world.worker(&[]);
        let rows = matrix.rows.len();
        // Every POST has arrived, and so every row of the ledger stands.
        eventually("every POST", || async { world.simulator.stats().arrivals as usize == rows }).await;
        // Jobs that a settle has locked wait for the counts already.
        hold(&mut locks, "select 1 from apalis.jobs where job_type = 'imagemill.generate_image' for update skip locked").await;
        world.simulator.control(|options| options.hold_submits = false).expect("let the answers go");
        blocked(world).await;
        worker.kill();
        cut(world).await;
        assert_eq!(states(world).await, [(AttemptState::Submitting, rows as i64)]);
        locks.rollback().await.expect("unlock");
        let worker = world.worker(&[]);
        let faults = matrix.faults().await;
        drop(worker);
        faults
    }))
    .await;
    assert_none(faults);
}

/// Accepted rows, killed with the outcome in hand and not written: the id is known, so it is polled on under the same
/// attempt, and everything ends as without the kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_id_and_the_settle() {
    let rows = rows().into_iter().filter(|row| row.table == Table::Poll || row.attempts == "succeeded/200");
    // Of refusals that are not long yet the second worker does not know: the deadline may be over for it.
    let rows = rows.filter(|row| row.settings != DEADLINE_WHILE_REFUSED);
    // The second worker asks anew: how often, is not what the row says.
    let rows = rows.map(|row| Row { polls: None, ..row });
    let faults = join_all(grouped(rows.collect()).into_iter().map(|rows| async move {
        let mut matrix = Matrix::new(rows).await;
        matrix.create().await;
        let world = &matrix.world;
        world.simulator.control(|options| options.hold_polls = true).expect("hold the polls");
        let mut worker = world.worker(&[]);
        let rows = matrix.rows.len();
        eventually("every id committed", || async { states(world).await == [(AttemptState::Accepted, rows as i64)] }).await;
        let before = accepted(world).await;
        let locks = lock(world, "select 1 from apalis.jobs where job_type = 'imagemill.generate_image' for update").await;
        world.simulator.control(|options| options.hold_polls = false).expect("let the polls go");
        blocked(world).await;
        worker.kill();
        cut(world).await;
        assert_eq!(accepted(world).await, before);
        locks.rollback().await.expect("unlock");
        let worker = world.worker(&[]);
        let mut faults = matrix.faults().await;
        drop(worker);
        let after = first_attempts(world).await;
        if after != before {
            faults.push(format!("the first attempts are {after:?}, not {before:?}"));
        }
        faults
    }))
    .await;
    assert_none(faults);
}

fn resubmits(row: &Row) -> bool {
    row.settings.contains(&("generate_image.on_unknown_submit", "resubmit"))
}

/// By `fail`: the cell fails, and whatever was billed was billed once.
fn failed(row: Row) -> Row {
    let billed = if row.posts[0].accepts() { "1" } else { "" };
    let says = "ended before its answer";
    Row { attempts: "unknown", cell: "failed/unknown_submit", billed, says, polls: None, retry: None, ..row }
}

/// By `resubmit`: as without the kill, only that the lost answer's status is lost too.
fn resubmitted(row: Row) -> Row {
    assert!(row.attempts.starts_with("unknown") && !row.attempts.starts_with("unknown/"), "{row:?}");
    // Time has passed since the submit; the wait for its answer begins anew with the end of the attempt.
    let retry = row.retry.map(|retry| Retry { to: retry.from, ..retry });
    Row { retry, says: "", ..row }
}

/// A second session's locks.
async fn lock(world: &World, statement: &'static str) -> Transaction<'static, Postgres> {
    let mut locks = world.pool().begin().await.expect("a second session");
    hold(&mut locks, statement).await;
    locks
}

async fn hold(locks: &mut PgConnection, statement: &'static str) {
    sqlx::query(statement).execute(locks).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Waits until a writer of the worker waits for a lock, and with it whatever would be written after it.
async fn blocked(world: &World) {
    eventually("a commit waits for the lock", || async {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        world.number(waiting).await > 0
    })
    .await;
}

/// Ends the sessions that wait: what the dead worker had sent before it died would be carried out otherwise, since a server
/// that waits for a lock does not see that its client is gone.
async fn cut(world: &World) {
    let waiting = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    world.number(waiting).await;
    eventually("the dead worker's sessions are gone", || async {
        let left = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        world.number(left).await == 0
    })
    .await;
}

/// Attempts by state.
async fn states(world: &World) -> Vec<(AttemptState, i64)> {
    sqlx::query_as("select state, count(*) from imagemill.attempts group by state order by state")
        .fetch_all(world.pool())
        .await
        .expect("count the attempts")
}

type Attempt = (String, i32, Option<String>, String, chrono::DateTime<chrono::Utc>);

/// The attempts that are open: cell, ordinal, id, worker, time of the submit.
async fn accepted(world: &World) -> Vec<Attempt> {
    let first = first_attempts(world).await;
    assert_eq!(states(world).await, [(AttemptState::Accepted, first.len() as i64)]);
    first
}

/// The first attempt of each cell: cell, ordinal, id, worker, time of the submit.
async fn first_attempts(world: &World) -> Vec<Attempt> {
    sqlx::query_as(
        "select subtask_id::text, ordinal, upstream_id, worker, submitted_at from imagemill.attempts
         where ordinal = 1 order by subtask_id",
    )
    .fetch_all(world.pool())
    .await
    .expect("read the attempts")
}
