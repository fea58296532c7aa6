//! The directory of one run, and the shell that looks after it: whatever ends the benchmark, a kill included, its server
//! and processes are ended and the directory is removed.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use crate::commands::report::Failure;

/// What the shell does. `$1` is the directory. Its standard input says which processes run; its end is the end of the
/// benchmark, however that came.
const WATCH: &str = r#"
trap '' HUP INT TERM
running=' '
while read -r word process; do
    case $word in
        started) running="$running$process " ;;
        ended) running=$(printf '%s' "$running" | sed "s/ $process / /") ;;
    esac
done
for process in $running; do kill -KILL "$process"; done
files() { find "$1" -name postmaster.pid 2>/dev/null; }
files "$1" | while IFS= read -r file; do kill -QUIT "$(head -n 1 "$file")"; done
files "$1" | while IFS= read -r file; do
    process=$(head -n 1 "$file")
    tries=0
    while [ -e "$file" ] && kill -0 "$process" && [ "$tries" -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
done
rm -rf "$1"
"#;

/// The directory.
pub(super) struct Scratch {
    path: PathBuf,
    shell: Child,
    words: Mutex<Option<ChildStdin>>,
}

impl Scratch {
    /// Makes it below `place`, or where temporary files are.
    pub(super) fn make(place: Option<&Path>) -> Result<Self, Failure> {
        let place = match place {
            Some(place) => std::path::absolute(place).map_err(Failure::usage)?,
            // Root's own place for temporary files may be closed to the server's account.
            None if rustix::process::geteuid().is_root() => PathBuf::from("/tmp"),
            None => std::env::temp_dir(),
        };
        let path = place.join(format!("imagemill-bench-{}", hex::encode(rand::random::<[u8; 6]>())));
        let made = fs::create_dir_all(&place).and_then(|()| fs::create_dir(&path));
        made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o711))).map_err(|error| {
            Failure::failed(format_args!("cannot make {}: {error}; name another place with --directory", path.display()))
        })?;
        let started = Command::new("/bin/sh")
            .args(["-c", WATCH, "sh"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match started {
            Ok(mut shell) => {
                let words = Mutex::new(shell.stdin.take());
                Ok(Self { path, shell, words })
            }
            Err(error) => {
                // Nothing is in it yet.
                let _ = fs::remove_dir(&path);
                Err(Failure::failed(format_args!("cannot start /bin/sh: {error}")))
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A process runs, to be ended with the benchmark.
    pub(super) fn started(&self, process: u32) {
        self.say("started", process);
    }

    /// It has ended: its number may be another's by now.
    pub(super) fn ended(&self, process: u32) {
        self.say("ended", process);
    }

    fn say(&self, word: &str, process: u32) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = words.as_mut()
            && let Err(error) = writeln!(words, "{word} {process}")
        {
            tracing::warn!(%error, "the shell that looks after the benchmark's directory is gone");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The end of its input is the shell's sign. What runs is ended by it, and the directory removed.
        self.words.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "the shell that removes the benchmark's directory was lost");
        }
    }
}
