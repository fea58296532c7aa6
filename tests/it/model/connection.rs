//! One connection through a gate: which of its messages wait, and what PostgreSQL has committed by its answers.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use super::gate::{Committed, Passing, Shared};
use crate::support::{BOUND, Message, Messages};

/// What the client has sent up to a Sync, or as one Query.
#[derive(Debug, Default)]
struct Question {
    bytes: Vec<u8>,
    texts: Vec<String>,
}

pub(super) struct Connection {
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
    pub(super) fn new(shared: Arc<Shared>) -> Self {
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
    pub(super) async fn serve(mut self, mut client: TcpStream, mut server: UnixStream) {
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
        let closed = async { while let Ok(1..) = server.read(&mut from_server).await {} };
        assert!(tokio::time::timeout(BOUND, closed).await.is_ok(), "PostgreSQL does not close its side");
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
                    self.bound = message.texts().nth(1).and_then(|name| self.prepared.get(&name).cloned()).unwrap_or_default();
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
