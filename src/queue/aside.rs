//! What somebody's lock is in the way of, written beside the groups: a row that an operator or a stalled client holds keeps its own
//! cell waiting, and nobody else's.
//!
//! Two doors, one behind the other. At the first each part of a group (a task) is tried by itself: those that are free are through. At
//! the second what is left is halved until only the members are left that are in the way; each of them is told so, and comes again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{
    connections::LockWait,
    error::QueueError,
    group::{GroupWork, LARGEST, Waiting, write_all},
};

/// A part in whose way a lock was found goes to the first door for so long.
const WARY: Duration = Duration::from_secs(2);

/// Parts that go to the first door at once, and until when.
type Blocked = Arc<Mutex<HashMap<String, Instant>>>;

/// The first door.
pub(super) struct Aside<W: GroupWork> {
    door: mpsc::UnboundedSender<Waiting<W>>,
    blocked: Blocked,
}

impl<W: GroupWork> Aside<W> {
    /// Starts both; they end with this.
    pub(super) fn start(writer: &Arc<W>) -> Self {
        let blocked = Blocked::default();
        let (door, waiting) = mpsc::unbounded_channel();
        let (second, left) = mpsc::unbounded_channel();
        tokio::spawn(try_parts(waiting, Arc::clone(writer), Arc::clone(&blocked), second));
        tokio::spawn(try_halves(left, Arc::clone(writer), Arc::clone(&blocked)));
        Self { door, blocked }
    }

    /// Takes one.
    pub(super) fn take(&self, waiting: Waiting<W>) {
        // Both doors end after this.
        let _ = self.door.send(waiting);
    }

    /// Takes those out of a group in whose way a lock was found lately.
    pub(super) fn take_blocked(&self, group: &mut Vec<Waiting<W>>) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked.is_empty() {
            return;
        }
        let now = Instant::now();
        blocked.retain(|_, until| *until > now);
        for waiting in group.extract_if(.., |waiting| blocked.contains_key(W::part(&waiting.member).unwrap_or_default())) {
            self.take(waiting);
        }
    }
}

/// Tries each part by itself.
async fn try_parts<W: GroupWork>(
    mut door: mpsc::UnboundedReceiver<Waiting<W>>,
    writer: Arc<W>,
    blocked: Blocked,
    second: mpsc::UnboundedSender<Waiting<W>>,
) {
    let mut came = Vec::new();
    while door.recv_many(&mut came, LARGEST).await > 0 {
        for (part, waiting) in by_part(came.drain(..)) {
            for (waiting, answer) in write_all(&*writer, waiting, LockWait::Short).await {
                match answer {
                    Err(error) if error.is_blocked() => {
                        be_wary(&blocked, &part);
                        // It ends after this door.
                        let _ = second.send(waiting);
                    }
                    answer => waiting.tell(answer),
                }
            }
        }
    }
}

/// Finds out who of a part is in the way.
async fn try_halves<W: GroupWork>(mut door: mpsc::UnboundedReceiver<Waiting<W>>, writer: Arc<W>, blocked: Blocked) {
    let mut came = Vec::new();
    while door.recv_many(&mut came, LARGEST).await > 0 {
        for (part, waiting) in by_part(came.drain(..)) {
            for (waiting, answer) in write_all(&*writer, waiting, LockWait::Shortest).await {
                if answer.as_ref().is_err_and(QueueError::is_blocked) {
                    be_wary(&blocked, &part);
                }
                waiting.tell(answer);
            }
        }
    }
}

fn by_part<W: GroupWork>(came: impl Iterator<Item = Waiting<W>>) -> BTreeMap<String, Vec<Waiting<W>>> {
    let mut parts: BTreeMap<String, Vec<Waiting<W>>> = BTreeMap::new();
    for waiting in came {
        parts.entry(W::part(&waiting.member).unwrap_or_default().to_owned()).or_default().push(waiting);
    }
    parts
}

fn be_wary(blocked: &Blocked, part: &str) {
    let mut blocked = blocked.lock().unwrap_or_else(PoisonError::into_inner);
    blocked.insert(part.to_owned(), Instant::now() + WARY);
}
