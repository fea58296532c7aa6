//! `imagemill task create`: a task from a file, or what would become of it.

use std::io::Write;

use super::{output, report::Failure, summary::counted, table::table};
use crate::{
    config::LimitSettings,
    models::TaskDefinition,
    services::{
        actor::Actor,
        context::Context,
        task_service::{self, CreateOptions, PlannedReuse, PlannedTask},
    },
};

/// Stores the task, enqueues its cells and prints its id.
pub async fn create(
    context: &Context,
    actor: &Actor,
    definition: &TaskDefinition,
    options: CreateOptions,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let created = task_service::create_task_with(context, actor, definition, options).await?;
    if json {
        return output::json(&created, out);
    }
    if !created.is_new {
        output::note("this task stood already, under the same idempotency key: nothing was enqueued");
    }
    if options.reuse && created.is_new {
        let new = created.total_images - created.reused_images;
        output::note(&format!("{} pictures were taken over; {new} are to be made", created.reused_images));
    }
    output::text(&created.id.to_string(), out)
}

/// Prints what would become of the task, and what it would take over now. Nothing is stored.
pub async fn plan_with_reuse(
    context: &Context,
    actor: &Actor,
    definition: &TaskDefinition,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let reuse = task_service::plan_reuse(context, actor, definition).await?;
    plan(&context.settings.limits, definition, Some(reuse), json, out)
}

/// Prints what would become of the task. Nothing is stored, and no database is needed.
pub fn plan(
    limits: &LimitSettings,
    definition: &TaskDefinition,
    reuse: Option<PlannedReuse>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let plan = PlannedTask { reuse, ..task_service::plan_task(limits, definition)? };
    if json {
        return output::json(&plan, out);
    }
    let lanes: Vec<String> = plan.lanes.iter().map(|(lane, cells)| format!("{cells} on {lane}")).collect();
    output::text(&format!("{}: {} ({})\n", plan.name, counted(plan.total_images, "picture"), lanes.join(", ")), out)?;
    if let Some(PlannedReuse { reused_images, new_images }) = plan.reuse {
        output::text(&format!("{reused_images} would be taken over, {new_images} are left to be paid for\n"), out)?;
    }
    if !plan.axes.is_empty() {
        let rows = plan
            .axes
            .iter()
            .map(|axis| [axis.number.to_string(), axis.kind.clone(), axis.name.clone(), axis.values.len().to_string()]);
        output::text(&format!("{}\n", table(["AXIS", "KIND", "NAME", "VALUES"], rows)), out)?;
    }
    output::text(&format!("first body\n{:#}\n\nlast body\n{:#}", plan.first_body, plan.last_body), out)
}
