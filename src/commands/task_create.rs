//! `imagemill task create`: a task from a file, or what would become of it.

use std::{io::Write, path::Path};

use chrono::Utc;

use super::{output, report::Failure, summary::counted, table::table, task_file};
use crate::{
    config::{DatabaseSettings, LimitSettings},
    crud::bounds::BoundsRow,
    db::private::PrivateServer,
    models::{Faults, TaskDefinition},
    services::{
        actor::Actor,
        context::Context,
        planned_waits::{self, PlannedWaits},
        task_service::{self, CreateOptions, NewBounds, PlannedReuse, PlannedTask},
    },
};

/// Reads the task and what is to bound it; every fault of both in one line.
pub fn read(
    file: &Path,
    limits: &LimitSettings,
    bounds: Result<NewBounds, Faults>,
) -> Result<(TaskDefinition, NewBounds), Failure> {
    // A database of another clock has the last word.
    let bounds = bounds.and_then(|bounds| bounds.apply(BoundsRow::default(), Utc::now()).map(|_| bounds));
    let (bounds, faults) = match bounds {
        Ok(bounds) => (bounds, Faults(Vec::new())),
        Err(faults) => (NewBounds::default(), faults),
    };
    Ok((task_file::read_beside(file, limits, faults)?, bounds))
}

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

/// Prints what would become of the task, and what of it would wait; with `reuse` what it would take over now. Nothing is stored.
pub async fn plan_in(
    context: &Context,
    actor: &Actor,
    definition: &TaskDefinition,
    options: CreateOptions,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut plan = task_service::plan_task(&context.settings.limits, definition)?;
    if options.reuse {
        plan.reuse = Some(task_service::plan_reuse(context, actor, definition).await?);
    }
    let waits = planned_waits::of_task(&plan, bounds(options)?);
    let days = Some(planned_waits::days(context, actor, &plan).await?);
    plan.waits = Some(PlannedWaits { days, ..waits });
    print(&plan, json, out)
}

/// Whether there is a database that knows something: one is configured, or the private one was made already.
pub fn has_database(settings: &DatabaseSettings) -> bool {
    settings.url.is_some() || PrivateServer::has_data(settings.private_directory.as_deref())
}

/// The same without a database: what the days of the lanes leave is not known, for this reason, if there is one to name.
pub fn plan(
    limits: &LimitSettings,
    definition: &TaskDefinition,
    options: CreateOptions,
    unknown: Option<&Failure>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let why = unknown.map_or_else(|| "there is no database yet".to_owned(), Failure::line);
    output::note(&format!("what the days of its lanes leave is not known: {why}"));
    let mut plan = task_service::plan_task(limits, definition)?;
    plan.waits = Some(planned_waits::of_task(&plan, bounds(options)?));
    print(&plan, json, out)
}

/// As they would be now.
fn bounds(options: CreateOptions) -> Result<BoundsRow, Failure> {
    options.bounds.apply(BoundsRow::default(), Utc::now()).map_err(Failure::usage)
}

fn print(plan: &PlannedTask, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        return output::json(plan, out);
    }
    let lanes: Vec<String> = plan.lanes.iter().map(|(lane, cells)| format!("{cells} on {lane}")).collect();
    output::text(&format!("{}: {} ({})\n", plan.name, counted(plan.total_images, "picture"), lanes.join(", ")), out)?;
    if let Some(PlannedReuse { reused_images, new_images }) = plan.reuse {
        output::text(&format!("{reused_images} would be taken over, {new_images} are left to be paid for\n"), out)?;
    }
    if let Some(waits) = &plan.waits {
        output::text(&waiting(waits), out)?;
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

/// What of it would wait, a line each.
fn waiting(waits: &PlannedWaits) -> String {
    let PlannedWaits { bounds, over_budget, days } = waits;
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if let Some(budget) = bounds.max_submits {
        let rest = match over_budget {
            0 => String::new(),
            cells => format!(": {cells} cells would wait until it is raised"),
        };
        line(format!("its budget leaves {budget} submits{rest}"));
    }
    for (lane, day) in days.iter().flatten() {
        let rest = match day.over_day {
            0 => String::new(),
            cells => format!(": {cells} cells would wait until {} or longer", output::time(day.until)),
        };
        line(format!("the day of lane {lane} leaves {} of {} submits to all tasks{rest}", day.left, day.max_submits_per_day));
    }
    if let Some(time) = bounds.not_before {
        line(format!("nothing would be submitted before {}", output::time(time)));
    }
    if let Some(time) = bounds.not_after {
        line(format!("what is pending at {} would be cancelled", output::time(time)));
    }
    text
}
