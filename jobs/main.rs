//! The program that runs the jobs: parses the command line, loads the settings, dispatches.

mod cli;
mod complete_task;
mod generate_image;
mod signals;
mod steering;
mod stock_worker;
mod worker;

use std::{io, process::ExitCode, time::Duration};

use clap::Parser as _;
use cli::{Cli, Command, TaskCommand, UserCommand, WorkerArgs};
use imagemill::{
    app,
    commands::{
        self,
        demo::DemoOptions,
        effective::Effective,
        logs::{self, LogGuard},
        report::Failure,
        run::RunOptions,
        session::{Session, Who},
        task_export::Form,
        task_grid::Places,
        task_list::Listed,
        task_rate::Given,
        task_remark::Remark,
        task_wait::Waited,
    },
    config::{self, LoadOptions, Loaded, LogSettings},
    models::CellRating,
    services::{
        make_image::{ClientError, UpstreamClient},
        task_service::{CreateOptions, Purge, Retry},
    },
};
use secrecy::ExposeSecret as _;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(code) => code,
        Err(failure) if failure.is_quiet() => failure.exit_code(),
        Err(failure) => {
            eprintln!("imagemill: {}", failure.line());
            failure.exit_code()
        }
    }
}

/// Help and version as they are; wrong usage in one line, with exit code 2.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // To print help that nobody reads any more is no failure of ours.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.render().to_string();
    let said = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let said = Failure::usage(said.collect::<Vec<_>>().join(" ").trim_start_matches("error: "));
    let hint =
        if text.contains("'<ID>'") { "an ID is a UUID, as `imagemill task list` shows it" } else { "see `imagemill --help`" };
    eprintln!("imagemill: {}; {hint}", said.line());
    said.exit_code()
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let mut options = LoadOptions { profile: cli.env.clone(), file: cli.config.clone(), ..LoadOptions::default() };
    if matches!(cli.command, Command::Demo(_) | Command::Bench(_)) {
        // Whatever the shell says of these, right or wrong, is not for them.
        options.environment.retain(|name, _| !is_left_alone_by_the_demo(name));
    }
    let loaded = config::load(options.clone()).map_err(Failure::usage)?;
    let _logs = start_logs(&cli.command, &loaded.settings.logs)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(dispatch(cli, options, loaded))
}

async fn dispatch(cli: Cli, options: LoadOptions, loaded: Loaded) -> Result<ExitCode, Failure> {
    let json = cli.json;
    let out = &mut io::stdout();
    let invocation = invocation(&cli);
    let environment = loaded.variable("IMAGEMILL_USER").map(|user| user.expose_secret().to_owned());
    let who = Who { argument: cli.user, environment };
    match cli.command {
        Command::Demo(arguments) => {
            let is_database_configured = loaded.settings.database.url.is_some() || names_database();
            let options = DemoOptions { workers: arguments.workers, json, invocation, is_database_configured };
            commands::demo::demo(&loaded, &options, out).await?;
        }
        Command::Run(arguments) => {
            let run_options = RunOptions { workers: arguments.workers, yes: arguments.yes, json, invocation };
            commands::run::run(Effective::new(options), &who, &arguments.file, &run_options, out).await?;
        }
        Command::InitDb => commands::init_db::init_db(&loaded.settings, json, out).await?,
        Command::InitUsers => {
            let app = app::initialize_app(loaded.settings.clone()).await.map_err(Failure::failed)?;
            let passwords = |name: &str| loaded.variable(name).cloned();
            let done = commands::init_users::init_users(&app.context, passwords, json, out).await;
            app::shutdown_app(app).await.map_err(Failure::failed)?;
            done?;
        }
        Command::Worker(arguments) => return worker(arguments, loaded).await,
        Command::Health { tolerate_outage } => {
            let found = commands::health::health(&loaded.settings, tolerate_outage, json, out).await?;
            return Ok(if found.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Simulate(arguments) => {
            let json = json || arguments.json;
            let parent = if arguments.with_parent { Some(signals::watch_parent().map_err(Failure::failed)?) } else { None };
            let simulator = commands::simulate::simulate(arguments.options(), json);
            match parent {
                None => simulator.await?,
                Some(orphaned) => tokio::select! {
                    ended = simulator => ended?,
                    () = orphaned.cancelled() => {}
                },
            }
        }
        Command::Task(command) => return task(command, loaded, &who, json, out).await,
        Command::Lane(command) => steering::lane(command, loaded, &who, json, out).await?,
        Command::Attempt(command) => steering::attempt(command, loaded, &who, json, out).await?,
        Command::Top => {
            let session = Session::open(loaded.settings, &who).await?;
            let done = commands::top::top(session.context(), &session.actor, json, out).await;
            session.close().await;
            done?;
        }
        Command::User(command) => {
            let password = match &command {
                UserCommand::Create { .. } => {
                    let variable = loaded.variable("IMAGEMILL_PASSWORD");
                    Some(commands::user::read_password(variable, &mut io::stdin().lock())?)
                }
                UserCommand::List => None,
            };
            let session = Session::open(loaded.settings, &who).await?;
            let (context, actor) = (session.context(), &session.actor);
            let done = match (command, password) {
                (UserCommand::Create { username, roles }, Some(password)) => {
                    commands::user::create(context, actor, &username, password, &roles, json, out).await
                }
                _ => commands::user::list(context, actor, json, out).await,
            };
            session.close().await;
            done?;
        }
        Command::Psql(arguments) => {
            let database = &loaded.settings.database;
            let directory = database.private_directory.as_deref();
            let code = commands::psql::psql(database.url.as_ref(), directory, &arguments.arguments).await;
            let code = code.map_err(Failure::failed)?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        Command::Config => commands::config::config(&loaded, json, out).map_err(Failure::failed)?,
        Command::Bench(options) => commands::bench::bench(options, json, out).await?,
        Command::BenchStockWorker(setting) => stock_worker::run(loaded.settings, setting).await?,
        Command::BenchProducer(arguments) => commands::bench::produce(loaded.settings, &arguments, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn task(
    command: TaskCommand,
    loaded: Loaded,
    who: &Who,
    json: bool,
    out: &mut impl io::Write,
) -> Result<ExitCode, Failure> {
    // A file with faults is answered before anything is started.
    let created = match &command {
        TaskCommand::Create { file, reuse, bounds, .. } => {
            let (definition, bounds) = commands::task_create::read(file, &loaded.settings.limits, bounds.read())?;
            Some((definition, CreateOptions { reuse: *reuse, bounds }))
        }
        _ => None,
    };
    if let TaskCommand::Export { csv: false, .. } = &command
        && !json
    {
        return Err(Failure::usage("say how it is written: --csv or --json"));
    }
    let ratings = match &command {
        TaskCommand::Rate { cell, rating, from, .. } => match (cell, rating, from) {
            (_, _, Some(file)) => Some(commands::task_rate::read(file)?),
            (Some(cell), Some(rating), None) => Some(Given::Cell(CellRating { cell: *cell, rating: rating.0 })),
            _ => return Err(Failure::usage("name a cell and its rating, or a file: --cell N --rating R, or --from FILE")),
        },
        _ => None,
    };
    let limits = loaded.settings.limits.clone();
    let is_plan = matches!(command, TaskCommand::Create { dry_run: true, reuse: false, .. });
    // A plan needs no database: it starts the private one only where that is, since it knows what the lanes' days leave.
    let is_asked = !is_plan || commands::task_create::has_database(&loaded.settings.database);
    let opened = if is_asked { Some(Session::open(loaded.settings, who).await) } else { None };
    let session = match (opened, &created) {
        (Some(Ok(session)), _) => session,
        (opened, Some((definition, options))) if is_plan => {
            let why = opened.and_then(Result::err);
            commands::task_create::plan(&limits, definition, *options, why.as_ref(), json, out)?;
            return Ok(ExitCode::SUCCESS);
        }
        (Some(Err(failure)), _) => return Err(failure),
        (None, _) => return Err(Failure::failed("the task file was not read")),
    };
    let (context, actor) = (session.context(), &session.actor);
    let done = match (command, &created) {
        (TaskCommand::Export { id, csv, pictures }, _) => {
            let form = if csv { Form::Csv } else { Form::Json };
            commands::task_export::export(context, actor, id, form, pictures.as_deref(), out).await.map(|()| 0)
        }
        (TaskCommand::Rate { id, .. }, _) => match &ratings {
            Some(given) => commands::task_rate::rate(context, actor, id, given, json, out).await.map(|()| 0),
            None => Err(Failure::failed("the ratings were not read")),
        },
        (TaskCommand::Remark { id, text, cell, remove }, _) => {
            let what = match (cell, text, remove) {
                (Some(cell), Some(text), _) => Remark::Add(cell, text),
                (_, _, Some(remark)) => Remark::Remove(remark),
                (cell, _, None) => Remark::List(cell),
            };
            commands::task_remark::remark(context, actor, id, what, json, out).await.map(|()| 0)
        }
        (TaskCommand::Favourite { id, remove }, _) => {
            commands::task_favourite::favourite(context, actor, id, remove, json, out).await.map(|()| 0)
        }
        (TaskCommand::Delete { id }, _) => commands::task_delete::delete(context, actor, id, json, out).await.map(|()| 0),
        (TaskCommand::Restore { id }, _) => commands::task_delete::restore(context, actor, id, json, out).await.map(|()| 0),
        (TaskCommand::Reuse { id }, _) => commands::task_reuse::reuse(context, actor, id, out).await.map(|()| 0),
        (TaskCommand::Create { dry_run: true, .. }, Some((definition, options))) => {
            commands::task_create::plan_in(context, actor, definition, *options, json, out).await.map(|()| 0)
        }
        (TaskCommand::Create { .. }, Some((definition, options))) => {
            commands::task_create::create(context, actor, definition, *options, json, out).await.map(|()| 0)
        }
        (TaskCommand::Create { .. }, None) => Err(Failure::failed("the task file was not read")),
        (TaskCommand::List { all, deleted, limit }, _) => {
            let listed = Listed { everybody: all, deleted, limit };
            commands::task_list::list(context, actor, listed, json, out).await.map(|()| 0)
        }
        (TaskCommand::Grid { id, output, png, pictures }, _) => {
            let places = Places { output, png, pictures };
            commands::task_grid::grid(context, actor, id, &places, json, out).await.map(|()| 0)
        }
        (TaskCommand::Purge { older_than, all, dry_run }, _) => {
            let purge = Purge { older_than, everybody: all, dry_run };
            commands::task_purge::purge(context, actor, purge, json, out).await.map(|()| 0)
        }
        (TaskCommand::Cancel { id, cells }, _) => {
            commands::task_steer::cancel(context, actor, id, &cells, json, out).await.map(|()| 0)
        }
        (TaskCommand::Retry { id, kinds, cells, now }, _) => {
            let what = Retry { kinds, cells, now };
            commands::task_steer::retry(context, actor, id, &what, json, out).await.map(|()| 0)
        }
        (TaskCommand::ForceComplete { id }, _) => {
            commands::task_steer::force_complete(context, actor, id, json, out).await.map(|()| 0)
        }
        (TaskCommand::Limit { id, bounds }, _) => match bounds.read() {
            Ok(new) => commands::task_limit::limit(context, actor, id, &new, json, out).await.map(|()| 0),
            Err(faults) => Err(Failure::usage(faults)),
        },
        (TaskCommand::Show { id, all }, _) => commands::task_show::show(context, actor, id, all, json, out).await.map(|()| 0),
        (TaskCommand::Why { id, cell }, _) => commands::task_why::why(context, actor, id, cell, json, out).await.map(|()| 0),
        (TaskCommand::Watch { id }, _) => commands::task_watch::watch(context, actor, id, json, out).await.map(|()| 0),
        (TaskCommand::Wait { id, timeout }, _) => {
            commands::task_wait::wait(context, actor, id, timeout, json, out).await.map(Waited::exit_code)
        }
    };
    session.close().await;
    done.map(ExitCode::from)
}

async fn worker(arguments: WorkerArgs, loaded: Loaded) -> Result<ExitCode, Failure> {
    let settings = loaded.settings;
    // What is missing is said at once, in one line, and not by each cell.
    let client = UpstreamClient::new(&settings).map_err(Failure::usage)?;
    let are_named = !arguments.lanes.is_empty();
    let mut lanes = if are_named { arguments.lanes } else { settings.lanes.keys().cloned().collect() };
    let unusable: Vec<ClientError> = lanes.iter().filter_map(|lane| client.lane(lane).err()).collect();
    if let Some(error) = unusable.first()
        && (are_named || unusable.len() == lanes.len())
    {
        return Err(Failure::usage(error));
    }
    for error in unusable {
        tracing::warn!("{error}; its cells wait");
    }
    lanes.retain(|lane| client.lane(lane).is_ok());
    let options = worker::WorkerOptions {
        concurrency: arguments.concurrency.map_or(settings.generate_image.slots, |concurrency| concurrency as usize),
        lanes,
        task: arguments.task,
        until_empty: arguments.until_empty,
        grace: arguments.grace.map_or(settings.queue.grace, |seconds| Duration::from_secs(u64::from(seconds))),
        with_parent: arguments.with_parent,
    };
    let mut settings = settings;
    // The beat has a connection of its own, beside the pool, and so has the listener.
    let listens = settings.queue.listen && !settings.database.pooler;
    settings.database.max_connections -= 1 + u32::from(listens);
    let mut app = app::initialize_app(settings).await.map_err(Failure::failed)?;
    app.context.upstream = Some(client);
    let left = worker::run(app.context.clone(), options).await;
    let let_go = if matches!(left, Ok(worker::Left::AtOnce)) { app::drop_app(app).await } else { app::shutdown_app(app).await };
    let_go.map_err(Failure::failed)?;
    if left.map_err(Failure::failed)? == worker::Left::Settled { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) }
}

/// A worker says what it does; other commands only what went wrong, and those without workers write no files.
fn start_logs(command: &Command, settings: &LogSettings) -> Result<LogGuard, Failure> {
    let without_files = LogSettings { directory: String::new(), ..settings.clone() };
    let settings = if command.logs_to_files() { settings } else { &without_files };
    let started = match command {
        Command::Worker(arguments) if !arguments.with_parent => logs::start(settings),
        _ => logs::start_quietly(settings),
    };
    Ok(started?)
}

/// How this program was called, for commands that people can copy.
fn invocation(cli: &Cli) -> String {
    let called = std::env::args().next().filter(|program| program.contains('/'));
    let mut words = vec![called.unwrap_or_else(|| "imagemill".to_owned())];
    if let Some(profile) = &cli.env {
        words.extend(["--env".to_owned(), profile.clone()]);
    }
    if let Some(file) = &cli.config {
        words.extend(["--config".to_owned(), file.display().to_string()]);
    }
    if let Some(user) = &cli.user {
        words.extend(["--as".to_owned(), user.clone()]);
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:,@".contains(character);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Variables that the demo does not look at: all settings but where its PostgreSQL and its logs are.
fn is_left_alone_by_the_demo(name: &str) -> bool {
    let is_setting = name.starts_with("TEST_") || name == "DATABASE_URL" || name.starts_with("IMAGEMILL_") && name.contains("__");
    is_setting && name != "IMAGEMILL_DATABASE__PRIVATE_DIRECTORY" && !name.starts_with("IMAGEMILL_LOGS__")
}

/// Whether the environment names a database, which `psql` would go to.
fn names_database() -> bool {
    ["DATABASE_URL", "IMAGEMILL_DATABASE__URL", "TEST_DB_HOST", "TEST_DB_NAME", "TEST_DB_USER"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
