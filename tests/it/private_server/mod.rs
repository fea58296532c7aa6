//! The private server: kept between runs, shared between processes, and what kills leave behind.

mod leftovers;
mod refusals;
mod sharing;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use imagemill::db::private::{PrivateServer, ServerOptions};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::support::BOUND;

/// Names the directory to a process of [`holder`].
const DIRECTORY: &str = "IMAGEMILL_IT_PRIVATE_DIRECTORY";

/// Says that a holder has its share.
const READY: &str = "holder has ";

/// Not a test: this program run again, as another command that uses the server until its input ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a helper of the other tests, which run it as a process"]
async fn holder() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    // A shell starts what runs in the background with this signal ignored: end by it all the same, without a word.
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
    tokio::spawn(async move {
        interrupt.recv().await;
        std::process::exit(130);
    });
    let directory = PathBuf::from(directory);
    let server = PrivateServer::acquire_with(Some(&directory), &small()).await.unwrap();
    execute(&server.url(), "select 1").await;
    println!("\n{READY}{}", server.port());
    std::io::stdout().flush().unwrap();
    std::io::stdin().lines().for_each(drop);
    server.release().await.unwrap();
}

/// A process of [`holder`].
struct Holder {
    child: Child,
    port: u16,
}

impl Holder {
    /// Begins it, in `current` and in a process group of its own.
    fn begin(directory: &Path, current: &Path) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["private_server::holder", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory)
            .current_dir(current)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until it has its share.
    fn ready(mut child: Child) -> Self {
        let said = BufReader::new(child.stdout.take().unwrap());
        let (sender, ports) = mpsc::channel::<u16>();
        // To the end, as the process has more to say.
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if let Some(port) = line.strip_prefix(READY) {
                    let _ = sender.send(port.parse().unwrap());
                }
            }
        });
        let port = ports.recv_timeout(BOUND).expect("a holder's share");
        Self { child, port }
    }

    fn start(directory: &Path) -> Self {
        Self::ready(Self::begin(directory, Path::new("/")))
    }

    /// Ends it in order.
    fn end(mut self) {
        drop(self.child.stdin.take());
        let mut status = None;
        wait_until("the holder ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
    }

    /// Ends it without giving it a chance.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Waits until that is so, within reason.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience_ends = Instant::now() + BOUND;
    while !is_so() {
        assert!(Instant::now() < patience_ends, "never so: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A small server that still keeps what it is told.
fn small() -> ServerOptions {
    ServerOptions { max_connections: 20, shared_buffers_mib: 16, ..ServerOptions::default() }
}

async fn acquire(directory: &Path) -> PrivateServer {
    PrivateServer::acquire_with(Some(directory), &small()).await.unwrap()
}

async fn execute(url: &SecretString, statement: &str) {
    let mut connection = PgConnection::connect(url.expose_secret()).await.unwrap();
    connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

async fn number(url: &SecretString, query: &str) -> i64 {
    let mut connection = PgConnection::connect(url.expose_secret()).await.unwrap();
    let number = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

/// The file that a server keeps in its data while it runs, and a killed one leaves.
fn pid_file(directory: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let data = entries.find(|path| path.to_string_lossy().contains("/data-"))?;
    Some(data.join("postmaster.pid")).filter(|file| file.exists())
}

fn postmaster(directory: &Path) -> rustix::process::Pid {
    let text = fs::read_to_string(pid_file(directory).expect("a running server")).unwrap();
    let number = text.lines().next().unwrap().parse().unwrap();
    rustix::process::Pid::from_raw(number).unwrap()
}
