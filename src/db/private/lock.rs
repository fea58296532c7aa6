//! Locks between commands: the system frees them whatever ends the command that holds one.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::error::{PrivateServerError, file_error};

/// How long a command waits for another that starts or stops the server.
const PATIENCE: Duration = Duration::from_mins(2);

/// How to hold a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Beside others that hold it so.
    Shared,
    /// Alone.
    Exclusive,
}

/// Takes the lock that the file at `path` stands for, and waits for it within reason.
pub(super) fn take(path: &Path, hold: Hold) -> Result<File, PrivateServerError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .mode(0o600)
        .open(path)
        .map_err(file_error("open", path))?;
    let patience_ends = Instant::now() + PATIENCE;
    loop {
        let taken = match hold {
            Hold::Shared => file.try_lock_shared(),
            Hold::Exclusive => file.try_lock(),
        };
        match taken {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(file_error("lock", path)(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < patience_ends => {
                thread::sleep(Duration::from_millis(25));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(PrivateServerError::Busy { lock: path.to_path_buf(), seconds: PATIENCE.as_secs() });
            }
        }
    }
}
