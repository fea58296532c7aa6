//! Pauses: who stops, for how long, what tries again, and what goes on.

mod fleet;
mod rate;
mod replaced;
mod tokens;

use chrono::{DateTime, Utc};
use imagemill::simulator::{Simulator, SimulatorOptions, Span};
use sha2::{Digest as _, Sha256};

use crate::support::World;

/// A pause of the lane `prod` that names the token of these tests.
const PAUSED: &str = "select exists (select from imagemill.pauses where lane = 'prod' and reason = 'auth' and token_hash <> '')";

/// A simulator that takes any token that it is not told to refuse.
fn options() -> SimulatorOptions {
    SimulatorOptions { submit_latency: Span::fixed(50), duration: Span::fixed(300), ..SimulatorOptions::default() }
}

/// As rows and the simulator know a token.
fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))[..8].to_owned()
}

/// From now on the simulator answers this token with this status, at submits and polls.
fn refuse(simulator: &Simulator, token: &str, status: u16) {
    let refused = [(hash(token), status)];
    simulator.control(|options| options.refused_tokens.extend(refused)).expect("sound options");
}

/// From now on it takes every token again.
fn take_all(simulator: &Simulator) {
    simulator.control(|options| options.refused_tokens.clear()).expect("sound options");
}

/// Whoever replaces this token, or says that it is refused, waits for the end of this.
async fn holds(world: &World, token: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut holder = world.pool().begin().await.expect("a transaction");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('imagemill.pauses ' || $1, 0))")
        .bind(hash(token))
        .execute(&mut *holder)
        .await
        .expect("the lock");
    holder
}

/// From now on the simulator takes any token that it is not told to refuse.
fn take_any(world: &World) {
    world.simulator.control(|options| options.token = None).expect("sound options");
}

/// The database's time: what has been committed is seen by each transaction that begins later.
async fn now(world: &World) -> DateTime<Utc> {
    sqlx::query_scalar("select clock_timestamp()").fetch_one(world.pool()).await.expect("the time")
}

/// Submits that were begun later. Their rows' own transactions ask for pauses, and `submitted_at` is when those began.
async fn begun_after(world: &World, moment: DateTime<Utc>) -> i64 {
    let query = sqlx::query_scalar("select count(*) from imagemill.attempts where submitted_at > $1").bind(moment);
    query.fetch_one(world.pool()).await.expect("count the submits")
}

/// No cell failed, no attempt was counted that was not made, nothing is paused any more, and each pause's beginning and end is
/// in the audit.
async fn assert_unharmed(world: &World, cells: i64) {
    assert_eq!(world.cells().await, format!("completed: {cells}"));
    assert_eq!(world.number("select sum(attempt_count)::bigint from imagemill.subtasks").await, cells);
    assert_eq!(world.number("select count(*) from imagemill.pauses").await, 0, "pauses");
    let begun = "select count(*) from imagemill.audit where who = 'system' and what = 'pause_lane' and subject = 'lane/prod'";
    let ended = "select count(*) from imagemill.audit where who = 'system' and what = 'resume_lane' and subject = 'lane/prod'";
    assert!(world.number(begun).await >= 1, "no pause's beginning in the audit");
    assert!(world.number(ended).await >= 1, "no pause's end in the audit");
    world.assert_settled().await;
}
