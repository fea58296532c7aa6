//! What can go wrong with the private server, each with the way out.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why there is no private server. Each message is one line; the cause, where there is one, is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateServerError {
    /// No server binaries of a version that will do.
    #[error(
        "no PostgreSQL {oldest} or later with its server programs is on this machine{found}: install it \
         (Debian, Ubuntu: `sudo apt-get install postgresql`; Fedora: `sudo dnf install postgresql-server \
         postgresql-contrib`; macOS: `brew install postgresql@17`), or set DATABASE_URL",
        oldest = super::binaries::OLDEST_MAJOR
    )]
    NoBinaries {
        /// What was found and is too old, as a clause that begins with a comma, or nothing.
        found: String,
    },
    /// The server binaries are there, the contrib files (hstore) are not.
    #[error(
        "PostgreSQL {major} in {} lacks its contrib files (no extension/hstore.control): install them \
         (Debian, Ubuntu: `sudo apt-get install postgresql-contrib`; Fedora: `sudo dnf install postgresql-contrib`; \
         macOS: `brew reinstall postgresql@{major}`), or set DATABASE_URL",
        bin_directory.display()
    )]
    NoContrib {
        /// Major version of the server.
        major: u32,
        /// Where its programs are.
        bin_directory: PathBuf,
    },
    /// There is data, and the binaries that can read it are gone.
    #[error(
        "the data in {} is of PostgreSQL {major}, whose server programs are not on this machine: install them \
         (Debian, Ubuntu: `sudo apt-get install postgresql-{major}`; Fedora: `sudo dnf install \
         postgresql{major}-server postgresql{major}-contrib`; macOS: `brew install postgresql@{major}`), \
         or move that directory away to begin with an empty database",
        data.display()
    )]
    BinariesGone {
        /// Major version of the data.
        major: u32,
        /// The data directory.
        data: PathBuf,
    },
    /// This user has no place for data.
    #[error("no place for the private server's data: set HOME, XDG_DATA_HOME or database.private_directory")]
    NoDirectory,
    /// PostgreSQL refuses root, and there is no other account.
    #[error(
        "PostgreSQL does not run as root, and neither account `postgres` nor `nobody` exists: add one \
         (`useradd --system postgres`), run imagemill as a normal user, or set DATABASE_URL"
    )]
    NoAccount,
    /// The account of the server may not enter the directory.
    #[error(
        "account `{account}`, under which root runs PostgreSQL, cannot enter {}: set database.private_directory \
         to a place that it can enter, or open the directories above with `chmod o+x`",
        directory.display()
    )]
    Unreachable {
        /// Name of the account.
        account: String,
        /// The directory that it cannot enter.
        directory: PathBuf,
    },
    /// The file system said no.
    #[error(
        "cannot {action} {}: see that this user may write there, or set database.private_directory",
        path.display()
    )]
    File {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another command has been starting or stopping the server for too long.
    #[error(
        "another imagemill has been starting or stopping the private server for {seconds} s: \
         see which process holds {} (`fuser {}`), end it and run this again",
        lock.display(), lock.display()
    )]
    Busy {
        /// The lock file.
        lock: PathBuf,
        /// How long this command waited, in seconds.
        seconds: u64,
    },
    /// A program could not be run.
    #[error("cannot run {}: see that it is installed and executable", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program of PostgreSQL ran and failed.
    #[error("{program} failed: {said}; the whole of it is at the end of {}", log.display())]
    Failed {
        /// Its name.
        program: String,
        /// The line of its output that says most.
        said: String,
        /// Where all its output is.
        log: PathBuf,
    },
    /// The server runs and does not become ready.
    #[error(
        "the private server is not ready after {seconds} s: it may be recovering (see {}); run this again",
        log.display()
    )]
    NotReady {
        /// How long this command waited, in seconds.
        seconds: u64,
        /// The server's log.
        log: PathBuf,
    },
    /// The password file was removed under a running server.
    #[error(
        "{} is gone while the private server runs: end the other imagemill commands and run this again, \
         which sets a new password",
        password.display()
    )]
    PasswordGone {
        /// Where the password was.
        password: PathBuf,
    },
    /// The server runs and does not let us in.
    #[error(
        "the private server refuses this command: see {}; if it is the password, remove {} \
         and run this again when no other imagemill runs",
        log.display(), password.display()
    )]
    Refused {
        /// The server's log.
        log: PathBuf,
        /// Where the password is kept.
        password: PathBuf,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
    /// The runtime went away while we waited.
    #[error("the start or stop of the private server was cut short: run this again")]
    CutShort(#[source] tokio::task::JoinError),
}

/// A closure for `map_err`: what was tried, and on what.
pub(super) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateServerError {
    let path = path.to_path_buf();
    move |source| PrivateServerError::File { action, path, source }
}
