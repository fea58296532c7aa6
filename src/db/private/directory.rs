//! The directory of the private server: what lies where, its locks, its password and its port.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    account::{Account, is_root},
    error::{PrivateServerError, file_error},
    files::{make_private_directory, make_reachable_directory, remove_all, write_private_file},
};

/// Longest path of a Unix socket that every system takes (macOS 103, Linux 107 bytes).
const LONGEST_SOCKET_PATH: usize = 103;

/// A log larger than this is put aside at the next start, in bytes.
const LARGEST_LOG: u64 = 10 << 20;

/// The directory that holds all of a private server.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
    /// A short name that stands for the path.
    pub(super) digest: String,
}

impl Directory {
    /// Opens it, and makes it where it is missing. No path means the platform's place.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, PrivateServerError> {
        let path = match path {
            Some(path) => path.to_path_buf(),
            None => default_path()?,
        };
        make_reachable_directory(&path)?;
        let path = fs::canonicalize(&path).map_err(file_error("find", &path))?;
        let digest = hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..6]);
        Ok(Self { path, digest })
    }

    /// Where it is, without links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Held by the one command that starts or stops the server just now.
    pub(super) fn start_lock(&self) -> PathBuf {
        self.path.join("start.lock")
    }

    /// Held, shared, by every command that uses the server; the system frees it whatever ends the command.
    pub(super) fn users_lock(&self) -> PathBuf {
        self.path.join("users.lock")
    }

    /// The superuser's password; of this user alone.
    pub(super) fn password_file(&self) -> PathBuf {
        self.path.join("password")
    }

    /// What the server and its programs said.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The data of one major version.
    pub(super) fn data(&self, major: u32) -> PathBuf {
        self.path.join(format!("data-{major}"))
    }

    /// The major version whose data is here; the newest, if there are several.
    pub(super) fn data_major(&self) -> Result<Option<u32>, PrivateServerError> {
        let majors = self.names()?.into_iter();
        Ok(majors.filter_map(|name| name.strip_prefix("data-")?.parse().ok()).max())
    }

    /// An empty directory in which new data is made, to be renamed when it is whole. What killed
    /// commands left of theirs goes; the caller holds the start lock.
    pub(super) fn nursery(&self, account: &Account) -> Result<PathBuf, PrivateServerError> {
        for name in self.names()? {
            if name.starts_with("unfinished-") {
                let left = self.path.join(name);
                remove_all(&left)?;
            }
        }
        let path = self.path.join(format!("unfinished-{}", random_word()));
        make_private_directory(&path)?;
        account.give(&path)?;
        Ok(path)
    }

    /// A file that the account of the server can read, and no other but root.
    pub(super) fn hand_over(&self, name: &str, text: &str, account: &Account) -> Result<PathBuf, PrivateServerError> {
        let path = self.path.join(name);
        write_private_file(&path, text)?;
        account.give(&path)?;
        Ok(path)
    }

    /// The password, if there is one.
    pub(super) fn password(&self) -> Result<Option<String>, PrivateServerError> {
        let path = self.password_file();
        match fs::read_to_string(&path) {
            Ok(password) => Ok(Some(password.trim().to_owned()).filter(|password| !password.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error("read", &path)(error)),
        }
    }

    /// Writes a new password, whole or not at all.
    pub(super) fn new_password(&self) -> Result<String, PrivateServerError> {
        let password = random_word();
        let (path, draft) = (self.password_file(), self.path.join("password.new"));
        write_private_file(&draft, &password)?;
        fs::rename(&draft, &path).map_err(file_error("write", &path))?;
        Ok(password)
    }

    /// The port of last time if it is free and wanted, else one that the system chooses; remembered.
    pub(super) fn port(&self, prefer_last: bool) -> Result<u16, PrivateServerError> {
        let path = self.path.join("port");
        let last = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse::<u16>().ok())
            .filter(|port| prefer_last && *port != 0);
        let loopback = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match last.map(loopback) {
            Some(Ok(listener)) => Ok(listener),
            Some(Err(_)) | None => loopback(0),
        };
        let port =
            listener.and_then(|listener| listener.local_addr()).map_err(file_error("find a free port for", &self.path))?.port();
        write_private_file(&path, &port.to_string())?;
        Ok(port)
    }

    /// Opens the log to append to it.
    pub(super) fn open_log(&self) -> Result<File, PrivateServerError> {
        let path = self.log();
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(file_error("open", &path))
    }

    /// Puts a large log aside. Only while no server writes to it.
    pub(super) fn rotate_log(&self) -> Result<(), PrivateServerError> {
        let path = self.log();
        if self.open_log()?.metadata().is_ok_and(|log| log.len() > LARGEST_LOG) {
            fs::rename(&path, self.path.join("log.1")).map_err(file_error("put aside", &path))?;
        }
        Ok(())
    }

    /// Where the server's Unix socket is to be: in here, or, as its path must be short and plain, in
    /// the first directory for temporary files that the account can enter.
    pub(super) fn socket_directory(&self, account: &Account) -> Result<PathBuf, PrivateServerError> {
        let near = self.path.join("socket");
        let path = if fits_a_socket(&near) {
            near
        } else {
            let name = format!("imagemill-{}", self.digest);
            let places = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
            let mut far = near;
            for place in places {
                let candidate = place.join(&name);
                if fits_a_socket(&candidate) && account.can_enter(&place)? {
                    far = candidate;
                    break;
                }
            }
            far
        };
        make_private_directory(&path)?;
        account.give(&path)?;
        Ok(path)
    }

    fn names(&self) -> Result<Vec<String>, PrivateServerError> {
        let entries = fs::read_dir(&self.path).map_err(file_error("list", &self.path))?;
        entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()
            .map_err(file_error("list", &self.path))
    }
}

/// The platform's place for data of this user.
/// Whether a server was ever made there; nothing is made by asking.
pub(super) fn has_data(path: Option<&Path>) -> bool {
    let Some(path) = path.map(Path::to_path_buf).or_else(|| default_path().ok()) else { return false };
    let names = fs::read_dir(path).into_iter().flatten().flatten();
    names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("data-"))
}

fn default_path() -> Result<PathBuf, PrivateServerError> {
    if is_root() {
        // Root's own home is closed to the account that the server runs under.
        return Ok(PathBuf::from("/var/lib/imagemill/postgres"));
    }
    let absolute = |name| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .ok_or(PrivateServerError::NoDirectory)?;
    Ok(data.join("imagemill/postgres"))
}

/// Short, and without a character that a setting of PostgreSQL or a URL would have to quote.
fn fits_a_socket(directory: &Path) -> bool {
    let bytes = directory.as_os_str().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    bytes.len() + "/.s.PGSQL.65535.lock".len() <= LONGEST_SOCKET_PATH && bytes.iter().all(plain)
}

/// 128 random bits in hexadecimal.
fn random_word() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}
