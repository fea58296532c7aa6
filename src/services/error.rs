//! What a service says when it does not do what it was asked for.

use thiserror::Error;
use uuid::Uuid;

use super::password::PasswordError;
use crate::{
    models::{Faults, Permission, status::Status},
    queue::QueueError,
};

/// Where the names are that there are.
fn way_out(what: &str) -> &'static str {
    match what {
        "lane" => "; `imagemill lane list` names them",
        "unknown attempt" => "; `imagemill attempt list --unknown` names them",
        _ => "",
    }
}

/// An error of a service. "Not allowed" and "not found" are different, and neither is ever an empty answer.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The input has faults: all of them.
    #[error("the input has faults: {0}")]
    Input(#[from] Faults),
    /// The acting user lacks a permission.
    #[error("{username} may not do this: it needs the permission {permission}")]
    NotAllowed {
        /// Who.
        username: String,
        /// What is missing.
        permission: Permission,
    },
    /// There is no such thing.
    #[error("there is no {what} {id}{}", way_out(what))]
    NotFound {
        /// A task, a cell, a user.
        what: &'static str,
        /// As asked for.
        id: String,
    },
    /// A task that was deleted, and can be had back.
    #[error("task {0} is deleted; `imagemill task restore {0}` brings it back")]
    Deleted(Uuid),
    /// The key was used for another input.
    #[error("the idempotency key {key:?} belongs to task {task}, which has another input; use another key")]
    KeyReused {
        /// The key.
        key: String,
        /// The task of it.
        task: Uuid,
    },
    /// A name that is taken.
    #[error("there is a user {username} already")]
    UsernameTaken {
        /// The name.
        username: String,
    },
    /// A user that was switched off.
    #[error("the user {username} is inactive and may do nothing")]
    Inactive {
        /// Who.
        username: String,
    },
    /// Not an edge of the state diagram.
    #[error("a {what} cannot go from {from} to {to}")]
    Transition {
        /// A task or a cell.
        what: &'static str,
        /// Its state.
        from: Status,
        /// What was asked for.
        to: Status,
    },
    /// Something of the call that is not right.
    #[error("{0}")]
    Usage(String),
    /// PostgreSQL refused, or is away.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The upstream's client.
    #[cfg(feature = "worker")]
    #[error(transparent)]
    Client(#[from] super::make_image::ClientError),
    /// A password could not be hashed or compared.
    #[error(transparent)]
    Password(#[from] PasswordError),
}
