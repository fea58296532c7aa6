//! What wakes the claimer: a slot that became free, and a reason to look into the tables.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Told to the claimer by everybody else.
#[derive(Debug, Default)]
pub(super) struct Wake {
    told: Notify,
    /// Something new may stand in the tables: a notification came, or may have been missed.
    look: AtomicBool,
}

impl Wake {
    /// There may be something new in the tables.
    pub(super) fn look(&self) {
        self.look.store(true, Ordering::Release);
        self.told.notify_one();
    }

    /// A slot is free, or a flag was set.
    pub(super) fn tell(&self) {
        self.told.notify_one();
    }

    /// Whether there was a reason to look since the last call.
    pub(super) fn take_look(&self) -> bool {
        self.look.swap(false, Ordering::AcqRel)
    }

    /// Waits to be told anything.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }
}
