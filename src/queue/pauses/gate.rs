//! What a process knows of its lanes before PostgreSQL does.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::PauseReason;

/// A refused poll that follows another one so soon says nothing new: thousands may be polled.
const NEWS: Duration = Duration::from_secs(1);

/// The lanes of one process.
#[derive(Debug)]
pub(in crate::queue) struct Gate {
    lanes: Mutex<HashMap<String, Lane>>,
    /// When a poll was last refused, by lane, reason and token.
    refused: Mutex<HashMap<(String, PauseReason, String), Instant>>,
    /// Whether others may ask whose token is not refused, by lane.
    others: Mutex<HashMap<String, Others>>,
    /// Who looks for them: thousands want to know it at one moment, and one of them asks.
    looking: tokio::sync::Mutex<()>,
    token_hash: RwLock<Arc<str>>,
    /// Who replaces the token: its rows are written in the order in which it was replaced.
    replacing: tokio::sync::Mutex<()>,
    /// Told when a pause is written.
    written: Notify,
    /// Told when a pause of this process's token was met.
    met: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct Lane {
    /// How many pauses this process has begun to write; what was begun before one does not submit after it.
    epoch: u64,
    /// How many of them are being written.
    writing: usize,
}

/// Whether there are any: when that was seen, and with which token here.
#[derive(Debug)]
struct Others {
    seen: Instant,
    token_hash: Arc<str>,
    are_there: bool,
}

/// A pause that is being written: until this goes, no POST of the lane is begun here.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    gate: &'a Gate,
    lane: String,
}

/// Whether a refused poll is news.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// It is not, and is not to be written down.
    Before,
    /// It is; where it stops the lane, that is stopped.
    Now(Option<Writing<'a>>),
}

impl Gate {
    pub(in crate::queue) fn new(token_hash: &str) -> Self {
        Self {
            lanes: Mutex::default(),
            refused: Mutex::default(),
            others: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            token_hash: RwLock::new(token_hash.into()),
            replacing: tokio::sync::Mutex::default(),
            written: Notify::new(),
            met: Notify::new(),
        }
    }

    /// Stops the lane in this process at once.
    pub(super) fn stop(&self, lane: &str) -> Writing<'_> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let state = lanes.entry(lane.to_owned()).or_default();
        state.epoch += 1;
        state.writing += 1;
        Writing { gate: self, lane: lane.to_owned() }
    }

    /// What [`Gate::stop`] counts; none: a pause is being written just now.
    pub(super) fn epoch(&self, lane: &str) -> Option<u64> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        match lanes.get(lane) {
            Some(state) if state.writing > 0 => None,
            Some(state) => Some(state.epoch),
            None => Some(0),
        }
    }

    /// A poll was refused for this reason. Where that is news, and stops the lane, [`Gate::stop`]: whoever comes behind finds the pause
    /// in the making.
    pub(super) fn poll_refused(&self, lane: &str, reason: PauseReason, token_hash: &str, stops: bool) -> Heard<'_> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = refused.entry((lane.to_owned(), reason, token_hash.to_owned()));
        if let Entry::Occupied(last) = &last
            && now.duration_since(*last.get()) < NEWS
        {
            return Heard::Before;
        }
        last.insert_entry(now);
        Heard::Now(stops.then(|| self.stop(lane)))
    }

    /// Waits while a pause of this lane is being written.
    pub(super) async fn until_written(&self, lane: &str) {
        loop {
            let written = self.written.notified();
            if self.epoch(lane).is_some() {
                return;
            }
            written.await;
        }
    }

    /// Waits until it is one's own turn to look for others; it may be known by then.
    pub(super) async fn looking(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.looking.lock().await
    }

    /// Whether others than the holders of this token may ask; none: it is to be looked at again.
    pub(super) fn others(&self, lane: &str, token_hash: &str) -> Option<bool> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let known = others.get(lane).filter(|others| others.seen.elapsed() < NEWS && *others.token_hash == *token_hash);
        known.map(|others| others.are_there)
    }

    /// That was seen now.
    pub(super) fn saw_others(&self, lane: &str, token_hash: Arc<str>, are_there: bool) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.insert(lane.to_owned(), Others { seen: Instant::now(), token_hash, are_there });
    }

    /// It is to be looked at again: the token is refused.
    pub(super) fn forget_others(&self, lane: &str) {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).remove(lane);
    }

    /// Hash of the token that this process submits with; empty: it has none.
    pub(in crate::queue) fn token_hash(&self) -> Arc<str> {
        Arc::clone(&self.token_hash.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it. Returns the one before.
    pub(super) fn replace_token(&self, token_hash: &str) -> Arc<str> {
        let mut current = self.token_hash.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, token_hash.into())
    }

    /// Waits until it is one's own turn to write that it was replaced.
    pub(super) async fn replacing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.replacing.lock().await
    }

    /// Tells whoever looks after the pauses that one was met.
    pub(in crate::queue) fn tell(&self) {
        self.met.notify_one();
    }

    /// Waits for that.
    pub(super) async fn told(&self) {
        self.met.notified().await;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut lanes = self.gate.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = lanes.get_mut(&self.lane) {
            state.writing -= 1;
        }
        drop(lanes);
        self.gate.written.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_before_a_pause_is_told_from_what_comes_after() {
        let gate = Gate::new("");
        let before = gate.epoch("prod");
        assert_eq!(before, Some(0));
        let writing = gate.stop("prod");
        assert_eq!(gate.epoch("prod"), None);
        assert_eq!(gate.epoch("ops"), Some(0));
        drop(writing);
        assert_ne!(gate.epoch("prod"), before);
        assert!(gate.epoch("prod").is_some());
    }
}
