//! A proxy between one worker and PostgreSQL, in the process of the test: it delivers a COMMIT and cuts the connection
//! instead of the answer, on order, and holds a client up in the middle of its transaction.
//!
//! One proxy a worker, so that what happens to a connection is known to happen to that worker. Answers are passed on whole:
//! all that belongs to one Sync or Query at once, when PostgreSQL says that it is ready for the next; by then a commit is one.

mod orders;
mod pump;
mod session;
mod wire;

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

pub(crate) use orders::{Orders, Reached};
use session::Session;
pub(crate) use wire::{Commit, Message, Messages};

/// What the connections of one proxy share.
struct Shared {
    number: u64,
    server: Server,
    orders: Arc<Orders>,
    /// Backends of PostgreSQL behind this proxy; each until PostgreSQL itself has closed its connection.
    backends: AtomicUsize,
    /// Questions that PostgreSQL has not answered yet.
    unanswered: AtomicUsize,
    /// Raised: connections of before that listen fall silent.
    silences: AtomicU64,
    /// Cancelled: every connection of now is cut.
    cut: Mutex<CancellationToken>,
    ended: CancellationToken,
}

/// The way to a server, which may change when it is started anew, and may be closed.
#[derive(Clone)]
pub(crate) struct Server(Arc<Mutex<Option<PathBuf>>>);

impl Server {
    /// The server behind this URL, which names a Unix socket.
    pub(crate) fn of(url: &SecretString) -> Self {
        Self(Arc::new(Mutex::new(Some(socket_of(url)))))
    }

    /// Nobody is let through any more; the connections of now stay.
    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The way to the same server after a start under this URL.
    pub(crate) fn open(&self, url: &SecretString) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket_of(url));
    }

    /// A connection to it, where it is open.
    pub(crate) async fn connect(&self) -> Option<UnixStream> {
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        UnixStream::connect(path).await.ok()
    }
}

fn socket_of(url: &SecretString) -> PathBuf {
    let options: PgConnectOptions = url.expose_secret().parse().expect("a URL for sqlx");
    let directory = options.get_socket().expect("a server's socket directory");
    directory.join(format!(".s.PGSQL.{}", options.get_port()))
}

/// The proxy of one worker. It ends, and its connections with it, when it is dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

/// Proxies of this run so far.
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Proxy {
    /// A proxy to this server that obeys these orders.
    pub(crate) async fn start(server: Server, orders: Arc<Orders>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listen on loopback");
        let port = listener.local_addr().expect("the listener's address").port();
        let shared = Arc::new(Shared {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            server,
            orders,
            backends: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            silences: AtomicU64::new(0),
            cut: Mutex::default(),
            ended: CancellationToken::new(),
        });
        tokio::spawn(listen(Arc::clone(&shared), listener));
        Self { shared, port }
    }

    /// Its number, by which an order that was reached names it.
    pub(crate) fn number(&self) -> u64 {
        self.shared.number
    }

    /// This database's URL, by way of the proxy.
    pub(crate) fn url(&self, database: &SecretString) -> SecretString {
        let mut url = url::Url::parse(database.expose_secret()).expect("the database's URL");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(self.port)).expect("a port");
        SecretString::from(String::from(url))
    }

    /// Nothing more is passed on of the connections that listen now, in either direction: as when their other end is gone without a
    /// word.
    pub(crate) fn silence_listeners(&self) {
        self.shared.silences.fetch_add(1, Ordering::AcqRel);
    }

    /// Backends behind it: 0 means that PostgreSQL has nothing of this worker under way any more.
    pub(crate) fn backends(&self) -> usize {
        self.shared.backends.load(Ordering::Acquire)
    }

    /// Questions without an answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.shared.unanswered.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.cancel();
        self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }
}

async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.ended.cancelled() => return,
        };
        // A client that went away again is no concern of ours.
        let Ok((client, _)) = client else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // PostgreSQL is away: the client sees its connection end, as it would see it refused.
            if let Some(server) = shared.server.connect().await {
                serve(&shared, client, server).await;
            }
        });
    }
}

/// One connection, until PostgreSQL has closed its side.
async fn serve(shared: &Arc<Shared>, client: TcpStream, server: UnixStream) {
    client.set_nodelay(true).expect("switch off Nagle's algorithm");
    shared.backends.fetch_add(1, Ordering::AcqRel);
    let cut = shared.cut.lock().unwrap_or_else(PoisonError::into_inner).child_token();
    let session = Arc::new(Mutex::new(Session::default()));
    pump::run(shared, &session, client, server, cut).await;
    let left = session.lock().unwrap_or_else(PoisonError::into_inner).unanswered();
    shared.unanswered.fetch_sub(left, Ordering::AcqRel);
    shared.backends.fetch_sub(1, Ordering::AcqRel);
}
