//! `imagemill bench`: every row is taken, and nothing is left behind, however it ends.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    commands::output_within,
    support::{Process, eventually, temporary_directory},
};

/// What must be measured, whatever it comes to, and how many rows it takes.
const MEASURES: [(&str, usize); 20] = [
    ("create", 4),
    ("drain-4", 1),
    ("drain-1", 1),
    ("history", 2),
    ("prune", 4),
    ("stock", 12),
    ("latency", 2),
    ("roll-up", 1),
    ("idle", 3),
    ("ten-thousand", 6),
    ("kill", 1),
    ("leave", 2),
    ("cost", 4),
    ("lane-full", 3),
    ("limit", 2),
    ("rate", 2),
    ("turns", 3),
    ("pause", 3),
    ("cancel", 2),
    ("claim", 5),
];

fn bench(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagemill"));
    command
        .args(["bench", "--json", "--directory"])
        .arg(directory)
        .args(arguments)
        .stdin(Stdio::null())
        // Not meant for it, like whatever else a shell may have set.
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .env("IMAGEMILL_QUEUE__LEASE", "no duration");
    command
}

/// Whether nothing of it is there any more: no file, and no process that was told of its directory.
fn is_gone(directory: &Path) -> bool {
    let place = directory.to_str().expect("a path in UTF-8");
    let names = |process: &Path| {
        ["environ", "cmdline"].iter().any(|file| {
            std::fs::read(process.join(file)).is_ok_and(|bytes| {
                let text = String::from_utf8_lossy(&bytes).replace("%2F", "/");
                text.contains(place)
            })
        })
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_empty = std::fs::read_dir(directory).expect("list the directory").next().is_none();
    is_empty && !processes.into_iter().any(|process| names(&process))
}

#[tokio::test]
async fn every_row_is_taken_and_nothing_is_left() {
    let directory = temporary_directory();
    let output = output_within(Duration::from_mins(20), bench(&directory, &["--scale", "0.005", "--runs", "1"])).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (key, least) in [("/machine/fsync_ms", 0.0), ("/machine/cores", 0.5), ("/scale", 0.0), ("/runs", 0.5)] {
        assert!(report.pointer(key).and_then(Value::as_f64).is_some_and(|value| value > least), "{key}: {report:#}");
    }
    let rows = report["rows"].as_array().expect("rows");
    for (measure, count) in MEASURES {
        let of_it: Vec<&Value> = rows.iter().filter(|row| row["measure"] == measure).collect();
        assert_eq!(of_it.len(), count, "{measure}: {of_it:#?}\n{said}");
        for row in of_it {
            // A roll-up may begin in the same instant as the settle before it; an idle worker may say nothing for a second; what an
            // operator wants may be obeyed at once.
            let least = if ["roll-up", "idle", "limit", "pause", "cancel"].contains(&measure) { -f64::EPSILON } else { 0.0 };
            assert!(row["reached"].as_f64().is_some_and(|reached| reached > least && reached < 1e9), "{row:#}");
        }
    }
    assert_eq!(rows.len(), MEASURES.iter().map(|(_, count)| count).sum::<usize>());
    // What was asked of it was done: these are exact.
    let reached =
        |what: &str| rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no row {what}"))["reached"].as_f64();
    assert_eq!(reached("cells in flight in one process"), Some(50.0));
    assert_eq!(reached("cells in flight in one process with ulimit -n 1024"), Some(50.0));
    // What is a limit holds however slow the machine.
    for what in ["in flight by the rows, at the most", "in flight at the simulator, at every instant"] {
        assert_eq!(reached(what), Some(40.0), "{what}");
    }
    let worst = rows.iter().find(|row| row["measure"] == "rate").expect("the rate");
    assert_eq!(worst["ok"], true, "{worst:#}");
    assert!(is_gone(&directory), "something is left in {} or of its processes", directory.display());
}

/// Starts the benchmark and waits until its workers drain.
async fn drains(directory: &Path) -> Process {
    let process = Process::start(
        bench(directory, &["--scale", "0.05", "--runs", "100", "--only", "drain-4"]),
        temporary_directory().join("log"),
    );
    eventually("the workers of the drain", || {
        let logs = walk(directory).filter(|name| name.starts_with("worker-")).count();
        async move { logs == 4 }
    })
    .await;
    process
}

fn walk(directory: &Path) -> impl Iterator<Item = String> {
    let below = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = below.flat_map(|below| std::fs::read_dir(below).into_iter().flatten().flatten());
    files.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

#[tokio::test]
async fn a_benchmark_that_is_told_to_end_leaves_nothing() {
    let directory = temporary_directory();
    let mut process = drains(&directory).await;
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().await.code(), Some(1), "{}", process.log());
    assert!(is_gone(&directory), "something is left in {} or of its processes", directory.display());
}

#[tokio::test]
async fn a_benchmark_that_is_killed_leaves_nothing() {
    let directory = temporary_directory();
    drains(&directory).await.kill();
    eventually("the end of all that it left", || {
        let gone = is_gone(&directory);
        async move { gone }
    })
    .await;
}
