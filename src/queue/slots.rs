//! The engine's slots: a permit rides with each job until its settle has committed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::wake::Wake;

/// The slots of one queue in one process.
#[derive(Debug)]
pub(super) struct Slots {
    size: usize,
    used: AtomicUsize,
    /// Told when a slot is given back.
    freed: Arc<Wake>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
}

impl Slots {
    pub(super) fn new(size: usize, freed: Arc<Wake>) -> Arc<Self> {
        Arc::new(Self { size, used: AtomicUsize::new(0), freed })
    }

    /// Places that are free now. Only the claimer takes any, so that none of them goes away under it.
    pub(super) fn free(&self) -> usize {
        self.size.saturating_sub(self.used.load(Ordering::Acquire))
    }

    /// Whether one in so many places is free.
    pub(super) fn is_free_by(&self, part: usize) -> bool {
        self.free() * part >= self.size
    }

    /// Places in use.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    pub(super) fn take(self: &Arc<Self>) -> Slot {
        self.used.fetch_add(1, Ordering::AcqRel);
        Slot { slots: Arc::clone(self) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.used.fetch_sub(1, Ordering::AcqRel);
        self.slots.freed.tell();
    }
}
