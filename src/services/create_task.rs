//! From a task to its cells: the task row, all cells, all jobs, in one transaction.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    actor::Actor, bounds::NewBounds, cell_settle, context::Context, error::ServiceError, planned_waits::PlannedWaits, take_over,
};
use crate::{
    config::LimitSettings,
    crud::{
        bounds::{self, BoundsRow},
        reusable::{self, EarlierCell},
        subtasks::{self, Move},
        tasks::{self, NewTask},
    },
    models::{self, Axis, Cell, Permission, RequestCell, TaskDefinition, TaskLimits, payload::GenerateImage, status::Status},
    queue::{self, Batch},
};

impl From<&LimitSettings> for TaskLimits {
    fn from(limits: &LimitSettings) -> Self {
        Self { max_axes: limits.max_axes, max_values_per_axis: limits.max_values_per_axis, max_cells: limits.max_cells }
    }
}

/// How a task is created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Takes over pictures of one's own earlier tasks: those that were paid for with the same body in the same lane. A seed that is
    /// to be drawn is as good as any. No picture twice; only the rest is enqueued.
    pub reuse: bool,
    /// What bounds its submits. No part of the input: a second call under the same idempotency key changes nothing of it.
    pub bounds: NewBounds,
}

/// What a task would take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PlannedReuse {
    /// Pictures that are there.
    pub reused_images: i32,
    /// Cells that are left to be paid for.
    pub new_images: i32,
}

/// A task that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct CreatedTask {
    /// The task.
    pub id: Uuid,
    /// Its cells.
    pub total_images: i32,
    /// Those that were taken over from earlier tasks by this call, and cost nothing.
    pub reused_images: i32,
    /// False: it stood already, under the same idempotency key, and nothing was enqueued.
    pub is_new: bool,
}

/// What would become of a task.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PlannedTask {
    /// Its name.
    pub name: String,
    /// Its axes.
    pub axes: Vec<Axis>,
    /// Its cells.
    pub total_images: i32,
    /// Cells by lane.
    pub lanes: std::collections::BTreeMap<String, i32>,
    /// The body of the first cell's submit.
    pub first_body: serde_json::Value,
    /// The body of the last cell's submit.
    pub last_body: serde_json::Value,
    /// What it would take over from earlier tasks; none: that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<PlannedReuse>,
    /// What of it would wait; none: that was not asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub waits: Option<PlannedWaits>,
}

/// Expands a task and stores nothing. A seed that is to be drawn is drawn anew each time.
///
/// # Errors
/// Every fault of the input at once.
pub fn plan_task(limits: &LimitSettings, definition: &TaskDefinition) -> Result<PlannedTask, ServiceError> {
    let plan = models::plan(definition, &limits.into())?;
    let mut rng = rand::rng();
    let mut lanes = std::collections::BTreeMap::new();
    let cells: Vec<Cell> = plan.cells(&mut rng).collect();
    for cell in &cells {
        *lanes.entry(cell.lane.to_owned()).or_insert(0) += 1;
    }
    let body = |cell: Option<&Cell>| match cell {
        Some(cell) => models::request_body(definition.prompts(), &RequestCell::from(cell))
            .map_err(|error| ServiceError::Usage(error.to_string())),
        None => Err(ServiceError::Usage("the grid has no cell".to_owned())),
    };
    Ok(PlannedTask {
        name: definition.name().to_owned(),
        total_images: plan.total_images,
        lanes,
        first_body: body(cells.first())?,
        last_body: body(cells.last())?,
        axes: plan.axes,
        reuse: None,
        waits: None,
    })
}

/// Stores a task and enqueues its cells, in a transaction of its own.
///
/// # Errors
/// See [`ServiceError`]; nothing is stored then.
pub async fn create_task(context: &Context, actor: &Actor, definition: &TaskDefinition) -> Result<CreatedTask, ServiceError> {
    create_task_with(context, actor, definition, CreateOptions::default()).await
}

/// The same with options.
///
/// # Errors
/// See [`ServiceError`]; nothing is stored then.
pub async fn create_task_with(
    context: &Context,
    actor: &Actor,
    definition: &TaskDefinition,
    options: CreateOptions,
) -> Result<CreatedTask, ServiceError> {
    create_and_commit(context, actor, definition, false, options).await
}

/// What [`CreateOptions::reuse`] would take over now. Stores nothing.
///
/// # Errors
/// See [`ServiceError`].
pub async fn plan_reuse(context: &Context, actor: &Actor, definition: &TaskDefinition) -> Result<PlannedReuse, ServiceError> {
    let plan = models::plan(definition, &(&context.settings.limits).into())?;
    let mut cells: Vec<Cell> = plan.cells(&mut rand::rng()).collect();
    let mut connection = context.reader().await?;
    let pictures = take_over::take_over(&mut connection, actor.id, definition, &plan, &mut cells).await?;
    let reused_images = pictures.len() as i32;
    Ok(PlannedReuse { reused_images, new_images: plan.total_images - reused_images })
}

/// The same for a task that only workers started for it may take: a try against a simulator, whose cells no other worker
/// may bring to a paid upstream.
///
/// # Errors
/// See [`ServiceError`]; nothing is stored then.
pub async fn create_task_alone(
    context: &Context,
    actor: &Actor,
    definition: &TaskDefinition,
) -> Result<CreatedTask, ServiceError> {
    create_and_commit(context, actor, definition, true, CreateOptions::default()).await
}

async fn create_and_commit(
    context: &Context,
    actor: &Actor,
    definition: &TaskDefinition,
    is_alone: bool,
    options: CreateOptions,
) -> Result<CreatedTask, ServiceError> {
    let mut transaction = context.begin().await?;
    let created = store(&mut transaction, &context.settings.limits, actor, definition, is_alone, options).await?;
    transaction.commit().await?;
    Ok(created)
}

/// The same in the caller's transaction: it stands when the caller commits, and a rollback leaves no trace. No worker is
/// woken before.
///
/// # Errors
/// See [`ServiceError`]; the caller should roll back.
pub async fn create_task_in(
    connection: &mut PgConnection,
    limits: &LimitSettings,
    actor: &Actor,
    definition: &TaskDefinition,
) -> Result<CreatedTask, ServiceError> {
    store(connection, limits, actor, definition, false, CreateOptions::default()).await
}

/// The same with options. To take pictures over, the session's role needs to read tasks and cells, which `imagemill_producer` may
/// not.
///
/// # Errors
/// See [`ServiceError`]; the caller should roll back.
pub async fn create_task_in_with(
    connection: &mut PgConnection,
    limits: &LimitSettings,
    actor: &Actor,
    definition: &TaskDefinition,
    options: CreateOptions,
) -> Result<CreatedTask, ServiceError> {
    store(connection, limits, actor, definition, false, options).await
}

async fn store(
    connection: &mut PgConnection,
    limits: &LimitSettings,
    actor: &Actor,
    definition: &TaskDefinition,
    is_alone: bool,
    options: CreateOptions,
) -> Result<CreatedTask, ServiceError> {
    let permission = if definition.priority() > 1 { Permission::CreateHighPriority } else { Permission::CreateLowPriority };
    actor.require(permission)?;
    let plan = models::plan(definition, &limits.into())?;
    let now = bounds::now(connection).await?;
    let bounds = options.bounds.apply(BoundsRow::default(), now)?;
    let axes = serde_json::to_value(&plan.axes).map_err(|error| ServiceError::Usage(error.to_string()))?;
    let id = Uuid::now_v7();
    let input_sha256 = models::input_sha256(definition);
    let task = NewTask {
        id,
        user_id: actor.id,
        name: definition.name(),
        priority: definition.priority(),
        lane: definition.lane(),
        idempotency_key: definition.idempotency_key(),
        input_sha256: &input_sha256,
        prompts: definition.prompts_json(),
        settings: definition.settings_json(),
        axes,
        total_images: plan.total_images,
        is_alone,
        bounds,
    };
    if !tasks::insert(connection, &task).await? {
        return existing(connection, actor, definition, &input_sha256).await;
    }
    let mut cells: Vec<Cell> = plan.cells(&mut rand::rng()).collect();
    let mut reused_images = 0;
    if options.reuse {
        let pictures = take_over::take_over(connection, actor.id, definition, &plan, &mut cells).await?;
        reused_images = pictures.len() as i32;
        cells = insert_taken_over(connection, id, cells, pictures).await?;
    }
    if !cells.is_empty() {
        insert_and_enqueue(connection, id, actor, &cells, is_alone).await?;
    }
    // Last, as always; the completion is enqueued here where no cell is left.
    let taken_over = Move { task_id: id, from_status: Status::Pending, to_status: Status::Completed };
    cell_settle::count_moves(connection, &vec![taken_over; reused_images as usize], &[]).await?;
    tracing::info!(task = %id, owner = %actor.username, cells = plan.total_images, reused = reused_images, "task created");
    Ok(CreatedTask { id, total_images: plan.total_images, reused_images, is_new: true })
}

/// The cells that somebody must run, and a job for each.
async fn insert_and_enqueue(
    connection: &mut PgConnection,
    task: Uuid,
    actor: &Actor,
    cells: &[Cell],
    is_alone: bool,
) -> Result<(), ServiceError> {
    let ids: Vec<Uuid> = cells.iter().map(|_| Uuid::now_v7()).collect();
    subtasks::insert(connection, task, &ids, cells).await?;
    let payloads: Result<Vec<Vec<u8>>, _> = ids.iter().map(|cell| serde_json::to_vec(&GenerateImage::new(*cell, task))).collect();
    let batch = Batch {
        queue: GenerateImage::QUEUE,
        group: &task.to_string(),
        owner: &actor.id.to_string(),
        is_alone,
        keys: ids.iter().map(|id| GenerateImage::key(*id)).collect(),
        lanes: cells.iter().map(|cell| cell.lane.to_owned()).collect(),
        payloads: payloads.map_err(|error| ServiceError::Usage(error.to_string()))?,
    };
    queue::enqueue(connection, &batch).await?;
    Ok(())
}

/// The cells with a picture, by their places. Returns the others.
async fn insert_taken_over(
    connection: &mut PgConnection,
    task: Uuid,
    cells: Vec<Cell>,
    mut pictures: HashMap<usize, EarlierCell>,
) -> Result<Vec<Cell>, ServiceError> {
    let (mut taken, mut earlier, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (place, cell) in cells.into_iter().enumerate() {
        match pictures.remove(&place) {
            Some(picture) => {
                taken.push(cell);
                earlier.push(picture);
            }
            None => rest.push(cell),
        }
    }
    if !taken.is_empty() {
        let ids: Vec<Uuid> = taken.iter().map(|_| Uuid::now_v7()).collect();
        reusable::insert_taken_over(connection, task, &ids, &taken, &earlier).await?;
    }
    Ok(rest)
}

/// The first task of an idempotency key.
async fn existing(
    connection: &mut PgConnection,
    actor: &Actor,
    definition: &TaskDefinition,
    input_sha256: &str,
) -> Result<CreatedTask, ServiceError> {
    let key = definition.idempotency_key().unwrap_or_default();
    let first = tasks::get_by_key(connection, actor.id, key).await?;
    let (task, first_sha256, total_images) =
        first.ok_or_else(|| ServiceError::NotFound { what: "task of the idempotency key", id: key.to_owned() })?;
    if first_sha256 != input_sha256 {
        return Err(ServiceError::KeyReused { key: key.to_owned(), task });
    }
    Ok(CreatedTask { id: task, total_images, reused_images: 0, is_new: false })
}
