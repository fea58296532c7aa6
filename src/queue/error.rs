//! What can go wrong in the queue.

use std::sync::Arc;

use thiserror::Error;

/// An error of the queue engine. It can be cloned, since one transaction writes for many jobs: each of them is told.
#[derive(Debug, Clone, Error)]
pub enum QueueError {
    /// PostgreSQL refused, or is away.
    #[error("the queue's database: {0}")]
    Database(#[source] Arc<sqlx::Error>),
    /// A transaction was not answered in time. Its connection is closed; whether it was committed is not known.
    #[error("the queue's database did not answer within {0:?}")]
    TimedOut(std::time::Duration),
    /// The hook of a queue refused.
    #[error("settling {queue} {key}: {message}")]
    Hook {
        /// The queue.
        queue: String,
        /// The job's key.
        key: String,
        /// What the hook says.
        message: String,
    },
    /// No hook was given for this queue.
    #[error("no one settles the queue {0}")]
    UnknownQueue(String),
    /// The thread of the beat could not be started.
    #[error("the beat's thread did not start: {0}")]
    Thread(#[source] Arc<std::io::Error>),
    /// The ledger has no such open attempt: a fault of ours.
    #[error("cell {cell}: {message}")]
    Ledger {
        /// The cell.
        cell: uuid::Uuid,
        /// What does not fit.
        message: String,
    },
    /// The attempt of which an outcome says that its fate is not known was never sent: the worker that had lost its claim said so,
    /// after the outcome's own had looked.
    #[error("cell {cell}: the POST of its last attempt never left")]
    NeverLeft {
        /// The cell.
        cell: uuid::Uuid,
    },
    /// The engine has ended, and with it what writes.
    #[error("the engine has ended")]
    Ended,
}

impl From<sqlx::Error> for QueueError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl QueueError {
    /// PostgreSQL's code for it, where it said one.
    fn code(&self) -> Option<String> {
        match self {
            Self::Database(error) => error.as_database_error()?.code().map(Into::into),
            _ => None,
        }
    }

    /// Whether it was refused for its content: trying again cannot help.
    pub(super) fn is_refused(&self) -> bool {
        match self {
            Self::Database(error) => match &**error {
                // Class 22: data exception; class 23: integrity constraint violation; class 42: what we wrote is not SQL here.
                sqlx::Error::Database(error) => {
                    error.code().is_some_and(|code| ["22", "23", "42"].iter().any(|class| code.starts_with(class)))
                }
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_)
                | sqlx::Error::TypeNotFound { .. } => true,
                _ => false,
            },
            Self::Hook { .. } | Self::UnknownQueue(_) | Self::Ledger { .. } | Self::NeverLeft { .. } | Self::Ended => true,
            Self::TimedOut(_) | Self::Thread(_) => false,
        }
    }

    /// Whether somebody else's lock was in the way for too long: what needs another row may go on.
    pub(super) fn is_blocked(&self) -> bool {
        // Lock not available; query canceled, as by a statement's time-out.
        self.code().is_some_and(|code| code == "55P03" || code == "57014")
    }

    /// Whether two transactions were in each other's way: the same once more, at once.
    pub(super) fn is_conflict(&self) -> bool {
        // Deadlock detected, serialization failure.
        self.code().is_some_and(|code| code == "40P01" || code == "40001")
    }
}
