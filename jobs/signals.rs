//! SIGTERM, Ctrl-C, and the end of the process that started this one.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Two signals so close together are one.
const ONE_MOMENT: Duration = Duration::from_millis(100);

/// The signals that ask a process to leave.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Cancelled when standard input ends, where that means that the parent is gone.
    orphaned: Option<CancellationToken>,
}

impl Signals {
    /// Catches them from here on.
    pub(crate) fn catch(with_parent: bool) -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            orphaned: if with_parent { Some(watch_parent()?) } else { None },
        })
    }

    /// Waits for the first sign to leave: a signal, or the end of the parent.
    pub(crate) async fn first(&mut self) {
        let orphaned = self.orphaned.clone();
        let orphaned = async {
            match orphaned {
                Some(orphaned) => orphaned.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.signal() => {}
            () = orphaned => {}
        }
    }

    /// Waits for a signal after the first, which was just now. What comes in the first one's own moment is the same sign:
    /// `timeout`, for one, tells the process and then its whole group.
    pub(crate) async fn further(&mut self) {
        let told = Instant::now();
        loop {
            self.signal().await;
            if told.elapsed() >= ONE_MOMENT {
                return;
            }
        }
    }

    /// Waits for a signal. That the parent ends is no reason to hurry.
    pub(crate) async fn signal(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP: what can be read again is to be.
pub(crate) fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// The parent holds the other end of standard input: it closes however the parent ends. Read on a thread, since a read that
/// never returns must not keep the runtime from ending.
pub(crate) fn watch_parent() -> std::io::Result<CancellationToken> {
    let orphaned = CancellationToken::new();
    let told = orphaned.clone();
    std::thread::Builder::new().name("imagemill-parent".to_owned()).spawn(move || {
        let mut buffer = [0; 64];
        // What it says is of no interest; an error is an end as well.
        while matches!(std::io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
        told.cancel();
    })?;
    Ok(orphaned)
}
