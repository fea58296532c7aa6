//! What wakes the claimer: a slot that became free, and a reason to look into the tables.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Told to the claimer by everybody else.
#[derive(Debug, Default)]
pub(super) struct Wake {
    told: Notify,
    reasons: Mutex<Reasons>,
}

/// Where something new may stand.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// In any queue: a notification may have been missed.
    pub(super) everywhere: bool,
    /// In these.
    pub(super) queues: Vec<String>,
}

impl Wake {
    /// There may be something new in any queue.
    pub(super) fn look(&self) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).everywhere = true;
        self.told.notify_one();
    }

    /// There is something new in this queue.
    pub(super) fn look_into(&self, queue: &str) {
        {
            let queues = &mut self.reasons.lock().unwrap_or_else(PoisonError::into_inner).queues;
            if !queues.iter().any(|known| known == queue) {
                queues.push(queue.to_owned());
            }
        }
        self.told.notify_one();
    }

    /// A slot is free, or a flag was set.
    pub(super) fn tell(&self) {
        self.told.notify_one();
    }

    /// The reasons to look since the last call.
    pub(super) fn take(&self) -> Reasons {
        std::mem::take(&mut self.reasons.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits to be told anything.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }
}
