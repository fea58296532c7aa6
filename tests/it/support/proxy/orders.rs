//! What proxies are ordered to do to commits.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::wire::Commit;
use crate::support::BOUND;

/// Where an order takes hold of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// PostgreSQL has not got it: the transaction is open and holds its locks.
    Before,
    /// PostgreSQL has committed; the client does not know.
    After,
}

#[derive(Debug)]
struct Order {
    place: Place,
    kind: Commit,
    /// Commits of the kind to let pass.
    passing: u32,
    told: oneshot::Sender<Reached>,
}

/// Orders that some proxies share: the first commit that one fits has it.
#[derive(Debug, Default)]
pub(crate) struct Orders(Mutex<Vec<Order>>);

/// An order has taken hold. All of that connection stands still until this is dropped.
#[derive(Debug)]
pub(crate) struct Reached {
    /// The proxy's number.
    pub(crate) proxy: u64,
    /// Dropped with this, which is the sign.
    _go: oneshot::Sender<()>,
}

impl Orders {
    /// Delivers a commit of this kind, the nth from now, and cuts the connection instead of the answer. Resolves when
    /// PostgreSQL has committed; the cut follows when what it resolves to is dropped. Who awaits it in vain fails; the order is
    /// withdrawn when this is dropped.
    pub(crate) fn lose_answer(&self, kind: Commit, nth: u32) -> impl Future<Output = Reached> + use<> {
        self.order(Place::After, kind, nth)
    }

    /// Keeps a commit of this kind, the nth from now, from PostgreSQL: its client has stalled in the middle of its
    /// transaction. It is delivered when what this resolves to is dropped.
    pub(crate) fn stall(&self, kind: Commit, nth: u32) -> impl Future<Output = Reached> + use<> {
        self.order(Place::Before, kind, nth)
    }

    fn order(&self, place: Place, kind: Commit, nth: u32) -> impl Future<Output = Reached> + use<> {
        let (told, reached) = oneshot::channel();
        let order = Order { place, kind, passing: nth.saturating_sub(1), told };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        async move {
            let reached = tokio::time::timeout(BOUND, reached).await;
            reached.unwrap_or_else(|_| panic!("no commit for the order: {kind:?} {place:?}")).expect("the orders are there")
        }
    }

    /// A commit of these kinds is at this place in this proxy. Returns what ends the wait that an order asks for.
    pub(super) fn meet(&self, place: Place, kinds: &BTreeSet<Commit>, proxy: u64) -> Option<oneshot::Receiver<()>> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits any more for what was withdrawn.
        orders.retain(|order| !order.told.is_closed());
        let index = orders.iter().position(|order| order.place == place && kinds.contains(&order.kind))?;
        if let Some(passing) = orders[index].passing.checked_sub(1) {
            orders[index].passing = passing;
            return None;
        }
        let order = orders.remove(index);
        let (go, gone) = oneshot::channel();
        order.told.send(Reached { proxy, _go: go }).ok().map(|()| gone)
    }
}
