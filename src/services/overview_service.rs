//! The fleet and a task as those see them who look on each second: `top` and `task watch`.

use serde::Serialize;
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError};
use crate::{
    crud::{
        overview::{self, FailedCell, LaneCells, LaneRow},
        tasks::{self, TaskRow},
    },
    models::{Permission, payload::GenerateImage},
    queue::{self, LaneLoad, WorkerRow},
};

/// The fleet at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Worker processes, oldest first.
    pub workers: Vec<WorkerRow>,
    /// Every lane, and what it has to do.
    pub lanes: Vec<LaneOverview>,
    /// Open tasks of everybody, oldest first.
    pub tasks: Vec<TaskRow>,
}

/// A lane at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct LaneOverview {
    /// As it is set.
    #[serde(flatten)]
    pub lane: LaneRow,
    /// Cells that wait.
    pub waiting: i64,
    /// See [`LaneLoad::in_flight`].
    pub in_flight: i64,
}

/// The fleet just now, with so many open tasks at most.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_overview(context: &Context, actor: &Actor, tasks: i64) -> Result<Overview, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let lanes = overview::get_lanes(&mut connection).await?;
    let names: Vec<String> = lanes.iter().map(|lane| lane.lane.clone()).collect();
    let loads = queue::get_loads(&mut connection, GenerateImage::QUEUE, &names).await?;
    let joined = lanes.into_iter().zip(loads);
    let lanes = joined.map(|(lane, LaneLoad { waiting, in_flight, .. })| LaneOverview { lane, waiting, in_flight }).collect();
    Ok(Overview {
        workers: queue::get_workers(&mut connection).await?,
        lanes,
        tasks: tasks::get_open(&mut connection, tasks).await?,
    })
}

/// All cells of a task by lane: what they are set beside. It reads each of them.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_lanes_of_task(context: &Context, actor: &Actor, id: Uuid) -> Result<Vec<LaneCells>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(overview::get_lanes_of_task(&mut connection, id).await?)
}

/// The open cells of a task by lane.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_open_of_task(context: &Context, actor: &Actor, id: Uuid) -> Result<Vec<LaneCells>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(overview::get_open_of_task(&mut connection, id).await?)
}

/// The cells of a task that failed last, newest first. It reads the task's cells.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_last_failures(context: &Context, actor: &Actor, id: Uuid, limit: i64) -> Result<Vec<FailedCell>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(overview::get_last_failures(&mut connection, id, limit).await?)
}
