//! Limits, turns and budgets of the lanes, with worker processes and the simulator's ledger.

mod bounds;
mod budgets;
mod days;
mod deal;
mod looks;
mod places;
mod polls;
mod rates;
mod times;
mod turns;

use chrono::{DateTime, TimeDelta, Utc};
use imagemill::{
    crud::users,
    models::{Prompt, TaskDefinition, TaskInput},
    services::actor::Actor,
    simulator::LedgerEntry,
};
use uuid::Uuid;

use crate::support::World;

/// When each submit was accepted, in order.
fn accepted(ledger: &[LedgerEntry]) -> Vec<DateTime<Utc>> {
    let mut accepted: Vec<DateTime<Utc>> = ledger.iter().map(|entry| entry.accepted_at).collect();
    accepted.sort_unstable();
    accepted
}

/// Most submits that were accepted within a second.
fn most_in_a_second(ledger: &[LedgerEntry]) -> usize {
    most_within_a_second(&accepted(ledger))
}

/// Most of these moments, in order, that lie within a second.
fn most_within_a_second(moments: &[DateTime<Utc>]) -> usize {
    let from = |(place, first): (usize, &DateTime<Utc>)| {
        moments[place..].iter().take_while(|at| **at - *first < TimeDelta::seconds(1)).count()
    };
    moments.iter().enumerate().map(from).max().unwrap_or_default()
}

/// Most jobs that the upstream worked on at one moment, each for so long.
fn most_in_flight(ledger: &[LedgerEntry], duration: TimeDelta) -> usize {
    let accepted = accepted(ledger);
    let at = |moment: &DateTime<Utc>| accepted.iter().filter(|at| *at <= moment && *moment - **at < duration).count();
    accepted.iter().map(at).max().unwrap_or_default()
}

/// A definition of so many cells (100 at most) with this priority.
fn definition(world: &World, name: &str, cells: usize, priority: i32) -> TaskDefinition {
    let values = (0..cells).map(|value| Prompt::freetext(format!("{name} {value}"))).collect::<Vec<_>>();
    let input = TaskInput::new(name).seed(7).priority(priority).variable_prompt("value", values);
    input.validate(&(&world.context.settings.limits).into()).expect("a sound definition")
}

/// Changes lane `prod` as an operator does.
async fn change_lane(world: &World, what: &str) {
    let statement = format!("update imagemill.lanes set {what} where lane = 'prod'");
    let changed = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(world.pool()).await.expect("change the lane");
    assert_eq!(changed.rows_affected(), 1);
}

/// Somebody else who creates tasks.
async fn owner(world: &World, name: &str) -> Actor {
    let mut connection = world.pool().acquire().await.expect("a connection");
    assert!(users::insert(&mut connection, Uuid::now_v7(), name, None, &["admin".to_owned()]).await.expect("insert"));
    Actor::from(users::get_by_username(&mut connection, name).await.expect("read").expect("the user"))
}
