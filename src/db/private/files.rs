//! Files and directories with the right owners and modes.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    account::is_root,
    error::{PrivateServerError, file_error},
};

/// Makes a directory and those above it that are missing. The account of the server passes through what root makes,
/// whatever root's umask; nobody else needs to.
pub(super) fn make_reachable_directory(path: &Path) -> Result<(), PrivateServerError> {
    let mode = if is_root() { 0o711 } else { 0o700 };
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(directory) {
            Ok(()) => fs::set_permissions(directory, Permissions::from_mode(mode)),
            // By another command that began at once with this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(file_error("make the directory", directory))?;
    }
    Ok(())
}

/// Makes a directory that only its owner can enter, or sees that the one that is there is such a one.
pub(super) fn make_private_directory(path: &Path) -> Result<(), PrivateServerError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Below a directory for temporary files anybody could have put something of this name.
            let metadata = fs::symlink_metadata(path).map_err(file_error("look at", path))?;
            let mine = metadata.uid() == rustix::process::geteuid().as_raw() || is_root();
            if !metadata.is_dir() || !mine {
                return Err(file_error("use", path)(io::ErrorKind::AlreadyExists.into()));
            }
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(file_error("close to others", path))
        }
        Err(error) => Err(file_error("make the directory", path)(error)),
    }
}

/// Removes a directory into which an orphan of a killed command may still be writing: it ends when it finds
/// its files gone.
pub(super) fn remove_all(path: &Path) -> Result<(), PrivateServerError> {
    let patience_ends = Instant::now() + Duration::from_secs(10);
    loop {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > patience_ends => {
                return Err(file_error("remove", path)(error));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Writes a file that only its owner can read; a file of that name that is there goes first.
pub(super) fn write_private_file(path: &Path, text: &str) -> Result<(), PrivateServerError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error("replace", path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(file_error("write", path))
}
