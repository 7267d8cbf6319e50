//! Exit codes, the same for all reading commands.

use piperoll_query::filter::FilterError;

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Complete and verified.
    Complete = 0,
    /// Could not run.
    Failed = 1,
    /// Not asked in a way that can be answered.
    Usage = 2,
    /// An expected node did not answer in full.
    Incomplete = 3,
    /// A signature, a gap, or a file that is not ours. Outranks incomplete.
    Violation = 4,
    /// No node answered.
    Nothing = 5,
}

/// A question that cannot be asked like that: another number, time or filter is needed, and trying again is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

impl Exit {
    /// What a command that failed ends with.
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
