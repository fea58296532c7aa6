//! What one connection has asked and been answered: which commit is which.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::wire::{self, Commit, Message};

type Kinds = BTreeSet<Commit>;

/// What was asked up to one Sync, or by one Query.
#[derive(Debug, Default)]
struct Question {
    /// What each of its statements writes.
    statements: Vec<Kinds>,
    /// Statements that were answered.
    answered: usize,
    failed: bool,
    /// The tag of the last one.
    tag: String,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// By name, as prepared.
    statements: HashMap<String, Kinds>,
    portals: HashMap<String, Kinds>,
    /// Begun, and not yet ended by a Sync.
    question: Question,
    asked: VecDeque<Question>,
    /// What the transaction that is open has written.
    written: Kinds,
    in_transaction: bool,
    is_started: bool,
    /// The process at the other end.
    backend: i32,
    /// It asked for notifications; how often listeners had been silenced before.
    listens_after: Option<u64>,
    /// Answers that wait for the end of theirs.
    held: Vec<u8>,
}

/// What an answer means to the proxy.
#[derive(Debug)]
pub(super) enum Answer {
    /// More is to come.
    Held,
    /// To be passed on; what it answered, if that was a whole question.
    Whole { bytes: Vec<u8>, answered: bool, committed: Kinds },
}

impl Session {
    /// Whether nothing of it is to be passed on after so many silences.
    pub(super) fn is_silent(&self, silences: u64) -> bool {
        self.listens_after.is_some_and(|before| before < silences)
    }

    fn note_listening(&mut self, sql: &str, silences: u64) {
        if sql.trim_start().to_ascii_lowercase().starts_with("listen") {
            self.listens_after.get_or_insert(silences);
        }
    }

    /// Takes note of what the client asks. Returns whether that was a whole question, and what PostgreSQL will commit when it
    /// gets it. Listeners have been silenced so often.
    pub(super) fn asks(&mut self, message: &Message, silences: u64) -> (bool, Kinds) {
        match message.kind {
            b'P' => {
                let mut texts = message.texts();
                let (name, sql) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
                self.note_listening(&sql, silences);
                self.statements.insert(name, wire::kinds(&sql));
            }
            b'B' => {
                let mut texts = message.texts();
                let (portal, statement) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
                let kinds = self.statements.get(&statement).cloned().unwrap_or_default();
                self.portals.insert(portal, kinds);
            }
            b'E' => {
                let kinds = self.portals.get(&message.text()).cloned().unwrap_or_default();
                self.question.statements.push(kinds);
            }
            b'S' => {
                let question = std::mem::take(&mut self.question);
                let commits =
                    if self.in_transaction { Kinds::new() } else { question.statements.iter().flatten().copied().collect() };
                self.asked.push_back(question);
                return (true, commits);
            }
            b'Q' => {
                let sql = message.text();
                self.note_listening(&sql, silences);
                let kinds = wire::kinds(&sql);
                let is_commit = sql.trim().trim_end_matches(';').eq_ignore_ascii_case("commit");
                let commits = match (is_commit, self.in_transaction) {
                    (true, _) => self.written.clone(),
                    (false, true) => Kinds::new(),
                    (false, false) => kinds.clone(),
                };
                self.asked.push_back(Question { statements: vec![kinds], ..Question::default() });
                return (true, commits);
            }
            _ => {}
        }
        (false, Kinds::new())
    }

    /// Takes note of what PostgreSQL answers.
    pub(super) fn answers(&mut self, message: &Message) -> Answer {
        let passed_on = |bytes| Answer::Whole { bytes, answered: false, committed: Kinds::new() };
        if !self.is_started {
            self.is_started = message.kind == b'Z';
            self.backend = message.backend().unwrap_or(self.backend);
            return passed_on(message.bytes.clone());
        }
        let Some(question) = self.asked.front_mut() else {
            // Nobody asked: a notification, a notice, the end of the session.
            return passed_on(message.bytes.clone());
        };
        self.held.extend_from_slice(&message.bytes);
        match message.kind {
            b'C' => {
                question.tag = message.text();
                if let Some(kinds) = question.statements.get(question.answered).or(question.statements.last())
                    // The last row of a claim says what was counted, and not what was taken.
                    && wire::rows(&question.tag) > u64::from(kinds.contains(&Commit::Claim) && question.tag.starts_with("SELECT"))
                {
                    self.written.extend(kinds);
                }
                question.answered += 1;
            }
            b'I' | b's' => question.answered += 1,
            b'E' => question.failed = true,
            b'Z' => {
                let question = self.asked.pop_front().unwrap_or_default();
                self.in_transaction = message.bytes.get(5) != Some(&b'I');
                let written = if self.in_transaction { Kinds::new() } else { std::mem::take(&mut self.written) };
                let is_kept = !question.failed && question.tag != "ROLLBACK";
                let committed = if is_kept { written } else { Kinds::new() };
                return Answer::Whole { bytes: std::mem::take(&mut self.held), answered: true, committed };
            }
            _ => {}
        }
        Answer::Held
    }

    /// The number of PostgreSQL's process.
    pub(super) fn backend(&self) -> i32 {
        self.backend
    }

    /// What came of an answer that never became whole.
    pub(super) fn held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Questions without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.asked.len()
    }
}
