//! What proxies are ordered to do to commits.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::{Proxy, wire::Commit};
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
    /// The only proxy to do it; none: any.
    proxy: Option<u64>,
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
    /// The process of PostgreSQL at the other end of the connection.
    pub(crate) backend: i32,
    /// Dropped with this, which is the sign.
    _go: oneshot::Sender<()>,
}

impl Orders {
    /// Delivers a commit of this kind, the nth from now, and cuts the connection instead of the answer. Resolves when
    /// PostgreSQL has committed; the cut follows when what it resolves to is dropped. Who awaits it in vain fails; the order is
    /// withdrawn when this is dropped.
    pub(crate) fn lose_answer(&self, kind: Commit, nth: u32) -> impl Future<Output = Reached> + use<> {
        self.order(Place::After, kind, None, nth)
    }

    /// The same for the next commit of this proxy.
    pub(crate) fn lose_next_answer(&self, kind: Commit, proxy: &Proxy) -> impl Future<Output = Reached> + use<> {
        self.order(Place::After, kind, Some(proxy.number()), 1)
    }

    /// Keeps a commit of this kind, the nth from now, from PostgreSQL: its client has stalled in the middle of its
    /// transaction. It is delivered when what this resolves to is dropped.
    pub(crate) fn stall(&self, kind: Commit, nth: u32) -> impl Future<Output = Reached> + use<> {
        self.order(Place::Before, kind, None, nth)
    }

    fn order(&self, place: Place, kind: Commit, proxy: Option<u64>, nth: u32) -> impl Future<Output = Reached> + use<> {
        let (told, reached) = oneshot::channel();
        let order = Order { place, kind, proxy, passing: nth.saturating_sub(1), told };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        async move {
            let reached = tokio::time::timeout(BOUND, reached).await;
            reached.unwrap_or_else(|_| panic!("no commit for the order: {kind:?} {place:?}")).expect("the orders are there")
        }
    }

    /// A commit of these kinds is at this place in this proxy. Returns what ends the wait that an order asks for.
    pub(super) fn meet(&self, place: Place, kinds: &BTreeSet<Commit>, proxy: u64, backend: i32) -> Option<oneshot::Receiver<()>> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits any more for what was withdrawn.
        orders.retain(|order| !order.told.is_closed());
        let index = orders.iter().position(|order| {
            order.place == place && kinds.contains(&order.kind) && order.proxy.is_none_or(|only| only == proxy)
        })?;
        if let Some(passing) = orders[index].passing.checked_sub(1) {
            orders[index].passing = passing;
            return None;
        }
        let order = orders.remove(index);
        let (go, gone) = oneshot::channel();
        order.told.send(Reached { proxy, backend, _go: go }).ok().map(|()| gone)
    }
}
