//! `imagemill demo`: a built-in task of 24 cells against the simulator, on the private PostgreSQL, whatever token or database
//! is configured. The simulator misbehaves on purpose, and the demo checks its own numbers.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    contact_sheet, demo_check,
    demo_check::Check,
    effective::Effective,
    output,
    report::Failure,
    running::{self, Leave, Run},
    session::Who,
    stage::Stage,
    summary::Summary,
    task_file,
    upstream::{self, StandIn},
};
use crate::{
    config::Loaded,
    services::{grid_service, task_service},
    simulator::{Behaviour, Simulator, SimulatorOptions, Span},
};

/// The task.
const TASK: &str = include_str!("../../examples/demo.json");

/// Its cells: so many first POSTs.
pub(super) const CELLS: u64 = 24;

/// Until the first POST of every cell has arrived; then polls are answered whatever has.
const FIRST_POSTS: Duration = Duration::from_secs(30);

/// How the demo is to be run.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Worker processes.
    pub workers: u16,
    /// Print the summary as JSON.
    pub json: bool,
    /// How this program was called, for commands that people can copy.
    pub invocation: String,
    /// A database is configured, which the demo leaves alone: `psql` must be told so.
    pub is_database_configured: bool,
}

#[derive(Debug, Serialize)]
struct Demo {
    #[serde(flatten)]
    summary: Summary,
    contact_sheet: PathBuf,
    checks: Vec<Check>,
}

/// What happens to the POSTs, by the number of their arrival; to all others a picture.
///
/// Polls are not answered before 24 POSTs have arrived, and the one that is turned away is the last of them: so no cell comes a
/// second time among the first 24, and the numbers do not depend on who comes when.
fn script() -> SimulatorOptions {
    let script = [
        (4, Behaviour::IllegalImage),
        (9, Behaviour::ResetAfter),
        (13, Behaviour::Failure { message: "the GPU ran out of memory".to_owned() }),
        (18, Behaviour::IllegalImage),
        (CELLS, Behaviour::status(429)),
    ];
    SimulatorOptions {
        script: script.into(),
        hold_polls: true,
        submit_latency: Span::range(50, 300),
        duration: Span::range(400, 2_000),
        ..SimulatorOptions::default()
    }
}

/// Runs the demo, prints its summary and its own check of it; an error where a number is not as it must be.
pub async fn demo(configured: &Loaded, options: &DemoOptions, out: &mut impl Write) -> Result<(), Failure> {
    let mut effective = Effective::built_in();
    if let Some(directory) = &configured.settings.database.private_directory {
        effective.set("database.private_directory", directory);
    }
    let logs = &configured.settings.logs;
    effective.set("logs.directory", &logs.directory);
    effective.set("logs.json", logs.json.to_string());
    effective.set("logs.filter", &logs.filter);
    let simulator = upstream::stand_in(&mut effective, StandIn { options: script(), poll_interval: "100ms" }).await?;
    // On the private server everybody may act as `admin`, who is made here if need be.
    let stage = Stage::set(effective, &Who::default(), configured).await?;
    let done = on_stage(&stage, &simulator, options).await;
    stage.close().await;
    simulator.stop().await;
    let demo = done?;
    if options.json {
        output::json(&demo, out)?;
    } else {
        let sheet = demo.contact_sheet.display();
        output::text(&format!("\n{}\n\n{}\n\nthe grid  {sheet}", demo.summary.text(), demo_check::text(&demo.checks)), out)?;
    }
    if demo.checks.iter().all(Check::holds) {
        return Ok(());
    }
    Err(Failure::failed("the demo's numbers are not what they must be (see the table): please report it, with the logs"))
}

async fn on_stage(stage: &Stage, simulator: &Simulator, options: &DemoOptions) -> Result<Demo, Failure> {
    let (context, actor) = (stage.session.context(), &stage.session.actor);
    let definition = task_file::parse("the demo's task", TASK, &context.settings.limits)?;
    let leave = Leave::catch()?;
    let created = task_service::create_task_alone(context, actor, &definition).await?;
    output::note(&format!(
        "a demo: {} cells against the simulator, on the private PostgreSQL, {} worker processes; nothing is paid for",
        created.total_images, options.workers
    ));
    let began = Instant::now();
    let go_on = format!("`{} demo` begins anew; no worker takes what is left of this task", options.invocation);
    let run = Run { task: created.id, workers: options.workers, alone: true, go_on: &go_on };
    let task = tokio::select! {
        task = running::to_the_end(stage, leave, &run) => task?,
        failure = answer_polls(simulator) => return Err(failure),
    };
    let took = began.elapsed();
    let checks = demo_check::check(context, actor, &task, simulator, &stage.pictures).await?;
    let grid = grid_service::get_grid(context, actor, task.id).await?;
    let contact_sheet = stage.pictures.join(task.id.to_string()).join("contact-sheet.png");
    let (directory, place) = (stage.pictures.clone(), contact_sheet.clone());
    let drawn = tokio::task::spawn_blocking(move || contact_sheet::write(&grid, &directory, &place)).await;
    drawn.map_err(Failure::failed)?.map_err(Failure::failed)?;
    let program = if options.is_database_configured {
        format!("IMAGEMILL_DATABASE__URL= {}", options.invocation)
    } else {
        options.invocation.clone()
    };
    let summary = Summary::of(stage, task, took, &program).await?;
    Ok(Demo { summary, contact_sheet, checks })
}

/// Lets polls be answered once the first POST of every cell has arrived. Ends only on an error.
async fn answer_polls(simulator: &Simulator) -> Failure {
    let began = Instant::now();
    while simulator.stats().arrivals < CELLS && began.elapsed() < FIRST_POSTS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match simulator.control(|options| options.hold_polls = false) {
        Ok(()) => std::future::pending().await,
        Err(error) => Failure::failed(error),
    }
}
