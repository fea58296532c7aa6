//! `imagemill health`: whether the workers of this host have beaten within their lease. What a probe runs: a worker has no port.

use std::{io::Write, time::Duration};

use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use super::{output, report::Failure};
use crate::{
    app::Database,
    config::Settings,
    db::pool,
    queue::{self, HostBeat},
};

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// Every worker process of this host has beaten within the lease; there is one at least.
    Alive(Vec<HostBeat>),
    /// This one has not.
    Silent(HostBeat),
    /// None is there.
    NoWorker,
    /// PostgreSQL cannot be asked, which says nothing of the workers: they ride it out.
    NotKnown(String),
}

impl Health {
    /// Whether the probe passes: exit code 0, else 1.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Alive(_) | Self::NotKnown(_))
    }

    fn line(&self, host: &str, lease: Duration) -> String {
        match self {
            Self::Alive(beats) => {
                let oldest = beats.iter().map(|beat| beat.age).max().unwrap_or_default();
                format!("alive: workers of {host}: {}, the last beat {:.1} s ago", beats.len(), oldest.as_secs_f64())
            }
            Self::Silent(beat) => {
                let (age, lease) = (beat.age.as_secs_f64(), lease.as_secs_f64());
                format!("not alive: {} gave its last beat {age:.1} s ago, and its lease is {lease} s", beat.name)
            }
            Self::NoWorker => format!("not alive: no worker process of {host} is registered"),
            Self::NotKnown(why) => format!("not known: {why}"),
        }
    }
}

/// Asks PostgreSQL, for no longer than `database.connect_timeout`, and prints what was found. With `tolerate_outage` a PostgreSQL that cannot be
/// asked is no failure: a probe must not end workers that only wait for it.
pub async fn health(settings: &Settings, tolerate_outage: bool, json: bool, out: &mut impl Write) -> Result<Health, Failure> {
    let found = match ask(settings).await {
        Ok(beats) => judge(beats, settings.queue.lease),
        Err(why) if tolerate_outage => Health::NotKnown(why),
        Err(why) => return Err(Failure::failed(why)),
    };
    let line = found.line(&queue::host(), settings.queue.lease);
    if json {
        let workers = match &found {
            Health::Alive(beats) => beats.iter().map(worker).collect(),
            Health::Silent(beat) => vec![worker(beat)],
            Health::NoWorker | Health::NotKnown(_) => Vec::new(),
        };
        let is_known = !matches!(found, Health::NotKnown(_));
        output::json(&json!({ "alive": is_known.then(|| found.passes()), "why": line, "workers": workers }), out)?;
    } else {
        output::text(&line, out)?;
    }
    Ok(found)
}

fn worker(beat: &HostBeat) -> serde_json::Value {
    json!({ "name": beat.name, "pid": beat.pid, "beat_age_seconds": beat.age.as_secs_f64() })
}

/// The beats of the processes that this one can see; else why not, in words.
async fn ask(settings: &Settings) -> Result<Vec<HostBeat>, String> {
    let database = Database::acquire(settings).await.map_err(|error| error.to_string())?;
    let limit = settings.database.connect_timeout;
    let asked = tokio::time::timeout(limit, read(&database)).await;
    let beats =
        asked.unwrap_or_else(|_| Err(format!("no answer of PostgreSQL in {limit:?}: check database.url, and that it runs")));
    let released = database.release().await.map_err(|error| error.to_string());
    let mut beats = beats?;
    released?;
    beats.retain(|beat| is_running(beat.pid));
    Ok(beats)
}

async fn read(database: &Database) -> Result<Vec<HostBeat>, String> {
    let options = pool::connect_options(&database.url, "imagemill health").map_err(|error| error.to_string())?;
    let refused = |error| pool::refused(&options, error).to_string();
    let mut connection = PgConnection::connect_with(&options).await.map_err(refused)?;
    let beats = queue::beats_of_host(&mut connection).await.map_err(|error| format!("the database: {error}"));
    // What was read is read, however the session ends.
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the session did not end in order");
    }
    beats
}

/// Whether there is such a process in this namespace.
fn is_running(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
    match rustix::process::test_kill_process(pid) {
        // Somebody else's is one all the same.
        Ok(()) | Err(rustix::io::Errno::PERM) => true,
        Err(_) => false,
    }
}

fn judge(beats: Vec<HostBeat>, lease: Duration) -> Health {
    if beats.is_empty() {
        return Health::NoWorker;
    }
    match beats.iter().find(|beat| beat.age > lease) {
        Some(silent) => Health::Silent(silent.clone()),
        None => Health::Alive(beats),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_worker_is_enough_and_no_worker_as_well() {
        let lease = Duration::from_secs(15);
        let beat = |pid, age| HostBeat { name: format!("host-{pid}"), pid, age: Duration::from_secs(age) };
        assert_eq!(judge(Vec::new(), lease), Health::NoWorker);
        assert_eq!(judge(vec![beat(1, 3), beat(2, 15)], lease), Health::Alive(vec![beat(1, 3), beat(2, 15)]));
        assert_eq!(judge(vec![beat(1, 3), beat(2, 16)], lease), Health::Silent(beat(2, 16)));
        let passing = [Health::Alive(Vec::new()), Health::NotKnown(String::new()), Health::NoWorker, Health::Silent(beat(1, 99))];
        assert_eq!(passing.map(|health| health.passes()), [true, true, false, false]);
    }
}
