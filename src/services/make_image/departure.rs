//! A submit's way to its first byte is bounded. Its last check comes before it has a connection, and a connection may take long:
//! names are looked up, the upstream drops what knocks, TLS has its rounds. So what makes connections asks once more when one
//! stands, and waits for none for longer than the POST may leave.
//!
//! The HTTP client makes them within the future of the request that wants one, or hands over one that another request has left
//! before; a connection that fails ends that request. So nothing waits for any longer than for its own.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use thiserror::Error;
use tower::{BoxError, Layer, Service};

tokio::task_local! {
    /// That of the request under way; none outside [`Departure::bound`].
    static DEPARTURE: Departure;
}

/// Until when a POST may leave.
#[derive(Clone)]
pub struct Departure {
    left: Arc<dyn Fn() -> Option<Duration> + Send + Sync>,
    was_held_back: Arc<AtomicBool>,
}

impl Departure {
    /// `left` says for how long it may still leave; none: it must not.
    pub fn new(left: impl Fn() -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self { left: Arc::new(left), was_held_back: Arc::default() }
    }

    /// Whether a connection stood for it, and it must not leave any more.
    pub(super) fn was_held_back(&self) -> bool {
        self.was_held_back.load(Ordering::Acquire)
    }

    /// Sends a request that leaves by then, or not at all.
    pub(super) async fn bound<T>(departure: Option<Self>, request: impl Future<Output = T>) -> T {
        match departure {
            Some(departure) => DEPARTURE.scope(departure, request).await,
            None => request.await,
        }
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Departure").field("left", &(self.left)()).finish_non_exhaustive()
    }
}

/// Why a submit got no connection.
#[derive(Debug, Error)]
enum TooLate {
    /// None stood in time.
    #[error("none stood while the submit might leave, {0:.1?} long")]
    Connection(Duration),
    /// It stood, and the POST must not leave.
    #[error("it stood when the submit might not leave any more")]
    Submit,
}

/// What is laid round the client's connector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departures;

/// See [`Departures`].
#[derive(Debug, Clone)]
pub(super) struct Departing<C> {
    connector: C,
}

impl<C> Layer<C> for Departures {
    type Service = Departing<C>;

    fn layer(&self, connector: C) -> Departing<C> {
        Departing { connector }
    }
}

impl<C, R> Service<R> for Departing<C>
where
    C: Service<R, Error = BoxError>,
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connection = self.connector.call(request);
        // Here, and not in the future: that is taken to another task where it goes on for the pool alone.
        match DEPARTURE.try_with(Departure::clone) {
            Ok(departure) => Box::pin(in_time(departure, connection)),
            Err(_) => Box::pin(connection),
        }
    }
}

async fn in_time<T>(departure: Departure, connection: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    let left = (departure.left)().unwrap_or_default();
    let connection = match tokio::time::timeout(left, connection).await {
        Ok(connection) => connection?,
        Err(_) => return Err(TooLate::Connection(left).into()),
    };
    // A process that stood still meanwhile finds both, the connection and the end of its time.
    if (departure.left)().is_none() {
        departure.was_held_back.store(true, Ordering::Release);
        return Err(TooLate::Submit.into());
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A connector whose connections stand at once, or never.
    #[derive(Clone)]
    struct Connector {
        stands: bool,
    }

    impl Service<()> for Connector {
        type Response = &'static str;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<&'static str, BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            if self.stands { Box::pin(std::future::ready(Ok("a connection"))) } else { Box::pin(std::future::pending()) }
        }
    }

    async fn connect(departure: Option<Departure>, stands: bool) -> Result<&'static str, String> {
        let request = async { Departures.layer(Connector { stands }).call(()).await };
        Departure::bound(departure, request).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_connection_that_stands_in_time_is_taken_and_one_that_never_stands_is_left() {
        let departure = || Some(Departure::new(|| Some(Duration::from_millis(200))));
        assert_eq!(connect(departure(), true).await.unwrap(), "a connection");
        assert_eq!(connect(None, true).await.unwrap(), "a connection");
        let late = connect(departure(), false).await.unwrap_err();
        assert_eq!(late, "none stood while the submit might leave, 200.0ms long");
    }

    #[tokio::test]
    async fn a_connection_that_stands_too_late_is_not_used() {
        // It may leave when the connection is asked for, and not when it stands.
        let looks = Arc::new(AtomicUsize::new(0));
        let departure = Departure::new(move || (looks.fetch_add(1, Ordering::AcqRel) == 0).then_some(Duration::from_mins(1)));
        let late = connect(Some(departure.clone()), true).await.unwrap_err();
        assert_eq!(late, "it stood when the submit might not leave any more");
        assert!(departure.was_held_back());
    }

    #[tokio::test]
    async fn what_is_no_submit_waits_as_long_as_it_likes() {
        let mut waiting = std::pin::pin!(connect(None, false));
        assert!(futures::poll!(&mut waiting).is_pending());
        // Whoever must have left by now is told so meanwhile.
        assert!(connect(Some(Departure::new(|| Some(Duration::ZERO))), false).await.is_err());
        assert!(futures::poll!(&mut waiting).is_pending());
    }
}
