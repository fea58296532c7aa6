//! The program that runs the jobs: parses the command line, loads the settings, dispatches.

mod cli;
mod complete_task;
mod generate_image;
mod signals;
mod worker;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use cli::{Cli, Command, WorkerArgs};
use imagemill::{
    app::{self, Database},
    commands::{self, logs, report::Failure},
    config::{self, LoadOptions, Loaded},
};

fn main() -> ExitCode {
    // clap ends with code 2 on wrong usage.
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("imagemill: {}", failure.line());
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let loaded = config::load(LoadOptions { profile: cli.env.clone(), file: cli.config.clone(), ..LoadOptions::default() })
        .map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(dispatch(cli, loaded))
}

async fn dispatch(cli: Cli, loaded: Loaded) -> Result<ExitCode, Failure> {
    let json = cli.json;
    match cli.command {
        Command::Config => {
            commands::config::config(&loaded, json, &mut std::io::stdout().lock()).map_err(Failure::failed)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Worker(arguments) => worker(arguments, loaded).await,
        Command::InitDb => {
            let database = Database::acquire(&loaded.settings).await.map_err(Failure::failed)?;
            let done = database.init_db().await;
            database.release().await.map_err(Failure::failed)?;
            done.map_err(Failure::failed)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure::failed("not here yet")),
    }
}

async fn worker(arguments: WorkerArgs, loaded: Loaded) -> Result<ExitCode, Failure> {
    let _logs = logs::start(&loaded.settings.logs).map_err(Failure::failed)?;
    let settings = loaded.settings;
    let options = worker::WorkerOptions {
        concurrency: arguments.concurrency.map_or(settings.generate_image.slots, |concurrency| concurrency as usize),
        lanes: if arguments.lanes.is_empty() { settings.lanes.keys().cloned().collect() } else { arguments.lanes },
        until_empty: arguments.until_empty,
        grace: arguments.grace.map_or(settings.queue.grace, |seconds| Duration::from_secs(u64::from(seconds))),
        with_parent: arguments.with_parent,
    };
    let mut app = app::initialize_app(settings).await.map_err(Failure::failed)?;
    app.context = app.context.with_upstream().map_err(Failure::failed)?;
    let settled = worker::run(app.context.clone(), options).await;
    app::shutdown_app(app).await.map_err(Failure::failed)?;
    if settled.map_err(Failure::failed)? { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) }
}
