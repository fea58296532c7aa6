//! Worker processes of a command. They end when it ends, however it ends: each has a pipe as its standard input whose other
//! end is held here, and leaves in order when that closes.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::process::{Child, ChildStdin, Command};
use uuid::Uuid;

/// Restarts, over all workers, before the command gives up.
const MAX_RESTARTS: u32 = 5;

/// Before a worker that died is started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// Exit code of a worker that refuses its settings: the next one would as well.
const REFUSED: i32 = 2;

/// Why there are no workers any more.
#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    /// The program, or the file for what it says, cannot be had.
    #[error("cannot start a worker process: {0}")]
    Start(#[from] io::Error),
    /// It refuses its settings.
    #[error("the worker processes cannot start: {said}")]
    Refused {
        /// Its last line.
        said: String,
    },
    /// They die again and again.
    #[error("worker processes died {deaths} times, at last with {status}: {said}")]
    Died {
        /// How often.
        deaths: u32,
        /// How the last one ended.
        status: ExitStatus,
        /// Its last line.
        said: String,
    },
}

/// What the workers are to be.
#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// How many.
    pub count: u16,
    /// Their whole environment: settings and secrets.
    pub environment: BTreeMap<String, OsString>,
    /// Jobs of this task only; none: all jobs.
    pub task: Option<Uuid>,
    /// Where their warnings go; none: to standard error.
    pub log: Option<PathBuf>,
}

/// Worker processes. When this is dropped they leave in order.
#[derive(Debug)]
pub struct Workers {
    plan: WorkerPlan,
    program: PathBuf,
    places: Vec<Place>,
    deaths: u32,
    /// Length of the log before the first worker wrote to it.
    log_begins: u64,
}

#[derive(Debug)]
enum Place {
    Running {
        child: Box<Child>,
        _parent: ChildStdin,
    },
    /// Died; to be started again then.
    Waiting(Instant),
    /// Ended by itself, since nothing was left to do.
    Ended,
}

impl Workers {
    /// Starts them.
    pub fn start(plan: WorkerPlan) -> Result<Self, WorkersError> {
        let log_begins = match &plan.log {
            Some(log) => open(log)?.metadata()?.len(),
            None => 0,
        };
        let program = std::env::current_exe()?;
        let mut workers = Self { plan, program, places: Vec::new(), deaths: 0, log_begins };
        for _ in 0..workers.plan.count {
            let place = workers.start_one()?;
            workers.places.push(place);
        }
        Ok(workers)
    }

    /// Looks after them: one that died is started again, a few times. Returns whether all have ended by themselves.
    pub fn look_after(&mut self) -> Result<bool, WorkersError> {
        for index in 0..self.places.len() {
            match &mut self.places[index] {
                Place::Running { child, .. } => {
                    if let Some(status) = child.try_wait()? {
                        self.places[index] = self.after_end(status)?;
                    }
                }
                Place::Waiting(until) if *until <= Instant::now() => self.places[index] = self.start_one()?,
                Place::Waiting(_) | Place::Ended => {}
            }
        }
        Ok(self.places.iter().all(|place| matches!(place, Place::Ended)))
    }

    /// All ended though there is something left to do: one goes on. It counts as a death, so that it does not go on for ever.
    pub fn go_on(&mut self) -> Result<(), WorkersError> {
        self.count_death(ExitStatus::default())?;
        if let Some(place) = self.places.first_mut() {
            *place = Place::Waiting(Instant::now() + RESTART_AFTER);
        }
        Ok(())
    }

    /// Tells them to leave, and waits for it, at most so long or until `hurry`; then they are killed.
    pub async fn stop(mut self, patience: Duration, hurry: impl Future<Output = ()>) {
        let mut children: Vec<Box<Child>> = self
            .places
            .drain(..)
            .filter_map(|place| match place {
                // The pipe is dropped here, which is how it is told; all of them before the first is waited for.
                Place::Running { child, .. } => Some(child),
                Place::Waiting(_) | Place::Ended => None,
            })
            .collect();
        let all_left = futures::future::join_all(children.iter_mut().map(|child| child.wait()));
        tokio::select! {
            _ = all_left => return,
            () = tokio::time::sleep(patience) => {}
            () = hurry => {}
        }
        for child in &mut children {
            // One that has left is not killed.
            if !matches!(child.try_wait(), Ok(Some(_))) {
                tracing::warn!("a worker process is killed; what it held waits for its rescue");
                if let Err(error) = child.kill().await {
                    tracing::warn!(%error, "a worker process could not be killed");
                }
            }
        }
    }

    fn after_end(&mut self, status: ExitStatus) -> Result<Place, WorkersError> {
        if status.success() {
            return Ok(Place::Ended);
        }
        if status.code() == Some(REFUSED) {
            return Err(WorkersError::Refused { said: self.last_line() });
        }
        tracing::warn!(%status, "a worker process died; it is started again");
        self.count_death(status)?;
        Ok(Place::Waiting(Instant::now() + RESTART_AFTER))
    }

    fn count_death(&mut self, status: ExitStatus) -> Result<(), WorkersError> {
        self.deaths += 1;
        if self.deaths > MAX_RESTARTS {
            return Err(WorkersError::Died { deaths: self.deaths, status, said: self.last_line() });
        }
        Ok(())
    }

    fn start_one(&self) -> Result<Place, WorkersError> {
        let mut command = Command::new(&self.program);
        command.args(["worker", "--until-empty", "--with-parent"]);
        if let Some(task) = self.plan.task {
            command.args(["--task", &task.to_string()]);
        }
        command
            .env_clear()
            .envs(&self.plan.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(match &self.plan.log {
                Some(log) => Stdio::from(open(log)?),
                None => Stdio::inherit(),
            })
            // Ctrl-C goes to the command, which tells them once: a second signal would end them at once.
            .process_group(0);
        let mut child = command.spawn()?;
        let parent = child.stdin.take().ok_or_else(|| io::Error::other("its standard input is no pipe"))?;
        Ok(Place::Running { child: Box::new(child), _parent: parent })
    }

    /// The last line that a worker wrote to the log.
    fn last_line(&self) -> String {
        let Some(log) = &self.plan.log else { return "see above".to_owned() };
        let read = || -> io::Result<String> {
            let mut file = File::open(log)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.log_begins.max(end.saturating_sub(16 << 10))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        format!("{} (see {})", line.trim_start_matches("imagemill: "), log.display())
    }
}

fn open(log: &PathBuf) -> io::Result<File> {
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(log)
}
