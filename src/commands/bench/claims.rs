//! Claims, as the workers' logs tell of them.

use std::{fs, path::PathBuf};

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{ground::Ground, rows};
use crate::commands::effective::Effective;

/// What a worker logs, with each claim.
const FILTER: &str = "off,imagemill::queue::claim=debug";

/// The queue whose claims count.
const QUEUE: &str = "imagemill.generate_image";

/// The directory of some workers' logs.
pub(super) struct ClaimLog(PathBuf);

/// A claim that took something.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Claim {
    #[serde(rename = "timestamp")]
    pub(super) at: DateTime<Utc>,
    queue: String,
    pub(super) taken: usize,
    /// In all, as the worker waited for it.
    pub(super) took_ms: f64,
    /// For the look who waits, where there was one.
    pub(super) looked_ms: f64,
    /// For the lane's lock.
    pub(super) waited_ms: f64,
}

impl ClaimLog {
    /// Has workers of these settings log their claims, into a new directory.
    pub(super) fn of(ground: &Ground, effective: &mut Effective) -> Self {
        let directory = ground.scratch.path().join(format!("claims-{}", uuid::Uuid::now_v7().simple()));
        effective.set("logs.directory", directory.as_os_str());
        effective.set("logs.json", "true");
        effective.set("logs.filter", FILTER);
        Self(directory)
    }

    /// All that they have claimed so far: claims that took something.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let files = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let texts = files.map(|file| fs::read_to_string(file.path()).unwrap_or_default());
        texts.flat_map(|text| text.lines().filter_map(read).collect::<Vec<_>>()).collect()
    }
}

/// The value that so many per cent of the claims do not exceed.
pub(super) fn percentile(claims: &[Claim], percent: f64, of: impl Fn(&Claim) -> f64) -> Option<f64> {
    rows::percentile(&claims.iter().map(of).collect::<Vec<_>>(), percent)
}

fn read(line: &str) -> Option<Claim> {
    let claim: Claim = serde_json::from_str(line).ok()?;
    (claim.queue == QUEUE && claim.taken > 0).then_some(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_worker_is_read() {
        let line = r#"{"timestamp":"2026-11-24T02:54:19.123456Z","level":"DEBUG","message":"claimed","queue":"imagemill.generate_image",
                       "wanted":40,"taken":12,"took_ms":1.5,"looked_ms":0.25,"waited_ms":0.125,"target":"imagemill::queue::claim"}"#;
        let claim = read(line).unwrap();
        assert_eq!((claim.taken, claim.took_ms, claim.looked_ms, claim.waited_ms), (12, 1.5, 0.25, 0.125));
        assert_eq!(claim.at, "2026-11-24T02:54:19.123456Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(read(&line.replace(":12", ":0")), None);
        assert_eq!(read(&line.replace("generate_image", "complete_task")), None);
        assert_eq!(read(r#"{"timestamp":"2026-11-24T02:54:19.123456Z","message":"something else"}"#), None);
    }
}
