//! The operators' commands of lanes and attempts: what can be said, and what is called for it.

use std::{io, time::Duration};

use clap::{ArgGroup, Args, Subcommand};
use imagemill::{
    commands::{
        self,
        report::Failure,
        session::{Session, Who},
    },
    config::{self, Loaded},
    crud::lanes::NewLimits,
    models::status::ErrorKind,
    services::{attempt_service::Resolution, bounds::Moment},
};
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(crate) enum LaneCommand {
    /// List the lanes: limits, open attempts, pauses.
    List,
    /// Pause a lane: nothing is submitted to it; what is accepted is polled on.
    Pause {
        /// prod, ops or dev.
        lane: String,
        /// Why: whoever waits for it reads that.
        #[arg(long)]
        why: String,
        /// Until this time, as 2026-12-24T18:00:00Z, or so long from now, as 2h; else until it is resumed.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<Moment>,
    },
    /// Lift an operator's pause.
    Resume {
        /// prod, ops or dev.
        lane: String,
    },
    /// Set limits of a lane, for the whole fleet and at once; `none` takes one away.
    Limit(LimitArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// prod, ops or dev.
    pub(crate) lane: String,
    /// Cells in flight.
    #[arg(long, value_name = "N", value_parser = always::<i32>)]
    max_in_flight: Option<i32>,
    /// Submits a second.
    #[arg(long, value_name = "RATE", value_parser = limit::<f64>)]
    submits_per_second: Option<Limit<f64>>,
    /// Submits a second for now, after the upstream said that it is too much: workers lower and raise it.
    #[arg(long, value_name = "RATE", value_parser = limit::<f64>)]
    current_rate: Option<Limit<f64>>,
    /// Whether workers change that.
    #[arg(long, value_name = "true|false")]
    rate_adapts: Option<bool>,
    /// Workers do not lower it below this.
    #[arg(long, value_name = "RATE", value_parser = always::<f64>)]
    rate_floor: Option<f64>,
    /// Submits that may come at once.
    #[arg(long, value_name = "N", value_parser = always::<i32>)]
    burst: Option<i32>,
    /// Polls a second.
    #[arg(long, value_name = "RATE", value_parser = limit::<f64>)]
    polls_per_second: Option<Limit<f64>>,
    /// Cells in flight when the lane starts cold; `none` takes the ramp away.
    #[arg(long, value_name = "N", value_parser = limit::<i32>)]
    ramp_start: Option<Limit<i32>>,
    /// Cells that are added to these every interval.
    #[arg(long, value_name = "N", value_parser = always::<i32>)]
    ramp_step: Option<i32>,
    /// That interval: 30s, 5min.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ramp_interval: Option<Duration>,
    /// The lane starts cold again when it was idle for so long.
    #[arg(long, value_name = "TIME", value_parser = duration_or_none)]
    ramp_idle_reset: Option<Limit<Duration>>,
    /// An attempt that was given up counts as in flight for so long.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_job_time: Option<Duration>,
    /// Submits a day (UTC).
    #[arg(long, value_name = "N", value_parser = limit::<i64>)]
    max_submits_per_day: Option<Limit<i64>>,
}

impl LimitArgs {
    /// What is to be changed.
    pub(crate) fn limits(&self) -> NewLimits {
        NewLimits {
            max_in_flight: self.max_in_flight,
            submits_per_second: self.submits_per_second.map(|limit| limit.0),
            current_rate: self.current_rate.map(|limit| limit.0),
            rate_adapts: self.rate_adapts,
            rate_floor: self.rate_floor,
            burst: self.burst,
            ramp_start: self.ramp_start.map(|limit| limit.0),
            ramp_step: self.ramp_step,
            ramp_interval: self.ramp_interval,
            ramp_idle_reset: self.ramp_idle_reset.map(|limit| limit.0),
            max_job_time: self.max_job_time,
            polls_per_second: self.polls_per_second.map(|limit| limit.0),
            max_submits_per_day: self.max_submits_per_day.map(|limit| limit.0),
        }
    }
}

/// A limit, or none.
#[derive(Debug, Clone, Copy)]
struct Limit<T>(Option<T>);

fn limit<T: std::str::FromStr>(text: &str) -> Result<Limit<T>, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    text.parse().map(|limit| Limit(Some(limit))).map_err(|_| "write a number, or `none`".to_owned())
}

/// One that is always there.
fn always<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    if text == "none" {
        return Err("this one cannot be taken away: write a number".to_owned());
    }
    text.parse().map_err(|_| "write a number".to_owned())
}

/// A duration as settings have it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "write a number of seconds, or 250ms, 30s, 5min, 2h".to_owned())
}

fn duration_or_none(text: &str) -> Result<Limit<Duration>, String> {
    if text == "none" { Ok(Limit(None)) } else { duration(text).map(|duration| Limit(Some(duration))) }
}

fn moment(text: &str) -> Result<Moment, String> {
    Moment::parse(text).ok_or_else(|| "write a time, as 2026-12-24T18:00:00Z, or a duration from now, as 2h".to_owned())
}

/// A kind of error by its word.
pub(crate) fn kind(text: &str) -> Result<ErrorKind, String> {
    let known = || ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    ErrorKind::parse(text).ok_or_else(|| format!("the kinds are {}", known()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum AttemptCommand {
    /// List attempts of which it is not known whether they were paid for.
    List {
        /// The unknown ones; there is no other list yet.
        #[arg(long, required = true)]
        unknown: bool,
        /// Of this task alone.
        #[arg(long, value_name = "ID")]
        task: Option<Uuid>,
    },
    /// Say what the upstream's bill says of one.
    Resolve(ResolveArgs),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("said").required(true).args(["upstream_id", "not_billed", "billed"])))]
pub(crate) struct ResolveArgs {
    /// The attempt, as `attempt list` shows it: CELL/NUMBER.
    #[arg(value_parser = attempt_id)]
    pub(crate) attempt: (Uuid, i32),
    /// It was taken, under this id: it is polled, and nothing is paid.
    #[arg(long, value_name = "ID")]
    upstream_id: Option<String>,
    /// It was not billed.
    #[arg(long)]
    not_billed: bool,
    /// It was billed, and its id is not known.
    #[arg(long)]
    billed: bool,
}

impl ResolveArgs {
    /// What was said of it.
    pub(crate) fn resolution(&self) -> Resolution {
        match &self.upstream_id {
            Some(id) => Resolution::UpstreamId(id.clone()),
            None if self.not_billed => Resolution::NotBilled,
            None => Resolution::Billed,
        }
    }
}

fn attempt_id(text: &str) -> Result<(Uuid, i32), String> {
    let parsed = text.split_once('/').and_then(|(cell, ordinal)| Some((cell.parse().ok()?, ordinal.parse().ok()?)));
    parsed.ok_or_else(|| "not an attempt: write CELL/NUMBER, as `attempt list --unknown` shows it".to_owned())
}

/// Runs one.
pub(crate) async fn lane(
    command: LaneCommand,
    loaded: Loaded,
    who: &Who,
    json: bool,
    out: &mut impl io::Write,
) -> Result<(), Failure> {
    let session = Session::open(loaded.settings, who).await?;
    let (context, actor) = (session.context(), &session.actor);
    let done = match command {
        LaneCommand::List => commands::lane::list(context, actor, json, out).await,
        LaneCommand::Pause { lane, why, until } => commands::lane::pause(context, actor, &lane, &why, until, json, out).await,
        LaneCommand::Resume { lane } => commands::lane::resume(context, actor, &lane, json, out).await,
        LaneCommand::Limit(limit) => commands::lane::limit(context, actor, &limit.lane, &limit.limits(), json, out).await,
    };
    session.close().await;
    done
}

/// Runs one.
pub(crate) async fn attempt(
    command: AttemptCommand,
    loaded: Loaded,
    who: &Who,
    json: bool,
    out: &mut impl io::Write,
) -> Result<(), Failure> {
    let session = Session::open(loaded.settings, who).await?;
    let (context, actor) = (session.context(), &session.actor);
    let done = match command {
        AttemptCommand::List { task, .. } => commands::attempt::list(context, actor, task, json, out).await,
        AttemptCommand::Resolve(arguments) => {
            commands::attempt::resolve(context, actor, arguments.attempt, &arguments.resolution(), json, out).await
        }
    };
    session.close().await;
    done
}
