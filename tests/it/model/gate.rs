//! A gate between one session and PostgreSQL: every statement waits in front of it until the test lets it pass.
//!
//! So two transactions are interleaved at the borders of their statements, as the test says and not as the machine happens to run.
//! What has no say in that passes by itself: preparing a statement, BEGIN, ROLLBACK.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Notify,
};

use crate::support::{Message, Messages, Server};

/// What becomes of the statement in front of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passing {
    /// It passes, and its answer comes back.
    Through,
    /// It passes, and the connection is cut instead of the answer.
    AnswerLost,
    /// The connection is cut before it passes.
    Cut,
}

/// A transaction that PostgreSQL has committed: the texts of its statements.
pub(super) type Committed = Vec<String>;

#[derive(Debug, Default)]
struct State {
    /// Nothing waits: for preparing and draining.
    is_open: bool,
    /// A statement is in front of the gate.
    is_parked: bool,
    order: Option<Passing>,
    /// A statement has passed and is not answered.
    is_running: bool,
    in_transaction: bool,
    /// The process of PostgreSQL behind the gate, while there is one.
    backend: Option<i32>,
    committed: Vec<Committed>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// For the connection: an order came.
    ordered: Notify,
    /// For the test: something has changed.
    changed: Arc<Notify>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a statement is to wait.
    fn parks(&self) -> bool {
        let mut state = self.state();
        state.is_parked = !state.is_open;
        state.is_parked
    }

    /// The connection is gone.
    fn ends(&self) {
        let mut state = self.state();
        *state = State { is_open: state.is_open, committed: std::mem::take(&mut state.committed), ..State::default() };
    }
}

/// The gate of one session, which has one connection at a time.
pub(super) struct Gate {
    shared: Arc<Shared>,
    port: u16,
    listener: tokio::task::JoinHandle<()>,
}

impl Gate {
    /// A gate before this server; it stands open at first.
    pub(super) async fn start(server: Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listen on loopback");
        let port = listener.local_addr().expect("the listener's address").port();
        let shared = Arc::new(Shared::default());
        shared.state().is_open = true;
        let serving = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = server.connect().await.expect("connect to PostgreSQL");
                Connection::new(Arc::clone(&serving)).serve(client, server).await;
                serving.ends();
                serving.changed.notify_one();
            }
        });
        Self { shared, port, listener }
    }

    /// This database's URL, by way of the gate.
    pub(super) fn url(&self, database: &SecretString) -> String {
        let mut url = url::Url::parse(database.expose_secret()).expect("the database's URL");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(self.port)).expect("a port");
        url.into()
    }

    /// From now on statements wait, or do not.
    pub(super) fn set_open(&self, is_open: bool) {
        self.shared.state().is_open = is_open;
        if is_open {
            self.order(Passing::Through);
        }
    }

    /// Says what becomes of the statement in front of the gate. False: there is none.
    pub(super) fn order(&self, passing: Passing) -> bool {
        let mut state = self.shared.state();
        if !state.is_parked {
            return false;
        }
        state.is_parked = false;
        state.is_running = true;
        state.order = Some(passing);
        drop(state);
        self.shared.ordered.notify_one();
        true
    }

    /// Whether a statement waits in front of it.
    pub(super) fn is_parked(&self) -> bool {
        self.shared.state().is_parked
    }

    /// Whether nothing is under way behind it: no statement and no transaction.
    pub(super) fn is_at_rest(&self) -> bool {
        let state = self.shared.state();
        !state.is_running && !state.in_transaction && !state.is_parked
    }

    /// The process of PostgreSQL that has an unanswered statement.
    pub(super) fn running(&self) -> Option<i32> {
        let state = self.shared.state();
        state.backend.filter(|_| state.is_running)
    }

    /// What was committed since the last call.
    pub(super) fn take_committed(&self) -> Vec<Committed> {
        std::mem::take(&mut self.shared.state().committed)
    }

    /// Told whenever something changes here; to be told by others as well.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.changed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What the client has sent up to a Sync, or as one Query.
#[derive(Debug, Default)]
struct Question {
    bytes: Vec<u8>,
    texts: Vec<String>,
}

struct Connection {
    shared: Arc<Shared>,
    /// By name, as prepared.
    prepared: HashMap<String, String>,
    bound: String,
    question: Question,
    /// In front of the gate.
    parked: Option<Question>,
    /// The statements of the transaction that is open.
    texts: Committed,
    /// The answer to the question, as far as it came.
    answer: Vec<u8>,
    is_started: bool,
    has_failed: bool,
    tag: String,
    loses: bool,
}

impl Connection {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            prepared: HashMap::new(),
            bound: String::new(),
            question: Question::default(),
            parked: None,
            texts: Vec::new(),
            answer: Vec::new(),
            is_started: false,
            has_failed: false,
            tag: String::new(),
            loses: false,
        }
    }

    /// One connection, until PostgreSQL has closed its side: then all that it held is free.
    async fn serve(mut self, mut client: TcpStream, mut server: UnixStream) {
        client.set_nodelay(true).expect("switch off Nagle's algorithm");
        let (mut asked, mut answered) = (Messages::of_client(), Messages::of_server());
        let (mut from_client, mut from_server) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        let shared = Arc::clone(&self.shared);
        loop {
            let goes_on = tokio::select! {
                read = client.read(&mut from_client) => match read {
                    Ok(read @ 1..) => {
                        asked.push(&from_client[..read]);
                        let messages: Vec<Message> = asked.by_ref().collect();
                        self.asks(messages, &mut server).await
                    }
                    _ => false,
                },
                read = server.read(&mut from_server) => match read {
                    Ok(read @ 1..) => {
                        answered.push(&from_server[..read]);
                        let messages: Vec<Message> = answered.by_ref().collect();
                        self.answers(messages, &mut client).await
                    }
                    _ => return,
                },
                () = shared.ordered.notified() => self.obeys(&mut server).await,
            };
            if !goes_on {
                break;
            }
        }
        // PostgreSQL sees the end; when it has closed its side too, its locks are gone.
        let _ = server.shutdown().await;
        while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_secs(10), server.read(&mut from_server)).await {}
        // The client sees an error, not an orderly end.
        let _ = client.set_zero_linger();
    }

    async fn asks(&mut self, messages: Vec<Message>, server: &mut UnixStream) -> bool {
        for message in messages {
            match message.kind {
                b'P' => {
                    let mut texts = message.texts();
                    let name = texts.next().unwrap_or_default();
                    self.prepared.insert(name, texts.next().unwrap_or_default());
                }
                b'B' => {
                    self.bound = message.texts().nth(1).and_then(|name| self.prepared.get(&name).cloned()).unwrap_or_default()
                }
                b'E' => self.question.texts.push(self.bound.clone()),
                b'Q' => self.question.texts.push(message.text()),
                _ => {}
            }
            let is_whole = matches!(message.kind, 0 | b'Q' | b'S' | b'X' | b'p');
            self.question.bytes.extend(message.bytes);
            if !is_whole {
                continue;
            }
            let question = std::mem::take(&mut self.question);
            let waits = question.texts.iter().any(|text| {
                let text = text.trim_start().to_lowercase();
                !text.is_empty() && !text.starts_with("begin") && !text.starts_with("rollback")
            });
            if waits && self.shared.parks() {
                self.parked = Some(question);
                self.shared.changed.notify_one();
                continue;
            }
            self.shared.state().is_running = message.kind != b'X';
            if !self.passes(question, server).await {
                return false;
            }
        }
        true
    }

    async fn passes(&mut self, question: Question, server: &mut UnixStream) -> bool {
        self.texts.extend(question.texts);
        server.write_all(&question.bytes).await.is_ok()
    }

    async fn obeys(&mut self, server: &mut UnixStream) -> bool {
        let order = self.shared.state().order.take();
        let (Some(order), Some(question)) = (order, self.parked.take()) else { return true };
        self.loses = order == Passing::AnswerLost;
        order != Passing::Cut && self.passes(question, server).await
    }

    async fn answers(&mut self, messages: Vec<Message>, client: &mut TcpStream) -> bool {
        for message in messages {
            match message.kind {
                b'K' => {
                    let process = message.bytes.get(5..9).and_then(|bytes| bytes.try_into().ok());
                    self.shared.state().backend = process.map(i32::from_be_bytes);
                }
                b'C' => self.tag = message.text(),
                b'E' => self.has_failed = true,
                _ => {}
            }
            let (kind, status) = (message.kind, message.bytes.get(5).copied());
            self.answer.extend(message.bytes);
            if kind == b'Z' {
                self.is_started = true;
                self.ends(status != Some(b'I'));
                if self.loses {
                    return false;
                }
            } else if self.is_started {
                continue;
            }
            let ready = std::mem::take(&mut self.answer);
            if client.write_all(&ready).await.is_err() {
                return false;
            }
            if kind == b'Z' {
                self.shared.changed.notify_one();
            }
        }
        true
    }

    /// PostgreSQL is ready for the next question.
    fn ends(&mut self, in_transaction: bool) {
        let mut state = self.shared.state();
        // What is lost is under way until PostgreSQL has closed the connection.
        state.is_running = self.loses;
        state.in_transaction = in_transaction;
        let has_failed = std::mem::take(&mut self.has_failed);
        let tag = std::mem::take(&mut self.tag);
        if !in_transaction {
            let texts = std::mem::take(&mut self.texts);
            if !has_failed && tag != "ROLLBACK" && !texts.is_empty() {
                state.committed.push(texts);
            }
        }
    }
}
