//! Places at which a test may end this process: what a crash at the worst moment does is seen only by crashing there.
//!
//! Compiled in with the feature `faults` only, which the tests switch on; without it each of these is nothing.
//! `IMAGEMILL_FAULT_POINT=ledger_committed:3` ends the process, as by `kill -9`, when it passes that place the third time;
//! `ledger_committed:3:stop` stops it there, as by `kill -STOP`, until it is told to go on.

/// After a claim was committed, before anything is done with its jobs.
pub const CLAIM_COMMITTED: &str = "claim_committed";
/// After the rows of a group of submits were committed, before any of their POSTs.
pub const LEDGER_COMMITTED: &str = "ledger_committed";
/// While a POST is out.
pub const POST_ON_THE_WIRE: &str = "post_on_the_wire";
/// After the answer to a POST, before its id is written.
pub const ANSWER_RECEIVED: &str = "answer_received";
/// After the ids of a group were committed.
pub const ACCEPTED_COMMITTED: &str = "accepted_committed";
/// After the last statement of a group's settle, before its COMMIT.
pub const SETTLE_UNCOMMITTED: &str = "settle_uncommitted";
/// After a group's settle was committed.
pub const SETTLE_COMMITTED: &str = "settle_committed";

/// Every place.
pub const POINTS: [&str; 7] = [
    CLAIM_COMMITTED,
    LEDGER_COMMITTED,
    POST_ON_THE_WIRE,
    ANSWER_RECEIVED,
    ACCEPTED_COMMITTED,
    SETTLE_UNCOMMITTED,
    SETTLE_COMMITTED,
];

/// Ends or stops the process here, if that was ordered.
pub(crate) fn point(name: &str) {
    #[cfg(feature = "faults")]
    armed::pass(name);
    #[cfg(not(feature = "faults"))]
    let _ = name;
}

/// Ends or stops the process while this future is under way, if that was ordered: some time after it began and before it ended.
#[cfg_attr(not(feature = "worker"), expect(dead_code, reason = "only what calls the upstream has a POST on the wire"))]
pub(crate) async fn during<F: Future>(name: &str, future: F) -> F::Output {
    #[cfg(feature = "faults")]
    if armed::counts(name) {
        let mut future = std::pin::pin!(future);
        let ended = tokio::time::timeout(armed::MOMENT, &mut future).await;
        armed::act();
        return match ended {
            Ok(output) => output,
            Err(_) => future.await,
        };
    }
    let _ = name;
    future.await
}

#[cfg(feature = "faults")]
mod armed {
    use std::{
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    /// Long enough for a request to be on its way, short beside any answer that a test makes slow.
    pub(super) const MOMENT: Duration = Duration::from_millis(20);

    struct Order {
        name: String,
        passing: u64,
        stops: bool,
    }

    static ORDER: LazyLock<Option<Order>> = LazyLock::new(|| {
        let order = std::env::var("IMAGEMILL_FAULT_POINT").ok()?;
        let mut parts = order.split(':');
        let (name, passing) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Order { name, passing, stops: parts.next() == Some("stop") })
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    /// Counts a passing; whether it is the one that was ordered.
    pub(super) fn counts(name: &str) -> bool {
        let is_ordered = |order: &Order| order.name == name && PASSED.fetch_add(1, Ordering::AcqRel) + 1 == order.passing;
        ORDER.as_ref().is_some_and(is_ordered)
    }

    pub(super) fn pass(name: &str) {
        if counts(name) {
            act();
        }
    }

    /// As by `kill -9`: nothing is tidied up; or as by `kill -STOP`: returns when the process goes on.
    pub(super) fn act() {
        let stops = ORDER.as_ref().is_some_and(|order| order.stops);
        let signal = if stops { rustix::process::Signal::STOP } else { rustix::process::Signal::KILL };
        let sent = rustix::process::kill_process(rustix::process::getpid(), signal);
        // Another thread may take the signal, and this one stops a little later: not further on than here.
        std::thread::sleep(MOMENT);
        if !stops || sent.is_err() {
            // Killed by now; where the signal could not be sent, the end is the next best.
            std::process::abort()
        }
    }
}
