//! `imagemill psql`: a `psql` on the database that imagemill uses, wherever that is.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};
use url::Url;

use crate::db::private::{PrivateServer, PrivateServerError, SearchPath};

/// Why `psql` did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PsqlError {
    /// There is no `psql` on this machine.
    #[error(
        "no psql on this machine: install it (Debian, Ubuntu: `sudo apt-get install postgresql-client`; \
         Fedora: `sudo dnf install postgresql`; macOS: `brew install libpq && brew link --force libpq`)"
    )]
    NoProgram,
    /// The configured URL is none. Its text is not quoted, as it may hold a password.
    #[error("the database's URL cannot be read: write it as postgres://user:password@host:5432/database")]
    Url(#[source] url::ParseError),
    /// `psql` is there and cannot be run.
    #[error("cannot run {}: see that it is executable", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The private server would not start or stop.
    #[error(transparent)]
    PrivateServer(#[from] PrivateServerError),
}

/// Runs `psql` on the configured database, or, where there is none, on the private server in
/// `private_directory`, which is started if it does not run and stopped if nobody else uses it.
/// `arguments` go to `psql` as they are. Returns the exit code of `psql`.
pub async fn psql(
    database_url: Option<&SecretString>,
    private_directory: Option<&Path>,
    arguments: &[OsString],
) -> Result<i32, PsqlError> {
    if let Some(url) = database_url {
        let program = SearchPath::default().client_program("psql").ok_or(PsqlError::NoProgram)?;
        return run(&program, url, arguments).await;
    }
    let server = PrivateServer::acquire(private_directory).await?;
    let beside = server.bin_directory().map(|directory| directory.join("psql"));
    let program = beside.filter(|program| program.is_file()).or_else(|| SearchPath::default().client_program("psql"));
    let ended = match program {
        Some(program) => run(&program, &server.url(), arguments).await,
        None => Err(PsqlError::NoProgram),
    };
    server.release().await?;
    ended
}

/// Runs the program with the URL's parts in its environment, where other users do not see them.
async fn run(program: &Path, url: &SecretString, arguments: &[OsString]) -> Result<i32, PsqlError> {
    let url = Url::parse(url.expose_secret()).map_err(PsqlError::Url)?;
    let failed = |source| PsqlError::Run { program: program.to_path_buf(), source };
    let mut command = Command::new(program);
    command
        .args(arguments)
        // These two would win over the host that we name.
        .env_remove("PGSERVICE")
        .env_remove("PGHOSTADDR")
        .envs(environment(&url));
    // Installed before there is a child: from here on a signal does not end us before it.
    let (mut interrupt, mut quit, mut terminate, mut hang_up) = (
        signal(SignalKind::interrupt()).map_err(failed)?,
        signal(SignalKind::quit()).map_err(failed)?,
        signal(SignalKind::terminate()).map_err(failed)?,
        signal(SignalKind::hangup()).map_err(failed)?,
    );
    let mut child = command.spawn().map_err(failed)?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(failed)?,
            // The terminal sends these two to psql as well, which cancels its query and goes on.
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = terminate.recv() => end(&child),
            _ = hang_up.recv() => end(&child),
        }
    };
    Ok(exit_code(status))
}

/// Asks the child to end.
fn end(child: &Child) {
    let process = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    if let Some(process) = process
        && let Err(error) = rustix::process::kill_process(process, rustix::process::Signal::TERM)
    {
        tracing::warn!(%error, "psql could not be told to end");
    }
}

/// The code as a shell would give it: 128 and the signal's number for one that a signal ended.
fn exit_code(status: ExitStatus) -> i32 {
    let by_signal = || status.signal().map_or(1, |signal| 128 + signal);
    status.code().unwrap_or_else(by_signal)
}

/// The variables of libpq that say what the URL says, in the spelling of libpq or that of sqlx.
fn environment(url: &Url) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    let mut say = |name, value: &str| {
        if !value.is_empty() {
            variables.push((name, value.to_owned()));
        }
    };
    say("PGHOST", &decoded(url.host_str().unwrap_or_default()));
    say("PGPORT", &url.port().map_or_else(String::new, |port| port.to_string()));
    say("PGUSER", &decoded(url.username()));
    say("PGPASSWORD", &decoded(url.password().unwrap_or_default()));
    say("PGDATABASE", &decoded(url.path().trim_start_matches('/')));
    let mut options = Vec::new();
    for (key, value) in url.query_pairs() {
        let name = match &*key {
            "host" => "PGHOST",
            "hostaddr" => "PGHOSTADDR",
            "port" => "PGPORT",
            "user" => "PGUSER",
            "password" => "PGPASSWORD",
            "dbname" => "PGDATABASE",
            "application_name" => "PGAPPNAME",
            "connect_timeout" => "PGCONNECT_TIMEOUT",
            "sslmode" | "ssl-mode" => "PGSSLMODE",
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "PGSSLROOTCERT",
            "sslcert" | "ssl-cert" => "PGSSLCERT",
            "sslkey" | "ssl-key" => "PGSSLKEY",
            "options" => {
                options.push(value.into_owned());
                continue;
            }
            other => {
                let setting = other.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']'));
                options.extend(setting.map(|setting| format!("-c {setting}={value}")));
                continue;
            }
        };
        say(name, &value);
    }
    say("PGOPTIONS", &options.join(" "));
    variables
}

/// A part of a URL without its percent signs.
fn decoded(part: &str) -> String {
    // In a form `+` is a space and `&` ends a value; here they are themselves.
    let form = format!("x={}", part.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(form.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Vec<(&'static str, String)> {
        let mut variables = environment(&Url::parse(url).unwrap());
        // Stable: of two of one name the later counts.
        variables.sort_by_key(|(name, _)| *name);
        variables
    }

    #[test]
    fn every_part_of_a_url_becomes_a_variable_of_libpq() {
        let expected = [
            ("PGDATABASE", "my db"),
            ("PGHOST", "db.example"),
            ("PGOPTIONS", "-c search_path=imagemill"),
            ("PGPASSWORD", "a+b&c/d e"),
            ("PGPORT", "6543"),
            ("PGSSLMODE", "require"),
            ("PGUSER", "me@home"),
        ];
        let url = "postgres://me%40home:a+b&c%2Fd%20e@db.example:6543/my%20db\
                   ?ssl-mode=require&statement-cache-capacity=0&options[search_path]=imagemill";
        assert_eq!(of(url), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn a_socket_directory_is_a_host() {
        for url in ["postgres://%2Frun%2Fpg:5433/d", "postgres://localhost:5433/d?host=/run/pg"] {
            let host = of(url).into_iter().rfind(|(name, _)| *name == "PGHOST");
            assert_eq!(host, Some(("PGHOST", "/run/pg".to_owned())), "{url}");
        }
    }
}
