//! PostgreSQL without set-up: a server of our own, from the machine's own programs.
//!
//! Its directory holds the data, which is kept between runs. Every command that uses the server holds a
//! shared lock while it does; starting and stopping happen under another lock. So two commands share one server,
//! the last to end stops it, and what a killed command left running is adopted by the next one, as
//! the system frees the locks of the dead.
//!
//! It listens on a Unix socket and on loopback, with a password on both.

mod account;
mod binaries;
mod cluster;
mod directory;
mod error;
mod files;
mod lock;
mod postmaster;
mod share;
mod tool;

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

pub use binaries::{OLDEST_MAJOR, SearchPath};
pub use error::PrivateServerError;

use cluster::NAME;
use postmaster::Endpoint;
use share::Share;

/// How often a server that goes away while it is being adopted is looked for anew.
const ADOPTIONS: u32 = 3;

/// How to run a private server. The default keeps every commit; [`ServerOptions::throw_away`] is for tests.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Commits survive a crash of the machine. Off is faster, and only for data that nobody will miss.
    pub durable: bool,
    /// Connections at most, of all commands together.
    pub max_connections: u32,
    /// Memory of the server for pages, in MiB.
    pub shared_buffers_mib: u32,
    /// Where to look for the server programs.
    pub search: SearchPath,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { durable: true, max_connections: 200, shared_buffers_mib: 256, search: SearchPath::default() }
    }
}

impl ServerOptions {
    /// For a server whose data is removed at the end: nothing is synced, many connections.
    #[must_use]
    pub fn throw_away() -> Self {
        Self { durable: false, max_connections: 500, shared_buffers_mib: 128, search: SearchPath::default() }
    }
}

/// A share in the private server. The server runs as long as any process holds one.
///
/// End it with [`PrivateServer::release`]; a drop does the same as well as it can, and blocks meanwhile.
#[derive(Debug)]
#[must_use = "the server may stop when this is dropped"]
pub struct PrivateServer {
    /// None once released.
    share: Option<Share>,
    endpoint: Endpoint,
    password: SecretString,
}

impl PrivateServer {
    /// A share in the private server in that directory, started if it does not run. No directory means
    /// `$XDG_DATA_HOME/imagemill/postgres`, or `~/.local/share/imagemill/postgres`, and for root
    /// `/var/lib/imagemill/postgres`.
    pub async fn acquire(directory: Option<&Path>) -> Result<Self, PrivateServerError> {
        Self::acquire_with(directory, &ServerOptions::default()).await
    }

    /// The same with other options. They count for the command that starts the server.
    pub async fn acquire_with(directory: Option<&Path>, options: &ServerOptions) -> Result<Self, PrivateServerError> {
        let mut adoption = 1;
        loop {
            let (directory, options) = (directory.map(Path::to_path_buf), options.clone());
            let mut server = tokio::task::spawn_blocking(move || Self::acquire_blocking(directory.as_deref(), &options))
                .await
                .map_err(PrivateServerError::CutShort)??;
            match server.make_ready().await {
                // It was going down when we found it: see what is there now.
                Err(PrivateServerError::Refused { source: sqlx::Error::Io(_), .. }) if adoption < ADOPTIONS => adoption += 1,
                made => return made.map(|()| server),
            }
        }
    }

    /// Whether there is data of one in that directory: then it is worth while to start it only to ask something.
    pub fn has_data(directory: Option<&Path>) -> bool {
        directory::has_data(directory)
    }

    /// Where it is, for sqlx, libpq and the environment of children: through the Unix socket.
    pub fn url(&self) -> SecretString {
        let sockets = self.endpoint.socket_directory.display().to_string();
        // Socket directory and password are plain, but for the slashes.
        SecretString::from(format!(
            "postgres://{NAME}:{}@{}:{}/{NAME}?sslmode=disable",
            self.password.expose_secret(),
            sockets.replace('/', "%2F"),
            self.endpoint.port
        ))
    }

    /// Its port on 127.0.0.1, for programs that know no Unix sockets.
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// The programs of its own version (`psql`, `pg_dump`), unless it has been released.
    pub fn bin_directory(&self) -> Option<&Path> {
        let share = self.share.as_ref()?;
        Some(&share.cluster.installation.bin_directory)
    }

    /// Gives the share back, and stops the server if nobody else holds one. Close the pools first: a server
    /// that stops disconnects them.
    pub async fn release(mut self) -> Result<(), PrivateServerError> {
        match self.share.take() {
            None => Ok(()),
            Some(share) => tokio::task::spawn_blocking(move || share.end()).await.map_err(PrivateServerError::CutShort)?,
        }
    }

    fn acquire_blocking(directory: Option<&Path>, options: &ServerOptions) -> Result<Self, PrivateServerError> {
        let share = Share::take(directory, options)?;
        let (endpoint, password) = share.begin()?;
        Ok(Self { share: Some(share), endpoint, password: SecretString::from(password) })
    }

    async fn make_ready(&mut self) -> Result<(), PrivateServerError> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&self.endpoint.socket_directory)
            .port(self.endpoint.port)
            .username(NAME)
            .password(self.password.expose_secret())
            .ssl_mode(PgSslMode::Disable);
        match &mut self.share {
            Some(share) => share.make_ready(options).await,
            None => Ok(()),
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if let Some(share) = self.share.take()
            && let Err(error) = share.end()
        {
            tracing::warn!(%error, "the private server could not be released");
        }
    }
}
