//! When a poll may leave, where its lane has `polls_per_second`.
//!
//! The limit is the fleet's. Each worker has a share of it, which is a row of `imagemill.poll_shares` and is asked for anew every
//! second ([`share`]); here one poll leaves after another, as far apart as the share says. So in no second more polls leave than
//! the limit, and one more of each worker.

mod share;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{MutexGuard, Notify, watch},
    time::Instant,
};

use super::{clock, engine::Engine};
pub(super) use share::run;

/// The polls of one process.
#[derive(Debug)]
pub(super) struct Polls {
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
    /// Told when it is to be asked at once how fast this process may poll.
    asked: Notify,
    /// A share is good for so long: then its worker may be taken for dead.
    lease: Duration,
}

#[derive(Debug)]
struct Lane {
    name: String,
    /// For so many cells this process polls.
    cells: AtomicUsize,
    pace: watch::Sender<Pace>,
    /// When the last poll left. Whose turn is next has it locked; the others queue up in the order in which they came.
    last: tokio::sync::Mutex<Option<Instant>>,
}

/// How fast this process may poll in a lane.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Polls a second; none: no limit.
    rate: Option<f64>,
    /// When it was last asked for, on [`clock::now`], whether that was answered or not: while PostgreSQL is away, what was
    /// accepted is polled on.
    at: Duration,
    /// Whether a row of this process may stand.
    has_row: bool,
}

/// Somebody who polls for one cell.
#[derive(Debug, Default)]
pub struct Poller {
    /// None: it polls outside of any lane's limit.
    of: Option<(Arc<Polls>, Arc<Lane>)>,
}

/// One poll's turn. It is to leave at once: whoever is next waits until it does.
#[derive(Debug)]
pub struct Turn<'a> {
    /// None: there is no limit.
    last: Option<MutexGuard<'a, Option<Instant>>>,
}

impl Polls {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lanes: Mutex::default(), asked: Notify::new(), lease }
    }

    /// A cell of this lane is going to be polled for.
    fn poller(self: &Arc<Self>, lane: &str) -> Poller {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry(lane.to_owned()).or_insert_with(|| Arc::new(Lane::new(lane))))
        };
        if lane.cells.fetch_add(1, Ordering::AcqRel) == 0 && lane.pace.borrow().rate.is_some() {
            self.asked.notify_one();
        }
        Poller { of: Some((Arc::clone(self), lane)) }
    }

    /// The limits may have changed.
    pub(super) fn look(&self) {
        self.asked.notify_one();
    }

    /// These lanes have a limit.
    pub(super) fn saw(&self, limited: &[String]) {
        if self.lanes().iter().any(|lane| lane.pace.borrow().rate.is_none() && limited.contains(&lane.name)) {
            self.look();
        }
    }

    /// What this process had it has no longer.
    pub(super) fn lose(&self) {
        for lane in self.lanes() {
            lane.pace.send_if_modified(|pace| {
                pace.has_row = false;
                pace.rate.as_mut().is_some_and(|rate| std::mem::take(rate) > 0.0)
            });
        }
        self.look();
    }

    fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Lane {
    fn new(name: &str) -> Self {
        // Until it is known whether there is a limit, nothing leaves.
        let pace = Pace { rate: Some(0.0), at: Duration::ZERO, has_row: false };
        Self {
            name: name.to_owned(),
            cells: AtomicUsize::new(0),
            pace: watch::Sender::new(pace),
            last: tokio::sync::Mutex::default(),
        }
    }
}

impl Poller {
    /// Waits for the turn of one poll. It holds nothing meanwhile, and can be left at any point.
    pub async fn turn(&self) -> Turn<'_> {
        let Some((polls, lane)) = &self.of else { return Turn { last: None } };
        if lane.pace.borrow().rate.is_none() {
            return Turn { last: None };
        }
        let last = lane.last.lock().await;
        let mut changes = lane.pace.subscribe();
        loop {
            let pace = *changes.borrow_and_update();
            let Some(rate) = pace.rate else { return Turn { last: None } };
            // Not with what a process had before it stood still for long: it may have been taken for dead, and others have it.
            let is_good = clock::now().saturating_sub(pace.at) < polls.lease;
            let due = after(*last, rate).filter(|_| is_good);
            if due.is_some_and(|due| due <= Instant::now()) {
                return Turn { last: Some(last) };
            }
            tokio::select! {
                () = until(due) => {}
                // It cannot end: the lane is ours.
                _ = changes.changed() => {}
            }
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if let Some((_, lane)) = &self.of {
            lane.cells.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Turn<'_> {
    /// The poll leaves now.
    pub fn leave(mut self) {
        if let Some(last) = &mut self.last {
            **last = Some(Instant::now());
        }
    }
}

impl Engine {
    /// For a cell of this lane that is polled for from now on, until this is dropped.
    pub fn poller(&self, lane: &str) -> Poller {
        self.shared.polls.poller(lane)
    }
}

/// When the next poll is due; none: not at this rate.
fn after(last: Option<Instant>, rate: f64) -> Option<Instant> {
    if rate <= 0.0 {
        return None;
    }
    let Some(last) = last else { return Some(Instant::now()) };
    last.checked_add(Duration::try_from_secs_f64(rate.recip()).ok()?)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// A lane with this rate, and somebody who polls in it.
    fn polling(rate: Option<f64>) -> (Arc<Polls>, Poller) {
        let polls = Arc::new(Polls::new(Duration::from_secs(15)));
        let poller = polls.poller("prod");
        set(&poller, rate);
        (polls, poller)
    }

    fn set(poller: &Poller, rate: Option<f64>) {
        let (_, lane) = poller.of.as_ref().unwrap();
        lane.pace.send_replace(Pace { rate, at: clock::now(), has_row: true });
    }

    #[tokio::test]
    async fn nothing_leaves_before_it_is_known_whether_there_is_a_limit() {
        let polls = Arc::new(Polls::new(Duration::from_secs(15)));
        let poller = polls.poller("prod");
        let mut turn = Box::pin(poller.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        set(&poller, None);
        assert!(turn.await.last.is_none());
    }

    #[tokio::test]
    async fn one_leaves_after_another_as_far_apart_as_the_share_says() {
        let (polls, poller) = polling(Some(50.0));
        let began = Instant::now();
        for _ in 0..5 {
            poller.turn().await.leave();
        }
        // Time is the subject: a slow machine only adds to it.
        assert!(began.elapsed() >= Duration::from_millis(80));
        // Another cell of the same lane has no pace of its own.
        set(&poller, Some(0.001));
        let other = polls.poller("prod");
        assert!(other.turn().now_or_never().is_none());
        set(&poller, None);
        assert!(other.turn().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_waits_obeys_a_changed_share_and_holds_nothing_when_left() {
        let (_polls, poller) = polling(Some(0.001));
        poller.turn().await.leave();
        // Left while it waited, and left in its turn: the next one has both.
        assert!(poller.turn().now_or_never().is_none());
        set(&poller, Some(1000.0));
        drop(poller.turn().await);
        assert!(poller.turn().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_share_of_long_ago_is_not_used() {
        let (_polls, poller) = polling(Some(1000.0));
        let (_, lane) = poller.of.as_ref().unwrap();
        lane.pace.send_modify(|pace| pace.at = clock::now().saturating_sub(Duration::from_secs(15)));
        assert!(poller.turn().now_or_never().is_none());
    }
}
