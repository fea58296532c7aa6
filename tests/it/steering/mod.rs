//! Operators: cancel, retry, force-complete, attempts of which it is not known whether they were paid for, and the audit.

use imagemill::services::task_service::{self, SteeredTask};
use uuid::Uuid;

use crate::support::World;

mod cancel;
mod commands;
mod departure;
mod given_up;
mod lanes;
mod late_ids;
mod race;
mod retry;
mod rounds;

/// Every task has ended, and no job is left.
const ALL_ENDED: &str = "select (select bool_and(completed_at is not null) from imagemill.tasks)
                            and not exists (select from apalis.jobs where status in ('Pending', 'Running'))";

/// Cancels as the tester.
async fn cancel(world: &World, task: Uuid) -> SteeredTask {
    task_service::cancel_task(&world.context, &world.actor, task).await.expect("cancel")
}

/// Submits that came to the simulator, accepted or not.
fn arrivals(world: &World) -> u64 {
    world.simulator.stats().arrivals
}
