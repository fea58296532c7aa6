//! The simulator as a process of its own.

use std::{ffi::OsString, sync::Arc, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    process::{Process, Start},
    scratch::Scratch,
};
use crate::{
    commands::{effective::Effective, report::Failure, upstream},
    simulator::{LedgerEntry, SimulatorOptions, Stats},
};

/// For its answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A simulator.
pub(super) struct Simulated {
    process: Process,
    url: String,
    token: String,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Announced {
    url: String,
}

impl Simulated {
    /// Starts one: without latency, and done at its first poll, but for these arguments.
    pub(super) async fn start(scratch: &Arc<Scratch>, base: &Effective, arguments: &[&str]) -> Result<Self, Failure> {
        let token = hex::encode(rand::random::<[u8; 16]>());
        let mut environment = base.environment();
        environment.insert("IMAGEMILL_SIMULATOR_TOKEN".to_owned(), token.clone().into());
        let mut words: Vec<OsString> = ["simulate", "--json", "--with-parent"].map(OsString::from).into();
        if !arguments.contains(&"--pending-polls") {
            words.extend(["--pending-polls", "0"].map(OsString::from));
        }
        words.extend(arguments.iter().map(OsString::from));
        let start = Start { what: "simulator", arguments: words, environment: &environment, open_files: None };
        let mut process = Process::start(scratch, start)?;
        let line = process.line(PATIENCE).await?;
        let announced: Announced = serde_json::from_str(&line).map_err(Failure::failed)?;
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(Failure::failed)?;
        Ok(Self { process, url: announced.url, token, http })
    }

    /// Points every lane at it.
    pub(super) fn lead(&self, effective: &mut Effective, poll_interval: &str) -> Result<(), Failure> {
        let header = SimulatorOptions::default().request_id_header;
        upstream::lead_to(effective, &self.url, self.token.clone(), &header, poll_interval)
    }

    /// Its ledger from this arrival on.
    pub(super) async fn ledger(&self, from: u64) -> Result<Vec<LedgerEntry>, Failure> {
        self.get(&format!("ledger?from={from}")).await
    }

    /// Its counters.
    pub(super) async fn stats(&self) -> Result<Stats, Failure> {
        self.get("stats").await
    }

    /// Changes its options.
    pub(super) async fn control(&self, patch: &Value) -> Result<(), Failure> {
        let answer = self.http.post(format!("{}/control", self.url)).json(patch).send().await.map_err(Failure::failed)?;
        answer.error_for_status().map_err(Failure::failed)?;
        Ok(())
    }

    /// Refuses the token that its clients have, from now on.
    pub(super) async fn refuse_token(&self) -> Result<(), Failure> {
        self.control(&json!({ "token": "another" })).await
    }

    /// Takes it again.
    pub(super) async fn take_token(&self) -> Result<(), Failure> {
        self.control(&json!({ "token": self.token })).await
    }

    /// Ends it.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.process.stop().await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.http.get(format!("{}/{path}", self.url)).send().await.map_err(Failure::failed)?;
        let answer = answer.error_for_status().map_err(Failure::failed)?;
        answer.json().await.map_err(Failure::failed)
    }
}
