//! Running PostgreSQL's own programs.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{
    directory::Directory,
    error::{PrivateServerError, file_error},
};

/// Runs a program, its output in the log; an error quotes what it said. A server that it leaves running writes to
/// the same log.
pub(super) fn run(
    directory: &Directory,
    mut command: Command,
    name: &str,
    input: Option<&str>,
) -> Result<(), PrivateServerError> {
    let log = directory.log();
    let mut output = directory.open_log()?;
    let begin = output.seek(SeekFrom::End(0)).map_err(file_error("read", &log))?;
    let copy = || output.try_clone().map_err(file_error("open", &log));
    command.stdout(copy()?).stderr(copy()?);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let program = PathBuf::from(command.get_program());
    let failed = |source| PrivateServerError::Program { program, source };
    let status = command.spawn().and_then(|mut child| {
        let written = match (input, child.stdin.take()) {
            (Some(input), Some(mut stdin)) => stdin.write_all(input.as_bytes()),
            _ => Ok(()),
        };
        let status = child.wait();
        written.and(status)
    });
    if status.map_err(failed)?.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    File::open(&log)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(begin))?;
            file.read_to_end(&mut said)
        })
        .map_err(file_error("read", &log))?;
    Err(PrivateServerError::Failed { program: name.to_owned(), said: telling_line(&String::from_utf8_lossy(&said)), log })
}

/// The first line that names an error, else the last.
fn telling_line(said: &str) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = |line: &&str| ["FATAL:", "error:", "PANIC:"].iter().any(|word| line.contains(word));
    let line = lines.clone().find(telling).or_else(|| lines.next_back());
    line.unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::telling_line;

    #[test]
    fn of_many_lines_the_one_that_names_the_error_is_told() {
        let said = "LOG:  starting\nFATAL:  no room\nLOG:  shut down\npg_ctl: could not start server\n";
        assert_eq!(telling_line(said), "FATAL:  no room");
        assert_eq!(telling_line("one\n\ntwo\n"), "two");
        assert_eq!(telling_line(""), "it said nothing");
    }
}
