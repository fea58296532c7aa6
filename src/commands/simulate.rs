//! `imagemill simulate`: the simulator as a program, until it is told to end.

use std::{
    io::{self, Write},
    str::FromStr,
};

use secrecy::SecretString;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::simulator::{ABOUT, Behaviour, Rate, Rule, Simulator, SimulatorError, SimulatorOptions, Span};

/// Run a test double of the image API on loopback: small drawn pictures, nothing is billed.
///
/// BEHAVIOUR is a name (`success failure timeout illegal_image deleted empty_success moderation_first pending_forever
/// lost poll_error poll_reset reset_before reset_after hang_before hang_after unreadable object_id`), a status code with
/// which to refuse the submit, or JSON with details, such as `{"kind": "status", "status": 429, "retry_after": 2}`.
/// All of it can be changed live: GET and POST /control.
// Flags of a command line are independent of one another.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, clap::Args)]
pub struct SimulateArgs {
    /// Port to listen on; 0 takes one that is free.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Token that requests must carry; without it none is asked for.
    #[arg(long, env = "IMAGEMILL_SIMULATOR_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Milliseconds to the answer of a submit: a number, or a range such as 20-80.
    #[arg(long, value_name = "MS", default_value = "0")]
    pub submit_latency: Span,
    /// Milliseconds to the answer of a poll: a number or a range.
    #[arg(long, value_name = "MS", default_value = "0")]
    pub poll_latency: Span,
    /// Polls that say PENDING before a job ends: a number or a range.
    #[arg(long, value_name = "POLLS", default_value = "1")]
    pub pending_polls: Span,
    /// Milliseconds before a job ends: a number or a range.
    #[arg(long, value_name = "MS", default_value = "0")]
    pub duration: Span,
    /// Behaviour of the submit that arrives as the Nth; may be repeated.
    #[arg(long, value_name = "N=BEHAVIOUR")]
    pub script: Vec<Scripted>,
    /// Rule as JSON with any of `request_id` (pattern with *), prompt (part of the first), seed, times, and behaviour;
    /// may be repeated.
    #[arg(long, value_name = "JSON", value_parser = rule)]
    pub rule: Vec<Rule>,
    /// Share of the submits with this behaviour, 0 to 1; may be repeated.
    #[arg(long, value_name = "PROBABILITY=BEHAVIOUR")]
    pub rate: Vec<Chance>,
    /// Hold back the answers to accepted submits until /control says otherwise.
    #[arg(long)]
    pub hold_submits: bool,
    /// Hold back the answers to polls until /control says otherwise.
    #[arg(long)]
    pub hold_polls: bool,
    /// Header with the submit's request id.
    #[arg(long, value_name = "NAME", default_value = "x-imagemill-request")]
    pub request_id_header: String,
    /// Print the address as JSON.
    #[arg(long)]
    pub json: bool,
    /// End when standard input ends: the process that started this one is gone.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// `N=BEHAVIOUR`
#[derive(Debug, Clone)]
pub struct Scripted {
    arrival: u64,
    behaviour: Behaviour,
}

/// `PROBABILITY=BEHAVIOUR`
#[derive(Debug, Clone)]
pub struct Chance(Rate);

/// Why `imagemill simulate` ended.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The simulator could not be started.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// The signals that end it could not be listened for.
    #[error("cannot listen for signals: {0}")]
    Signal(#[source] io::Error),
    /// The address could not be printed.
    #[error("cannot print the simulator's address: {0}")]
    Print(#[source] io::Error),
}

impl SimulateArgs {
    /// The options that the flags ask for.
    pub fn options(self) -> SimulatorOptions {
        SimulatorOptions {
            port: self.port,
            token: self.token,
            seed: self.seed,
            request_id_header: self.request_id_header,
            submit_latency: self.submit_latency,
            poll_latency: self.poll_latency,
            pending_polls: self.pending_polls,
            duration: self.duration,
            script: self.script.into_iter().map(|scripted| (scripted.arrival, scripted.behaviour)).collect(),
            rules: self.rule,
            rates: self.rate.into_iter().map(|chance| chance.0).collect(),
            hold_submits: self.hold_submits,
            hold_polls: self.hold_polls,
            ..SimulatorOptions::default()
        }
    }
}

/// Runs a simulator until Ctrl-C or SIGTERM. Prints one line when it can be reached: what it is and its address, or as
/// JSON `{"url": ...}`.
pub async fn simulate(options: SimulatorOptions, json: bool) -> Result<(), SimulateError> {
    // Before the line is printed: who reads it may end the program at once.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SimulateError::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(SimulateError::Signal)?;
    let simulator = Simulator::start(options).await?;
    announce(simulator.url(), json).map_err(SimulateError::Print)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

fn announce(url: &str, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", json!({ "url": url, "simulator": "test double" }))?;
    } else {
        writeln!(out, "imagemill simulator at {url} ({ABOUT})")?;
    }
    out.flush()
}

fn rule(text: &str) -> Result<Rule, serde_json::Error> {
    serde_json::from_str(text)
}

fn split<T: FromStr>(text: &str) -> Result<(T, Behaviour), String> {
    let (number, behaviour) = text.split_once('=').ok_or_else(|| "write a number, `=`, and a behaviour".to_owned())?;
    let number = number.trim().parse().map_err(|_| format!("`{number}` is not a number of the right kind"))?;
    let behaviour = behaviour.parse().map_err(|error: serde_json::Error| error.to_string())?;
    Ok((number, behaviour))
}

impl FromStr for Scripted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        split(text).map(|(arrival, behaviour)| Self { arrival, behaviour })
    }
}

impl FromStr for Chance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        split(text).map(|(probability, behaviour)| Self(Rate { behaviour, probability }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        simulate: SimulateArgs,
    }

    fn options(flags: &[&str]) -> Result<SimulatorOptions, clap::Error> {
        let words = std::iter::once("simulate").chain(flags.iter().copied());
        Line::try_parse_from(words).map(|line| line.simulate.options())
    }

    #[test]
    fn without_flags_the_defaults_stand() {
        let from_flags = serde_json::to_value(options(&[]).unwrap()).unwrap();
        let from_library = serde_json::to_value(SimulatorOptions::default()).unwrap();
        assert_eq!(from_flags, from_library);
    }

    #[test]
    fn scripts_rules_and_rates_are_read_from_flags() {
        let options = options(&[
            "--script",
            "3=reset_after",
            "--script",
            "4=429",
            "--rate",
            "0.1=failure",
            "--rule",
            r#"{"prompt": "cat", "behaviour": "timeout", "times": 1}"#,
            "--submit-latency",
            "20-80",
        ])
        .unwrap();
        assert_eq!(options.script[&3], Behaviour::ResetAfter);
        assert_eq!(options.script[&4], Behaviour::status(429));
        assert_eq!(options.rates[0].probability.to_string(), "0.1");
        assert_eq!(options.rules[0].behaviour, Behaviour::Timeout);
        assert_eq!(options.submit_latency, Span::range(20, 80));
    }

    #[test]
    fn a_behaviour_that_does_not_exist_is_an_error_that_names_it() {
        let error = options(&["--script", "1=sucess"]).unwrap_err().to_string();
        assert!(error.contains("sucess"), "{error}");
    }
}
