//! Making the data, and starting and stopping the server on it. Blocking; the caller holds the start lock.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    ServerOptions,
    account::Account,
    binaries::{self, Installation},
    directory::Directory,
    error::{PrivateServerError, file_error},
    postmaster::{self, Endpoint, State},
    tool,
};

/// Name of the superuser and of the database.
pub(super) const NAME: &str = "imagemill";

/// How long a start, a stop or a recovery may take.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// What a failed start says when another try, with another port or a little later, can succeed.
const PASSING: [&str; 4] = ["could not bind", "could not create any TCP/IP sockets", "is still in use", "already exists"];

/// The data of one major version, and the programs for it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) directory: Directory,
    pub(super) installation: Installation,
    account: Account,
    options: ServerOptions,
    data: PathBuf,
}

impl Cluster {
    /// Chooses programs and account: for the data that is there, or for new data the newest that will do.
    pub(super) fn choose(directory: Directory, options: &ServerOptions) -> Result<Self, PrivateServerError> {
        let existing = directory.data_major()?;
        let installation = match existing {
            Some(major) => binaries::of_major(&options.search, major, &directory.data(major))?,
            None => binaries::newest(&options.search)?,
        };
        let data = directory.data(installation.major);
        let account = Account::choose(existing.map(|_| data.as_path()))?;
        if !account.can_enter(directory.path())? {
            return Err(PrivateServerError::Unreachable { account: account.name, directory: directory.path().to_path_buf() });
        }
        Ok(Self { directory, installation, account, options: options.clone(), data })
    }

    /// Where the running server listens, if one runs. One that is coming up or going down is waited for.
    pub(super) fn running(&self) -> Result<Option<Endpoint>, PrivateServerError> {
        let mark = self.mark();
        let patience_ends = Instant::now() + PATIENCE;
        loop {
            match postmaster::state(&self.data, &mark)? {
                State::Running(endpoint) => return Ok(Some(endpoint)),
                State::Stopped => return Ok(None),
                State::Between if Instant::now() < patience_ends => {
                    thread::sleep(Duration::from_millis(50));
                }
                State::Between => return Err(self.not_ready()),
            }
        }
    }

    /// Starts the server; makes the data first where there is none. Returns the password as well.
    pub(super) fn start(&self) -> Result<(Endpoint, String), PrivateServerError> {
        self.directory.rotate_log()?;
        let password = self.prepare()?;
        let socket_directory = self.directory.socket_directory(&self.account)?;
        let patience_ends = Instant::now() + PATIENCE;
        let mut prefer_last = true;
        loop {
            let port = self.directory.port(prefer_last)?;
            let endpoint = Endpoint { socket_directory: socket_directory.clone(), port };
            self.write_settings(&endpoint)?;
            let mut command = self.command("pg_ctl");
            command
                .args(["start", "-w", "-s", "-t"])
                .arg(PATIENCE.as_secs().to_string())
                .args(["-o", &self.mark()])
                // A Ctrl-C in the terminal is for the command, which stops the server in order.
                .process_group(0);
            match tool::run(&self.directory, command, "pg_ctl start", None) {
                Ok(()) => return Ok((endpoint, password)),
                Err(error) => {
                    let text = error.to_string();
                    let passing = PASSING.iter().any(|said| text.contains(said));
                    if !passing || Instant::now() > patience_ends {
                        return Err(error);
                    }
                    tracing::debug!(%error, "starting the private server once more");
                }
            }
            thread::sleep(Duration::from_millis(250));
            // A command that was killed while it started the server may have got there first.
            if let Some(endpoint) = self.running()? {
                return Ok((endpoint, password));
            }
            prefer_last = false;
        }
    }

    /// Stops the server in order, if one runs.
    pub(super) fn stop(&self) -> Result<(), PrivateServerError> {
        if self.running()?.is_none() {
            return Ok(());
        }
        let mut command = self.command("pg_ctl");
        command.args(["stop", "-w", "-s", "-m", "fast", "-t"]).arg(PATIENCE.as_secs().to_string());
        match tool::run(&self.directory, command, "pg_ctl stop", None) {
            Err(error) if self.running()?.is_some() => Err(error),
            // It went away by itself between the look and the stop.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// "Not ready", with the log's place.
    pub(super) fn not_ready(&self) -> PrivateServerError {
        PrivateServerError::NotReady { seconds: PATIENCE.as_secs(), log: self.directory.log() }
    }

    /// Data with a superuser whose password we know.
    fn prepare(&self) -> Result<String, PrivateServerError> {
        let password = self.directory.password()?;
        match (self.data.is_dir(), password) {
            (true, Some(password)) => Ok(password),
            (true, None) => {
                let password = self.directory.new_password()?;
                self.set_password(&password).inspect_err(|_| {
                    // Else the next command would take it for the one that is set.
                    if let Err(error) = fs::remove_file(self.directory.password_file()) {
                        tracing::warn!(%error, "a password that is not in force could not be removed");
                    }
                })?;
                Ok(password)
            }
            (false, password) => {
                let password = match password {
                    Some(password) => password,
                    None => self.directory.new_password()?,
                };
                self.make_data(&password)?;
                Ok(password)
            }
        }
    }

    /// Runs initdb beside the place of the data, which appears there whole.
    fn make_data(&self, password: &str) -> Result<(), PrivateServerError> {
        tracing::info!(data = %self.data.display(), "making the data of the private PostgreSQL");
        let nursery = self.directory.nursery(&self.account)?;
        let account = &self.account;
        let password_file = self.directory.hand_over("new-password", password, account)?;
        let mut command = self.account.command(&self.installation.program("initdb"));
        command
            .arg("--pgdata")
            .arg(&nursery)
            .arg(format!("--username={NAME}"))
            .arg("--pwfile")
            .arg(&password_file)
            // The same order of text on every machine and after every upgrade of its C library.
            .args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--data-checksums"]);
        if !self.options.durable {
            command.arg("--no-sync");
        }
        let made = tool::run(&self.directory, command, "initdb", None);
        fs::remove_file(&password_file).map_err(file_error("remove", &password_file))?;
        made?;
        let settings = nursery.join("postgresql.conf");
        fs::OpenOptions::new()
            .append(true)
            .open(&settings)
            .and_then(|mut file| {
                file.write_all(b"\ninclude_if_exists = 'imagemill.conf'  # written at every start\n")?;
                file.sync_all()
            })
            .map_err(file_error("write", &settings))?;
        fs::rename(&nursery, &self.data).map_err(file_error("put in place", &self.data))?;
        File::open(self.directory.path())
            .and_then(|directory| directory.sync_all())
            .map_err(file_error("sync", self.directory.path()))
    }

    /// Sets the superuser's password without one, as the owner of the data may while the server is stopped.
    fn set_password(&self, password: &str) -> Result<(), PrivateServerError> {
        let mut command = self.account.command(&self.installation.program("postgres"));
        command.arg("--single").arg("-D").arg(&self.data);
        // A statement that fails would go to the log with the password in it.
        command.args(["-c", "log_min_error_statement=panic", "postgres"]);
        let statement = format!("alter role {NAME} password '{password}'\n");
        tool::run(&self.directory, command, "postgres --single", Some(&statement))
    }

    fn write_settings(&self, endpoint: &Endpoint) -> Result<(), PrivateServerError> {
        let durable = if self.options.durable { "on" } else { "off" };
        let text = format!(
            "# Written by imagemill at every start; settings of yours belong in postgresql.conf below its include.\n\
             listen_addresses = '127.0.0.1'\n\
             port = {port}\n\
             unix_socket_directories = '{sockets}'\n\
             unix_socket_permissions = 0700\n\
             max_connections = {connections}\n\
             shared_buffers = '{buffers}MB'\n\
             lc_messages = 'C'\n\
             fsync = {durable}\n\
             synchronous_commit = {durable}\n\
             full_page_writes = {durable}\n",
            port = endpoint.port,
            sockets = endpoint.socket_directory.display(),
            connections = self.options.max_connections,
            buffers = self.options.shared_buffers_mib,
        );
        let draft = self.directory.hand_over("new-settings", &text, &self.account)?;
        let path = self.data.join("imagemill.conf");
        fs::rename(&draft, &path).map_err(file_error("write", &path))
    }

    /// An option of the server's command line by which we know its process again.
    fn mark(&self) -> String {
        format!("--cluster_name=imagemill-{}", self.directory.digest)
    }

    /// A program that finds the data through the environment, so that no shell has to quote its path.
    fn command(&self, program: &str) -> Command {
        let mut command = self.account.command(&self.installation.program(program));
        command.env("PGDATA", &self.data);
        command
    }
}
