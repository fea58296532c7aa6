//! The directory of one run of the tests, and the shell that removes it.
//!
//! A test process has no hook at its end, so a small shell watches it: the end of its standard input is the end of
//! the test process, however that came. Then it stops every server below the directory and removes everything.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// What the watching shell does. `$1` is the run's directory. A server's file goes when the server has stopped;
/// its process may stay on as a zombie where nobody reaps the orphans.
const WATCH: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
files() { find "$1" \( -name postmaster.pid -o -name pgbouncer.pid \) 2>/dev/null; }
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

/// The run's directory.
struct RunDirectory {
    path: PathBuf,
    /// Kept open until the process ends, which is the watching shell's sign.
    _watch: (Child, ChildStdin),
}

static RUN_DIRECTORY: LazyLock<RunDirectory> = LazyLock::new(RunDirectory::make);

/// Directories of this run so far.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// A new directory that is removed when the run has ended, and servers in it stopped, whatever ends the run. Its
/// path is short, as that of a socket must be, and the account that root runs a server under can enter it.
pub(crate) fn temporary_directory() -> PathBuf {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    // All of one length, so that none is the beginning of another: tests look for processes by what names their directory.
    let path = RUN_DIRECTORY.path.join(format!("{number:05}"));
    fs::create_dir(&path).expect("make a temporary directory");
    fs::set_permissions(&path, Permissions::from_mode(0o711)).expect("open it to be entered");
    path
}

impl RunDirectory {
    fn make() -> Self {
        let usual = std::env::temp_dir();
        // Root's own place for temporary files may be closed to others.
        let place =
            if rustix::process::geteuid().is_root() || usual.as_os_str().len() > 30 { PathBuf::from("/tmp") } else { usual };
        let path = tempfile::Builder::new().prefix("imagemill-it-").tempdir_in(place).expect("make the run's directory").keep();
        // Not at its making, where the umask would count.
        fs::set_permissions(&path, Permissions::from_mode(0o711)).expect("open it to be entered");
        let mut shell = Command::new("/bin/sh")
            .args(["-c", WATCH, "sh"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            // Else whoever reads the output of the tests would wait for the shell as well.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start the watching shell");
        let stdin = shell.stdin.take().expect("its standard input is a pipe");
        Self { path, _watch: (shell, stdin) }
    }
}
