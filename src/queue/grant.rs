//! When a submit may leave, where its lane has a rate.
//!
//! A claim grants each of its jobs a moment, up to a quarter of a second ahead. The row is written meanwhile; then the moment is
//! waited for. A submit that is late would meet those that were granted for later: it takes another moment. So whatever leaves,
//! leaves within [`TOLERANCE`] of its moment, which the lane's bucket allows for (`submit_pace` in src/db/claim.sql).

use std::time::Duration;

use tokio::time::Instant;

use super::{connections::Connections, error::QueueError};

/// A submit that is later than this takes another moment. The bucket allows for 0.1 s: the rest is the way to the upstream.
const TOLERANCE: Duration = Duration::from_millis(40);

/// A moment that is further ahead is not taken: the lane's rate may be raised before. More than a claim's quarter of a second, so
/// that what is late comes before what is claimed.
const WITHIN: Duration = Duration::from_secs(1);

/// Then it is asked for again after so long.
const ANEW: Duration = Duration::from_millis(500);

/// The moment of one submit. PostgreSQL's clock says it as seconds after a point in the middle of a statement, of which this
/// process knows when it was sent and when it was answered.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Surely not before the moment.
    at: Instant,
    /// Surely not later than the tolerance after it.
    until: Instant,
}

impl Grant {
    /// So many seconds after the point; the statement was sent and answered then, and waited for locks before the point.
    pub(super) fn new(wait: f64, waited: f64, sent: Instant, answered: Instant) -> Self {
        let wait = Duration::try_from_secs_f64(wait.max(0.0)).unwrap_or_default();
        let waited = Duration::try_from_secs_f64(waited.max(0.0)).unwrap_or_default();
        Self { at: answered + wait, until: sent + waited + wait + TOLERANCE }
    }

    /// When it may leave; none: it is too late for it.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        (self.at.max(now) <= self.until).then_some(self.at)
    }

    /// Whether it may leave now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.at <= now && now <= self.until
    }
}

/// Asks for another moment in this lane; none: it has no rate any more. One that is far ahead is waited for here and not granted:
/// what is answered then is late already, so that whoever waits looks whether he still wants to, and asks again.
pub(super) async fn again(connections: &Connections, lane: &str) -> Result<Option<Grant>, QueueError> {
    let sent = Instant::now();
    let (wait, waited, is_granted): (Option<f64>, f64, bool) = connections
        .statement(async |connection| {
            let query = sqlx::query_as("select wait, waited, is_granted from imagemill.ask_submit($1, $2)");
            Ok(query.bind(lane).bind(WITHIN.as_secs_f64()).fetch_one(connection).await?)
        })
        .await?;
    if !is_granted {
        tokio::time::sleep(ANEW).await;
        return Ok(Some(Grant { at: sent, until: sent }));
    }
    Ok(wait.map(|wait| Grant::new(wait, waited, sent, Instant::now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_submit_waits_for_its_moment_and_is_then_late() {
        let sent = Instant::now();
        let grant = Grant::new(0.1, 0.0, sent, sent + ms(10));
        assert_eq!(grant.due(sent), Some(sent + ms(110)));
        assert!(!grant.is_open(sent + ms(109)));
        assert!(grant.is_open(sent + ms(110)));
        assert!(grant.is_open(sent + ms(140)));
        assert!(!grant.is_open(sent + ms(141)));
        assert_eq!(grant.due(sent + ms(141)), None);
    }

    #[test]
    fn an_answer_that_was_long_under_way_grants_nothing() {
        let sent = Instant::now();
        let answered = sent + ms(100);
        assert_eq!(Grant::new(0.1, 0.0, sent, answered).due(answered), None);
        assert_eq!(Grant::new(0.1, 0.09, sent, answered).due(answered), Some(answered + ms(100)));
    }
}
