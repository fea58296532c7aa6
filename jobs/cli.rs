//! The command line: what can be said, and nothing of what it does.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use imagemill::{
    commands::{
        bench::{BenchOptions, ProducerArgs, stock::StockSetting},
        simulate::SimulateArgs,
    },
    models::{Faults, status::ErrorKind},
    services::task_service::NewBounds,
};
use uuid::Uuid;

use crate::steering;
pub(crate) use crate::steering::{AttemptCommand, LaneCommand};

/// A durable job queue on PostgreSQL that runs image-generation experiments: nothing lost, nothing paid twice.
#[derive(Debug, Parser)]
#[command(name = "imagemill", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Profile of the settings: dev or prod.
    #[arg(long, global = true, value_name = "PROFILE")]
    pub(crate) env: Option<String>,
    /// Configuration file, instead of ./Config.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// User to act as; else `IMAGEMILL_USER`, else `admin` on the private PostgreSQL.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try it: 24 cells against the simulator on a private PostgreSQL.
    Demo(DemoArgs),
    /// Run a task file from beginning to end: starts what is not configured, and worker processes.
    Run(RunArgs),
    /// Bring the database's schema up to date.
    InitDb,
    /// Create the first users.
    InitUsers,
    /// Run a worker process.
    Worker(WorkerArgs),
    /// Whether the workers of this host have beaten within their lease: exit code 0 or 1.
    Health {
        /// Pass where PostgreSQL cannot be asked: for a probe that ends what fails it.
        #[arg(long)]
        tolerate_outage: bool,
    },
    /// Serve the simulator: a test double of the image API.
    Simulate(SimulateArgs),
    /// Create tasks and look at them.
    #[command(subcommand)]
    Task(TaskCommand),
    /// The ways into the upstream: look at them, pause them, limit them.
    #[command(subcommand)]
    Lane(LaneCommand),
    /// Attempts of which it is not known whether they were paid for.
    #[command(subcommand)]
    Attempt(AttemptCommand),
    /// Workers, lanes and open tasks, refreshed each second; `q` quits.
    Top,
    /// Create users and list them.
    #[command(subcommand)]
    User(UserCommand),
    /// Open psql on the database; starts the private PostgreSQL.
    Psql(PsqlArgs),
    /// Print the effective settings, each with its source.
    Config,
    /// Measure the engine on this machine, beside apalis-postgres's stock backend.
    Bench(BenchOptions),
    /// A worker of the stock backend, for `bench`.
    #[command(hide = true)]
    BenchStockWorker(StockSetting),
    /// A producer of one task, for `bench`.
    #[command(hide = true)]
    BenchProducer(ProducerArgs),
}

impl Command {
    /// Whether its workers' log files are its own too.
    pub(crate) fn logs_to_files(&self) -> bool {
        matches!(self, Self::Demo(_) | Self::Run(_) | Self::Worker(_))
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Worker processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Task file (JSON), as the front end sends it.
    pub(crate) file: PathBuf,
    /// Worker processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Do not ask before paying for more than 1,000 pictures.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Cells at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: Option<u32>,
    /// Lanes to take cells from; all of them if none is named.
    #[arg(long, value_name = "LANE", value_delimiter = ',', value_parser = ["prod", "ops", "dev"])]
    pub(crate) lanes: Vec<String>,
    /// End when no job is pending or running, those waiting for a retry included.
    #[arg(long)]
    pub(crate) until_empty: bool,
    /// Seconds to await the submits that are out when leaving, else queue.grace.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace: Option<u32>,
    /// Take the jobs of this task only.
    #[arg(long, hide = true, value_name = "ID")]
    pub(crate) task: Option<Uuid>,
    /// End when standard input ends: the process that started this one is gone.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Create a task from a file.
    Create {
        /// Task file (JSON); `-` reads standard input.
        file: PathBuf,
        /// Say what would be created, and store nothing.
        #[arg(long)]
        dry_run: bool,
        /// Take over pictures of your earlier tasks that were paid for with the same request.
        #[arg(long)]
        reuse: bool,
        #[command(flatten)]
        bounds: BoundsArgs,
    },
    /// List tasks, newest first.
    List {
        /// Everybody's, not only one's own.
        #[arg(long)]
        all: bool,
        /// Those that were deleted, and that `task restore` brings back.
        #[arg(long)]
        deleted: bool,
        /// Tasks at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Show a task and its cells.
    Show {
        /// The task.
        id: Uuid,
        /// All of its cells, however many.
        #[arg(long)]
        all: bool,
    },
    /// Write a task's cells as CSV, or with --json as JSON: where each stands, seed, prompts, upstream id, state, cost, hash.
    Export {
        /// The task.
        id: Uuid,
        /// As CSV.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        /// Copy the kept pictures here, named by the values of their axes.
        #[arg(long, value_name = "DIR")]
        pictures: Option<PathBuf>,
    },
    /// Rate pictures 1 to 5.
    Rate {
        /// The task.
        id: Uuid,
        /// The cell, from 0.
        #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "rating", required_unless_present = "from")]
        cell: Option<i32>,
        /// 1 to 5, or none.
        #[arg(long, value_name = "R", allow_negative_numbers = true, requires = "cell", value_parser = rating)]
        rating: Option<Rating>,
        /// A file of ratings (JSON), as the page of a grid exports it; `-` reads standard input.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["cell", "rating"])]
        from: Option<PathBuf>,
    },
    /// Say something of a picture; without a text, show what was said.
    Remark {
        /// The task.
        id: Uuid,
        /// What to say.
        #[arg(requires = "cell")]
        text: Option<String>,
        /// The cell, from 0.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        cell: Option<i32>,
        /// Take this remark away.
        #[arg(long, value_name = "REMARK", conflicts_with_all = ["text", "cell"])]
        remove: Option<Uuid>,
    },
    /// Keep a task at hand; without one, list those that are.
    Favourite {
        /// The task.
        id: Option<Uuid>,
        /// Let go of it.
        #[arg(long, requires = "id")]
        remove: bool,
    },
    /// Delete an ended task, so that it can be restored until it is purged.
    Delete {
        /// The task.
        id: Uuid,
    },
    /// Take a deleted task back.
    Restore {
        /// The task.
        id: Uuid,
    },
    /// Print a task's input, as a file for `task create`.
    Reuse {
        /// The task.
        id: Uuid,
    },
    /// Write a task's grid as one HTML page, and as a labelled contact sheet.
    Grid {
        /// The task.
        id: Uuid,
        /// The page; else grid-ID.html in the current directory.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// A contact sheet as PNG beside it; above 16,000 pixels in several files.
        #[arg(long, value_name = "FILE")]
        png: Option<PathBuf>,
        /// Where the kept pictures are, else results.directory, else ./pictures.
        #[arg(long, value_name = "DIR")]
        pictures: Option<PathBuf>,
    },
    /// Delete tasks that ended long ago, with their cells and attempts; sums of what was paid for stay.
    Purge {
        /// Those that ended so long ago or longer: a number of seconds, or 12h, 30d.
        #[arg(long, value_name = "AGE", value_parser = steering::duration)]
        older_than: Duration,
        /// Everybody's, not only one's own.
        #[arg(long)]
        all: bool,
        /// Say what would be deleted, and delete nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Cancel a task or some of its cells: no submit of them leaves any more.
    Cancel {
        /// The task.
        id: Uuid,
        /// These cells alone, by their numbers.
        #[arg(long = "cell", value_name = "N", value_delimiter = ',', allow_negative_numbers = true)]
        cells: Vec<i32>,
    },
    /// Run failed and cancelled cells again; what was paid for is asked for first. One of which nobody knows whether it was paid for may be paid for twice.
    Retry {
        /// The task.
        id: Uuid,
        /// Those that failed for these reasons, for instance `upstream_timeout,unknown_submit`.
        #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', value_parser = steering::kind, conflicts_with = "cells")]
        kinds: Vec<ErrorKind>,
        /// These cells, by their numbers.
        #[arg(long = "cell", value_name = "N", value_delimiter = ',', allow_negative_numbers = true)]
        cells: Vec<i32>,
        /// Submit at once, even where an earlier submit may be alive: it may be paid for twice.
        #[arg(long)]
        now: bool,
    },
    /// End a task: its open cells fail as `operator`.
    ForceComplete {
        /// The task.
        id: Uuid,
    },
    /// Set a task's budget of submits and its times; `none` takes one away.
    Limit {
        /// The task.
        id: Uuid,
        #[command(flatten)]
        bounds: BoundsArgs,
    },
    /// Say why a cell is not running, and until when, where that is known.
    Why {
        /// The task.
        id: Uuid,
        /// The cell, from 0.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        cell: i32,
    },
    /// Show a task's progress until it ends.
    Watch {
        /// The task.
        id: Uuid,
    },
    /// Wait for a task's end: exit code 0 completed, 3 failed or cancelled, 4 time-out.
    Wait {
        /// The task.
        id: Uuid,
        /// How long to wait at most: a number of seconds, or 90s, 5min, 2h.
        #[arg(long, value_name = "TIME", value_parser = steering::duration)]
        timeout: Option<Duration>,
    },
}

/// What bounds a task's submits. Read later: every fault is to be named at once.
#[derive(Debug, Args)]
pub(crate) struct BoundsArgs {
    /// Submits, those that may have been billed included.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_submits: Option<String>,
    /// No submit before it: 2026-12-24T18:00:00Z, or 2h from now.
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// No submit after it: what is pending then is cancelled.
    #[arg(long, value_name = "TIME")]
    not_after: Option<String>,
}

impl BoundsArgs {
    /// What is to be set.
    pub(crate) fn read(&self) -> Result<NewBounds, Faults> {
        NewBounds::read(self.max_submits.as_deref(), self.not_before.as_deref(), self.not_after.as_deref())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user; the password is taken from `IMAGEMILL_PASSWORD`, else from standard input.
    Create {
        /// Name.
        username: String,
        /// Roles: guest, user, `pro_user`, manager, admin.
        #[arg(long = "role", value_name = "ROLE", required = true, value_delimiter = ',')]
        roles: Vec<String>,
    },
    /// List users.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct PsqlArgs {
    /// Arguments of psql, for instance -c "select 1".
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

/// A rating, or that there is to be none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rating(pub(crate) Option<i16>);

fn rating(text: &str) -> Result<Rating, String> {
    if text == "none" {
        return Ok(Rating(None));
    }
    let rating = text.parse().ok().filter(|rating| (1..=5).contains(rating));
    rating.map(|rating| Rating(Some(rating))).ok_or_else(|| "a rating is 1 to 5, or none".to_owned())
}
