//! States of tasks and cells, and the words for why a cell failed (design: states).

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(rename_all = "snake_case")]
        #[sqlx(type_name = "text", rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in SQL, logs and prose; it never changes meaning.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The state that a word names.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// State of a task, and of a cell.
    Status {
        /// Cell: no attempt is open. Task: no attempt was made.
        Pending = "pending",
        /// Cell: an attempt is open. Task: some cell is not ended.
        Processing = "processing",
        /// Ended with a picture (task: with at least one).
        Completed = "completed",
        /// Ended without, for a reason.
        Failed = "failed",
        /// Ended because somebody asked for it.
        Cancelled = "cancelled",
    }
}

impl Status {
    /// Neither pending nor processing.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether a cell may go from here to there (design, section 6).
    pub const fn cell_may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::Processing | Self::Cancelled | Self::Failed)
                | (Self::Processing, Self::Completed | Self::Failed | Self::Cancelled | Self::Pending)
                | (Self::Failed | Self::Cancelled, Self::Pending)
        )
    }

    /// Whether a task may go from here to there (design, section 6).
    pub const fn task_may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::Processing | Self::Completed | Self::Failed | Self::Cancelled)
                | (Self::Processing, Self::Completed | Self::Failed | Self::Cancelled)
                | (Self::Completed | Self::Failed | Self::Cancelled, Self::Processing)
        )
    }
}

words! {
    /// Why a cell failed.
    ErrorKind {
        /// The upstream did not take the request.
        Rejected = "rejected",
        /// The content was refused, before or after it was made.
        Refused = "refused",
        /// The upstream failed.
        UpstreamFailure = "upstream_failure",
        /// The upstream gave up.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream does not know the id any more.
        UpstreamLost = "upstream_lost",
        /// The poll limit was reached.
        PollLimit = "poll_limit",
        /// Whether the submit was taken is not known.
        UnknownSubmit = "unknown_submit",
        /// The job took its worker down again and again.
        CrashLoop = "crash_loop",
        /// The deadline of the attempt passed.
        Deadline = "deadline",
        /// An operator ended it.
        Operator = "operator",
        /// A fault of ours.
        Internal = "internal",
    }
}

words! {
    /// What a retry of a cell allows.
    RetryMode {
        /// An earlier upstream id is asked for, and an earlier POST waited for, before anything is paid.
        PollFirst = "poll_first",
        /// Neither: an operator took the risk of paying twice.
        Now = "now",
        /// An id came late: it is polled, and nothing is paid.
        Evidence = "evidence",
    }
}
