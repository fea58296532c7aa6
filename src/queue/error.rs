//! What can go wrong in the queue.

use thiserror::Error;

/// An error of the queue engine.
#[derive(Debug, Error)]
pub enum QueueError {
    /// PostgreSQL refused, or is away.
    #[error("the queue's database: {0}")]
    Database(#[from] sqlx::Error),
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
    Thread(#[source] std::io::Error),
    /// The ledger has no such open attempt: a fault of ours.
    #[error("cell {cell}: {message}")]
    Ledger {
        /// The cell.
        cell: uuid::Uuid,
        /// What does not fit.
        message: String,
    },
}

/// Whether PostgreSQL refused this for its content: trying again cannot help.
pub(super) fn is_refused(error: &QueueError) -> bool {
    match error {
        QueueError::Database(sqlx::Error::Database(error)) => {
            // Class 22: data exception; class 23: integrity constraint violation; class 42: what we wrote is not SQL here.
            error.code().is_some_and(|code| ["22", "23", "42"].iter().any(|class| code.starts_with(class)))
        }
        QueueError::Database(
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) | sqlx::Error::TypeNotFound { .. },
        )
        | QueueError::Hook { .. }
        | QueueError::UnknownQueue(_)
        | QueueError::Ledger { .. } => true,
        QueueError::Database(_) | QueueError::Thread(_) => false,
    }
}
