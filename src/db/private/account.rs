//! Under whose account the server runs: our own, or, as PostgreSQL refuses root, an unprivileged one.

use std::{
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::error::{PrivateServerError, file_error};

/// Accounts that root runs the server under, the better first.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// What of our environment the server's programs get; PG* variables of the user are not meant for them.
const PASSED_ON: [&str; 4] = ["PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// The account of the server.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// Name, for messages.
    pub(super) name: String,
    /// User and group, when it is not our own account.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// Our own account, or as root: the owner of the data, if there is data, else the first candidate that exists.
    pub(super) fn choose(data: Option<&Path>) -> Result<Self, PrivateServerError> {
        if !is_root() {
            return Ok(Self { name: "this user".to_owned(), ids: None });
        }
        if let Some(data) = data {
            let metadata = data.metadata().map_err(file_error("look at", data))?;
            if metadata.uid() != 0 {
                return Ok(Self { name: format!("number {}", metadata.uid()), ids: Some((metadata.uid(), metadata.gid())) });
            }
        }
        for name in CANDIDATES {
            if let (Some(uid), Some(gid)) = (id("-u", name)?, id("-g", name)?) {
                return Ok(Self { name: name.to_owned(), ids: Some((uid, gid)) });
            }
        }
        Err(PrivateServerError::NoAccount)
    }

    /// Is it another account than ours?
    pub(super) fn is_other(&self) -> bool {
        self.ids.is_some()
    }

    /// A command that runs under this account, away from the current directory, which the account
    /// may not be able to read, and without the user's settings for clients.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file or directory of ours to the account.
    pub(super) fn give(&self, path: &Path) -> Result<(), PrivateServerError> {
        match self.ids {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)).map_err(file_error("change the owner of", path)),
            None => Ok(()),
        }
    }

    /// May the account enter that directory?
    pub(super) fn can_enter(&self, directory: &Path) -> Result<bool, PrivateServerError> {
        if !self.is_other() {
            return Ok(true);
        }
        let shell = PathBuf::from("/bin/sh");
        self.command(&shell)
            .args(["-c", "cd \"$1\"", "sh"])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map(|status| status.success())
            .map_err(|source| PrivateServerError::Program { program: shell, source })
    }
}

/// Are we root?
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A number of an account, if the account exists.
fn id(what: &str, name: &str) -> Result<Option<u32>, PrivateServerError> {
    let output = Command::new("id")
        .args([what, name])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| PrivateServerError::Program { program: PathBuf::from("id"), source })?;
    let number = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    Ok(number.filter(|_| output.status.success()))
}
