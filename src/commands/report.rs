//! How a command ends: exit codes, and an error in one line with the way out.

use std::{fmt::Display, io, process::ExitCode};

use super::{logs::LogError, simulate::SimulateError};
use crate::{services::error::ServiceError, simulator::SimulatorError};

/// A command that did not do what it was asked for; or one whose reader has gone, which is its end, and nothing to tell.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// It failed: exit code 1.
    pub fn failed(error: impl Display) -> Self {
        Self { message: error.to_string(), code: 1 }
    }

    /// Wrong usage, bad input or a wrong setting: exit code 2.
    pub fn usage(error: impl Display) -> Self {
        Self { message: error.to_string(), code: 2 }
    }

    /// Standard output takes no more. Where its reader has seen enough, as in `... | head`, it is a quiet end: exit code 0.
    pub(super) fn unprinted(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { message: String::new(), code: 0 },
            _ => Self::failed(format_args!("cannot {what}: {error}")),
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_quiet(&self) -> bool {
        self.code == 0
    }

    /// The message, in one line.
    pub fn line(&self) -> String {
        self.message.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<SimulateError> for Failure {
    fn from(error: SimulateError) -> Self {
        match error {
            SimulateError::Simulator(SimulatorError::Options(_)) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Filter { .. } => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Input(_) | ServiceError::Usage(_) => Self::usage(error),
            // Most often nobody was made yet.
            ServiceError::NotFound { what: "user", .. } => Self::failed(format_args!(
                "{error}; `imagemill init-users` makes the first users, `imagemill user create` others"
            )),
            ServiceError::NotFound { what: "task", .. } => {
                Self::failed(format_args!("{error}; `imagemill task list --all` shows those that there are"))
            }
            ServiceError::NotAllowed { .. } => Self::failed(format_args!(
                "{error}; act as somebody who has it (--as USER): `imagemill user list` shows who has which role"
            )),
            _ => Self::failed(error),
        }
    }
}
