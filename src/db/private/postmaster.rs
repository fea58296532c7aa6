//! Is a server running on that data, and where does it listen? What a killed server left is told apart.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::error::{PrivateServerError, file_error};

/// No process has this number, on any system.
const NO_PROCESS: &str = "2147483646";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Directory of the Unix socket.
    pub(super) socket_directory: PathBuf,
    /// Port on loopback, and number of the socket.
    pub(super) port: u16,
}

/// What `postmaster.pid` and the system say together.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No server runs on the data.
    Stopped,
    /// One runs and listens.
    Running(Endpoint),
    /// One is coming up or going down.
    Between,
}

/// The lines of `postmaster.pid` that we need.
#[derive(Debug, PartialEq, Eq)]
struct PidFile {
    process: i32,
    /// Missing while the server is coming up.
    endpoint: Option<Endpoint>,
}

/// The state of the server on `data`, whose command line bears `mark`.
///
/// `postmaster.pid` is never removed: PostgreSQL does that itself, once it has seen that no backend of the
/// dead server is left. Only where the number in it belongs to another process by now (as happens after
/// a restart of a container) it is made one that no process has, as PostgreSQL would refuse to start.
pub(super) fn state(data: &Path, mark: &str) -> Result<State, PrivateServerError> {
    let path = data.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Stopped),
        Err(error) => return Err(file_error("read", &path)(error)),
    };
    let Some(file) = parse(&text) else {
        // Just being written, or cut short by a full disk: PostgreSQL judges the latter itself.
        return Ok(if text.trim().is_empty() { State::Stopped } else { State::Between });
    };
    if let Some(endpoint) = &file.endpoint {
        let socket = format!(".s.PGSQL.{}", endpoint.port);
        if UnixStream::connect(endpoint.socket_directory.join(socket)).is_ok() {
            return Ok(State::Running(endpoint.clone()));
        }
    }
    if is_server(file.process, mark) {
        return Ok(State::Between);
    }
    if is_alive(file.process) {
        disarm(&path, &text, file.endpoint.as_ref())?;
    }
    Ok(State::Stopped)
}

fn parse(text: &str) -> Option<PidFile> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let process = lines.first()?.parse::<i32>().ok()?;
    let endpoint = (|| {
        let socket_directory = lines.get(4).filter(|line| !line.is_empty())?;
        Some(Endpoint { socket_directory: PathBuf::from(socket_directory), port: lines.get(3)?.parse().ok()? })
    })();
    Some(PidFile { process, endpoint })
}

/// Makes the left files name no process; the caller holds the start lock.
fn disarm(path: &Path, text: &str, endpoint: Option<&Endpoint>) -> Result<(), PrivateServerError> {
    tracing::warn!(file = %path.display(), "left by a dead server, its number is another process's by now");
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    fs::write(path, format!("{NO_PROCESS}\n{rest}")).map_err(file_error("write", path))?;
    if let Some(endpoint) = endpoint {
        for end in ["", ".lock"] {
            let name = format!(".s.PGSQL.{}{end}", endpoint.port);
            let left = endpoint.socket_directory.join(name);
            match fs::remove_file(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error("remove", &left)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

fn is_alive(process: i32) -> bool {
    rustix::process::Pid::from_raw(process).is_some_and(|process| {
        let answer = rustix::process::test_kill_process(process);
        answer != Err(rustix::io::Errno::SRCH)
    })
}

/// Is that process our server? Its command line bears the mark; the dead have none.
fn is_server(process: i32, mark: &str) -> bool {
    if let Ok(line) = fs::read(format!("/proc/{process}/cmdline")) {
        return String::from_utf8_lossy(&line).contains(mark);
    }
    // No /proc here, or no such process. A machine has the one or the other.
    Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &process.to_string()])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "23\n/d/data-15\n1753000000\n40123\n/d/socket\n127.0.0.1\n  5432001   7\nready   \n";

    #[test]
    fn the_file_of_a_running_server_says_where_it_listens() {
        let endpoint = Endpoint { socket_directory: PathBuf::from("/d/socket"), port: 40123 };
        let whole = parse(FILE).unwrap();
        assert_eq!((whole.process, whole.endpoint), (23, Some(endpoint)));
        let early = parse("23\n/d/data-15\n1753000000\n40123\n").unwrap();
        assert_eq!(early.endpoint, None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_left_file_whose_number_is_another_process_is_disarmed_and_keeps_its_other_lines() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("postmaster.pid");
        let rest = FILE.split_once('\n').unwrap().1;
        fs::write(&path, format!("{}\n{rest}", std::process::id())).unwrap();
        assert_eq!(state(data.path(), "no such mark").unwrap(), State::Stopped);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{NO_PROCESS}\n{rest}"));
    }

    #[test]
    fn a_left_file_of_a_dead_process_is_not_touched() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("postmaster.pid");
        let text = FILE.replacen("23", NO_PROCESS, 1);
        fs::write(&path, &text).unwrap();
        assert_eq!(state(data.path(), "no such mark").unwrap(), State::Stopped);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
