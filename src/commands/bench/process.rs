//! Processes of this same program: workers, the simulator, a producer. None outlives the benchmark.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::scratch::Scratch;
use crate::commands::report::Failure;

/// Time to leave in order; then it is killed.
pub(super) const LEAVING: Duration = Duration::from_secs(40);

/// What to start.
pub(super) struct Start<'a> {
    /// What it is, for messages.
    pub(super) what: &'static str,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// Its whole environment.
    pub(super) environment: &'a BTreeMap<String, OsString>,
    /// Limit of open files, by a shell's `ulimit`; none: that of this process.
    pub(super) open_files: Option<u32>,
}

/// A process. Killed when this is dropped.
pub(super) struct Process {
    what: &'static str,
    child: Child,
    /// Its standard input: it leaves when this closes.
    parent: Option<ChildStdin>,
    lines: Option<tokio::io::Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
    scratch: Arc<Scratch>,
    id: u32,
}

impl Process {
    /// Starts it. What it says on standard error goes to a file.
    pub(super) fn start(scratch: &Arc<Scratch>, start: Start<'_>) -> Result<Self, Failure> {
        let cannot = |error| Failure::failed(format_args!("cannot start a {} process: {error}", start.what));
        let program = std::env::current_exe().map_err(cannot)?;
        let log = scratch.path().join(format!("{}-{}.log", start.what, uuid::Uuid::now_v7().simple()));
        let mut command = match start.open_files {
            None => Command::new(program),
            Some(limit) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]).arg(program);
                shell
            }
        };
        command
            .args(start.arguments)
            .env_clear()
            .envs(start.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(cannot)?)
            // Ctrl-C goes to the benchmark, which ends them.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(cannot)?;
        let id = child.id().unwrap_or_default();
        scratch.started(id);
        let parent = child.stdin.take();
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Self { what: start.what, child, parent, lines, log, scratch: Arc::clone(scratch), id })
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The next line of its standard output.
    pub(super) async fn line(&mut self, patience: Duration) -> Result<String, Failure> {
        let read = async {
            match &mut self.lines {
                Some(lines) => lines.next_line().await,
                None => Ok(None),
            }
        };
        match tokio::time::timeout(patience, read).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err(self.failed("ended without an answer")),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.failed("did not answer")),
        }
    }

    /// Whether it has ended, well or not.
    pub(super) fn has_ended(&mut self) -> Result<bool, Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(false),
            Ok(Some(status)) if status.success() => Ok(true),
            Ok(Some(status)) => Err(self.ended_with(status)),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    /// Waits until it ends by itself.
    pub(super) async fn finish(mut self, patience: Duration) -> Result<(), Failure> {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended_with(status)),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.failed(&format!("did not end in {} s", patience.as_secs()))),
        }
    }

    /// Tells it to leave.
    pub(super) fn leave(&mut self) {
        drop(self.parent.take());
    }

    /// Tells it to leave, and waits for that.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.leave();
        self.finish(LEAVING).await
    }

    /// kill -9: gone when this returns.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await.map_err(|error| self.failed(&error.to_string()))
    }

    fn ended_with(&self, status: ExitStatus) -> Failure {
        self.failed(&format!("ended with {status}"))
    }

    fn failed(&self, how: &str) -> Failure {
        Failure::failed(format_args!("a {} process {how}: {}", self.what, last_line(&self.log)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is not killed again.
        let _ = self.child.start_kill();
        self.scratch.ended(self.id);
    }
}

/// The last line that a process wrote to its log, which goes with the benchmark's directory.
fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    line.trim_start_matches("imagemill: ").to_owned()
}
