//! Exit codes shared by all commands that read the log.

use piperoll_query::filter::FilterError;

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Complete and verified.
    Complete = 0,
    /// Could not run.
    Failed = 1,
    /// The request is invalid.
    Usage = 2,
    /// An expected node did not answer in full.
    Incomplete = 3,
    /// Rows fail verification or are missing, a log cannot be trusted, or a bundle is refused. Takes precedence over
    /// `Incomplete`.
    Violation = 4,
    /// No node answered.
    Nothing = 5,
}

/// A request with an invalid number, time or filter; retrying it without changes cannot succeed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

impl Exit {
    /// Returns the exit code of a command that failed.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let usage = error.chain().any(|cause| {
            cause.is::<UsageError>() || cause.is::<FilterError>() || cause.is::<piperoll_format::time::TimeError>()
        });
        if usage { Self::Usage } else { Self::Failed }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
