//! The PostgreSQL server programs of this machine.

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use super::error::PrivateServerError;

/// The oldest major version that will do.
pub const OLDEST_MAJOR: u32 = 14;

/// Where packages put the server programs when they are not on PATH. A `*` stands for part of one name.
const PLACES: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Library/PostgreSQL/*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// Where to look for the server programs.
#[derive(Debug, Clone)]
pub struct SearchPath {
    /// Directories in the form of the environment variable PATH: looked at for `postgres`, and for
    /// every `pg_config`, which is asked.
    pub path: Option<OsString>,
    /// Further directories; a `*` stands for part of one name.
    pub places: Vec<PathBuf>,
}

impl Default for SearchPath {
    /// PATH, and the places of Debian, Fedora, Alpine, Homebrew and the installers for macOS.
    fn default() -> Self {
        let mut places: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
        if let Some(prefix) = std::env::var_os("HOMEBREW_PREFIX") {
            places.push(PathBuf::from(prefix).join("opt/postgresql*/bin"));
        }
        Self { path: std::env::var_os("PATH"), places }
    }
}

impl SearchPath {
    /// A program for clients, such as `psql`: one on PATH, else the newest that lies beside a server.
    pub fn client_program(&self, name: &str) -> Option<PathBuf> {
        let on_path = on_path(name, self).into_iter().next();
        on_path
            .or_else(|| find(self).into_iter().map(|installation| installation.program(name)).find(|program| program.is_file()))
    }
}

/// The server programs of one version, in one directory.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    /// Where `postgres`, `initdb` and `pg_ctl` are.
    pub(super) bin_directory: PathBuf,
    /// Major version.
    pub(super) major: u32,
    minor: u32,
}

impl Installation {
    /// The full path of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin_directory.join(name)
    }

    /// apalis needs hstore; packages that split off contrib leave it out.
    fn has_contrib(&self) -> bool {
        let bin = &self.bin_directory;
        let asked = ask(&bin.join("pg_config"), "--sharedir").map(PathBuf::from);
        let major = self.major;
        // pg_config is part of the development package in some distributions, so guess as well.
        let guesses = [
            format!("../../../../share/postgresql/{major}"),
            "../share/postgresql".to_owned(),
            format!("../share/postgresql@{major}"),
            "../share/pgsql".to_owned(),
            "../share".to_owned(),
            format!("../../share/postgresql{major}"),
        ];
        asked
            .into_iter()
            .chain(guesses.iter().map(|guess| bin.join(guess)))
            .any(|share| share.join("extension/hstore.control").is_file())
    }
}

/// Every installation on the search path, newest first, however old.
pub(super) fn find(search: &SearchPath) -> Vec<Installation> {
    let mut directories = Vec::new();
    for server in on_path("postgres", search) {
        // Packages link the programs into a directory on PATH; their companions are beside the original.
        let server = fs::canonicalize(&server).unwrap_or(server);
        directories.extend(server.parent().map(Path::to_path_buf));
    }
    for config in on_path("pg_config", search) {
        directories.extend(ask(&config, "--bindir").map(PathBuf::from));
    }
    for place in &search.places {
        directories.extend(expand(place));
    }
    let mut directories: Vec<PathBuf> = directories.iter().filter_map(|directory| fs::canonicalize(directory).ok()).collect();
    directories.sort();
    directories.dedup();
    let mut found: Vec<Installation> = directories.into_iter().filter_map(inspect).collect();
    found.sort_by_key(|installation| std::cmp::Reverse((installation.major, installation.minor)));
    found
}

/// The installation for new data: the newest with its contrib files.
pub(super) fn newest(search: &SearchPath) -> Result<Installation, PrivateServerError> {
    let found = find(search);
    let (able, old): (Vec<_>, Vec<_>) = found.into_iter().partition(|installation| installation.major >= OLDEST_MAJOR);
    let Some(first) = able.first() else {
        let found = old.first().map_or_else(String::new, |installation| {
            let bin = installation.bin_directory.display();
            format!(", only version {} in {bin}", installation.major)
        });
        return Err(PrivateServerError::NoBinaries { found });
    };
    able.iter()
        .find(|installation| installation.has_contrib())
        .cloned()
        .ok_or_else(|| PrivateServerError::NoContrib { major: first.major, bin_directory: first.bin_directory.clone() })
}

/// The installation that can read the data of that major version, which lies in `data`.
pub(super) fn of_major(search: &SearchPath, major: u32, data: &Path) -> Result<Installation, PrivateServerError> {
    let mut able: Vec<_> = find(search).into_iter().filter(|installation| installation.major == major).collect();
    let whole = able.iter().position(Installation::has_contrib);
    match (whole, able.first()) {
        (Some(index), _) => Ok(able.swap_remove(index)),
        (None, Some(first)) => Err(PrivateServerError::NoContrib { major, bin_directory: first.bin_directory.clone() }),
        (None, None) => Err(PrivateServerError::BinariesGone { major, data: data.to_path_buf() }),
    }
}

fn on_path(name: &str, search: &SearchPath) -> Vec<PathBuf> {
    // `which` fails when it finds nothing, and that is an answer here.
    which::which_in_all(name, search.path.as_ref(), "/").map_or_else(|_| Vec::new(), Iterator::collect)
}

fn inspect(bin_directory: PathBuf) -> Option<Installation> {
    let whole = ["postgres", "initdb", "pg_ctl"].iter().all(|program| bin_directory.join(program).is_file());
    if !whole {
        return None;
    }
    let said = ask(&bin_directory.join("postgres"), "--version")?;
    let (major, minor) = parse_version(&said)?;
    Some(Installation { bin_directory, major, minor })
}

/// The first line that a program answers, if it runs at all.
fn ask(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            said.lines().next().map(|line| line.trim().to_owned())
        }
        Ok(output) => {
            tracing::debug!(program = %program.display(), status = %output.status, "passed over");
            None
        }
        Err(error) => {
            tracing::debug!(program = %program.display(), %error, "passed over");
            None
        }
    }
}

/// `postgres (PostgreSQL) 15.13 (Debian 15.13-1)` is (15, 13); `17beta1` is (17, 0).
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let version = said.split("(PostgreSQL)").nth(1)?.split_whitespace().next()?;
    let mut parts = version.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit());
        part[..digits.unwrap_or(part.len())].parse().ok()
    });
    let major = parts.next()??;
    Some((major, parts.next().flatten().unwrap_or(0)))
}

/// The directories that a path with `*` in its names stands for.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::new()];
    for component in pattern.components() {
        let star = match component {
            Component::Normal(name) => name.to_str().and_then(|name| name.split_once('*')),
            _ => None,
        };
        paths = match star {
            None => paths.iter().map(|path| path.join(component)).collect(),
            Some((before, after)) => paths
                .iter()
                // A place that is not there, or is closed to us, holds nothing for us.
                .filter_map(|path| fs::read_dir(path).ok())
                .flatten()
                .filter_map(Result::ok)
                .filter(|entry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    name.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
                })
                .map(|entry| entry.path())
                .collect(),
        };
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_of_releases_and_of_tests_are_read() {
        let debian = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)";
        assert_eq!(parse_version(debian), Some((15, 13)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(parse_version("postgres (PostgreSQL) 9.6.24"), Some((9, 6)));
        assert_eq!(parse_version("something else"), None);
    }
}
