//! `imagemill run`: a task file from beginning to end. Starts what is not configured (PostgreSQL, and the simulator when
//! there is no token), and worker processes that end with it.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
    time::Instant,
};

use super::{
    effective::Effective,
    output,
    report::Failure,
    running::{self, Leave, Run},
    session::Who,
    stage::Stage,
    summary::{Summary, counted, grouped},
    task_file,
    upstream::{self, StandIn},
};
use crate::{
    config::{Loaded, Settings},
    models::{TaskDefinition, status::Status},
    services::{
        task_progress,
        task_service::{self, PlannedTask},
    },
    simulator::{Simulator, SimulatorOptions, Span},
};

/// More pictures than this are asked about.
const ASKED_ABOVE: i64 = 1_000;

/// How a task is to be run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Worker processes.
    pub workers: u16,
    /// Do not ask.
    pub yes: bool,
    /// Print the summary as JSON.
    pub json: bool,
    /// How this program was called, for commands that people can copy.
    pub invocation: String,
}

/// Runs a task file to its end and prints a summary.
pub async fn run(
    effective: Effective,
    who: &Who,
    file: &Path,
    options: &RunOptions,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut effective = effective;
    let configured = effective.load()?;
    let limits = &configured.settings.limits;
    let definition = task_file::read(file, limits)?;
    let plan = task_service::plan_task(limits, &definition)?;
    let simulator = if upstream::has_token(&configured.settings) {
        upstream::check(&configured.settings, &plan.lanes)?;
        None
    } else {
        Some(upstream::stand_in(&mut effective, unhurried()).await?)
    };
    let stage = Stage::set(effective, who, &configured).await?;
    let done = on_stage(&stage, &configured, &definition, &plan, simulator.as_ref(), options).await;
    stage.close().await;
    if let Some(simulator) = simulator {
        simulator.stop().await;
    }
    let summary = done?;
    if options.json {
        output::json(&summary, out)?;
    } else {
        output::text(&format!("\n{}", summary.text()), out)?;
    }
    match summary.task.status {
        Status::Completed => Ok(()),
        status => {
            let way_out = "the summary says why, cell by cell";
            Err(Failure::failed(format_args!("the task ended {status}: {way_out}")))
        }
    }
}

/// A simulator that takes a moment, so that there is something to see.
fn unhurried() -> StandIn {
    let options =
        SimulatorOptions { submit_latency: Span::range(20, 120), duration: Span::range(200, 800), ..SimulatorOptions::default() };
    StandIn { options, poll_interval: "250ms" }
}

async fn on_stage(
    stage: &Stage,
    configured: &Loaded,
    definition: &TaskDefinition,
    plan: &PlannedTask,
    simulator: Option<&Simulator>,
    options: &RunOptions,
) -> Result<Summary, Failure> {
    let (context, actor) = (stage.session.context(), &stage.session.actor);
    let mut leave = Leave::catch()?;
    if simulator.is_some() {
        let pictures = grouped(plan.total_images.into());
        output::note(&format!(
            "{pictures} pictures, drawn by the simulator, since no token is configured (TEST_MAKE_API_TOKEN): nothing is paid for"
        ));
    } else {
        let others = task_progress::count_open_cells(context, actor).await?;
        agree(&configured.settings, plan, others, options.yes, &mut leave).await?;
    }
    let created = if simulator.is_some() {
        task_service::create_task_alone(context, actor, definition).await?
    } else {
        task_service::create_task(context, actor, definition).await?
    };
    if !created.is_new {
        output::note("this task stood already, under the same idempotency key: nothing was enqueued");
    }
    output::note(&format!(
        "task {}: {}, {}",
        created.id,
        counted(created.total_images, "cell"),
        worker_processes(options.workers)
    ));
    let (invocation, id) = (&options.invocation, created.id);
    let go_on = if simulator.is_some() {
        format!("the simulator ended with it; no worker takes the open cells of task {id}, and `{invocation} run` begins anew")
    } else {
        format!(
            "nothing is lost; `{invocation} worker --until-empty` goes on with what is left, `{invocation} task watch {id}` shows it"
        )
    };
    let began = Instant::now();
    // A simulator that ends with this command must not be given the cells of other tasks.
    let run = Run { task: id, workers: options.workers, alone: simulator.is_some(), go_on: &go_on };
    let task = running::to_the_end(stage, leave, &run).await?;
    Summary::of(stage, task, began.elapsed(), invocation).await
}

fn worker_processes(number: u16) -> String {
    format!("{number} worker process{}", if number == 1 { "" } else { "es" })
}

/// Says what will be paid for, and asks where it is much.
async fn agree(settings: &Settings, plan: &PlannedTask, others: i64, yes: bool, leave: &mut Leave) -> Result<(), Failure> {
    let own = i64::from(plan.total_images);
    let more = match others {
        0 => String::new(),
        others => format!(", and {} of other tasks that wait in this database", grouped(others)),
    };
    output::note(&format!("{} will be paid for ({}){more}", counted(own, "picture"), upstream::places(settings, &plan.lanes)));
    if yes || own + others <= ASKED_ABOVE || !io::stdin().is_terminal() {
        return Ok(());
    }
    output::note("go on? [y/N]");
    let (sender, answered) = tokio::sync::oneshot::channel();
    // On a thread of its own: a read that never ends must not keep the command from leaving in order.
    std::thread::spawn(move || {
        let mut answer = String::new();
        // Whoever does not wait for the answer any more has left.
        let _ = sender.send(io::stdin().read_line(&mut answer).map(|_| answer));
    });
    let answer = tokio::select! {
        answer = answered => answer.map_err(Failure::failed)?,
        () = leave.asked() => return Err(Failure::failed("stopped by a signal: nothing was created")),
    };
    let answer = answer.map_err(|error| Failure::failed(format_args!("standard input: {error}")))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was created; say --yes to go on without being asked")),
    }
}
